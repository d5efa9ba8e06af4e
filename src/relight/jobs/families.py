"""The families of models relight makes pictures with, and what components each has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Component:
    """`kind` names the network in the files (weights.recognise), `network` the class that runs it."""

    kind: str
    network: str


CLIP_L, CLIP_G, CLIP_H = (Component(kind, "clip") for kind in ("clip_l", "clip_g", "clip_h"))
VAE, VAE_ENCODER = Component("vae", "vae"), Component("vae", "vae_encoder")
UNET = Component("unet", "unet")


@dataclass(frozen=True, kw_only=True)
class Family:
    """`components` by the names users know, in the order in which a picture needs them; those in `optional` only for
    what asks for them. `hidden_norm`: whether text that skips layers still passes the final norm."""

    name: str
    title: str
    components: Mapping[str, Component]
    text: tuple[str, ...]
    side: int
    hidden_norm: bool = True
    clip_skip: int = 1

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of the files a model of this family has."""
        return tuple(dict.fromkeys(component.kind for component in self.components.values()))


OPTIONAL = {
    "vae_encoder": VAE_ENCODER,
    "taesd": Component("taesd", "taesd"),
    "upscaler": Component("upscaler", "upscaler"),
}
"""Opened where a request asks for them."""

FLUX = Family(
    name="flux",
    title="FLUX.1",
    components={
        "clip_l": CLIP_L,
        "t5xxl": Component("t5xxl", "t5"),
        "modulation": Component("diffusion", "modulation"),
        "diffusion": Component("diffusion", "flux"),
        "vae": VAE,
    },
    text=("clip_l", "t5xxl"),
    side=1024,
)
SD1 = Family(
    name="sd1",
    title="Stable Diffusion 1.x",
    components={"clip_l": CLIP_L, "diffusion": UNET, "vae": VAE},
    text=("clip_l",),
    side=512,
)
SD2 = Family(
    name="sd2",
    title="Stable Diffusion 2.x",
    components={"clip_h": CLIP_H, "diffusion": UNET, "vae": VAE},
    text=("clip_h",),
    side=768,
    clip_skip=2,
)
SDXL = Family(
    name="sdxl",
    title="SDXL",
    components={"clip_l": CLIP_L, "clip_g": CLIP_G, "diffusion": UNET, "vae": VAE},
    text=("clip_l", "clip_g"),
    side=1024,
    hidden_norm=False,
    clip_skip=2,
)
FAMILIES = {family.name: family for family in (FLUX, SD1, SD2, SDXL)}
