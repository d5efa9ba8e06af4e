"""What a user can ask for, checked before anything starts."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from relight.errors import RequestError
from relight.images import mask
from relight.images.fit import MODES
from relight.images.region import FAINTEST
from relight.jobs.families import FAMILIES, FLUX, OPTIONAL, Family
from relight.jobs.upscalers import UPSCALERS
from relight.sampling import latents, names, noise
from relight.sampling.sigmas import MAX_STEPS

MAX_BATCH = 64
MAX_SEED = 2**63 - 1
MAX_TEXT_TOKENS = 512

Fill = Literal["fill", "original", "latent_noise", "latent_nothing"]
Fit = Literal["stretch", "crop", "fill"]


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """The files of a model by kind of network (`diffusion` or `unet`, `clip_l`, `t5xxl`, `vae`, ...), each in one file
    or several shards; all-in-one files are named once for each. `taesd` and `upscaler` serve any family.

    `loras`, `embeddings` and `controlnets` are what requests can name: files by their names without endings.
    `prediction` is `eps` or `v` where the user or the file says it.
    """

    family: Family = FLUX
    paths: Mapping[str, tuple[Path, ...]]
    t5_tokenizer: Path | None = None
    loras: Mapping[str, Path] = field(default_factory=dict)
    embeddings: Mapping[str, Path] = field(default_factory=dict)
    controlnets: Mapping[str, Path] = field(default_factory=dict)
    prediction: str | None = None

    @classmethod
    def of_family(cls, family: str, paths: Mapping[str, tuple[Path, ...]], **more: object) -> ModelFiles:
        return cls(family=FAMILIES[family], paths=dict(paths), **more)  # type: ignore[arg-type]

    def kind(self, component: str) -> str:
        """Of the network that a component is."""
        return (self.family.components.get(component) or OPTIONAL[component]).kind

    def of(self, component: str) -> tuple[Path, ...]:
        """The modulation is a part of the diffusion file, the encoder of the autoencoder's."""
        return self.paths.get(self.kind(component), ())

    @property
    def name(self) -> str:
        """What the model is called in reports: its backbone's file."""
        return self.of("diffusion")[0].stem


@dataclass(frozen=True, kw_only=True, eq=False)
class Redraw:
    """A picture to begin from. `strength`: the share of the noise it gets, 1 leaves nothing of it.

    `image` [H W 3] uint8 is brought to the asked size as `fit` says. With `mask` [H W] float32 (1: paint here) only
    that part changes; `mask_blur` softens its edge by so many pixels; `fill` is what it begins from. `only_masked`
    paints the masked region with `padding` pixels around it at full size and puts it back.
    """

    image: np.ndarray
    strength: float = 0.75
    fit: Fit = "crop"
    mask: np.ndarray | None = None
    mask_blur: float = 4.0
    fill: Fill = "original"
    only_masked: bool = False
    padding: int = 32

    def __post_init__(self) -> None:
        _within("strength", self.strength, 0, 1)
        _within("mask blur", self.mask_blur, 0, 256)
        _within("inpaint padding", self.padding, 0, 1024)
        mask.check_fill(self.fill)
        if self.fit not in MODES:
            raise RequestError(f"resize mode: there is no {self.fit!r}; there are {', '.join(MODES)}")
        if self.mask is None:
            if self.only_masked or self.fill != "original":
                raise RequestError("fill and only-masked are for a picture with a mask; give --mask")
            return
        (height, width), (rows, columns) = self.image.shape[:2], self.mask.shape
        if (height, width) != (rows, columns):
            raise RequestError(f"mask: {columns}x{rows} pixels, and the picture has {width}x{height}: make them alike")
        if not (self.mask >= FAINTEST).any():
            raise RequestError("mask: nothing in it is white, so nothing would be painted; invert it, or leave it out")


@dataclass(frozen=True, kw_only=True)
class Hires:
    """A second pass over the picture made larger. `upscaler`: `latent` (or `latent-nearest`, `latent-bicubic` ...), a
    way of resizing pixels (`lanczos`, ...), or `model` for the upscaler's file."""

    scale: float = 2.0
    steps: int | None = None
    strength: float = 0.7
    upscaler: str = "latent"

    def __post_init__(self) -> None:
        _within("hires scale", self.scale, 1, 8)
        _within("hires strength", self.strength, 0, 1)
        if self.steps is not None:
            _within("hires steps", self.steps, 1, MAX_STEPS)
        if self.upscaler not in UPSCALERS:
            raise RequestError(f"hires upscaler: {self.upscaler!r} is not one of {', '.join(UPSCALERS)}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Control:
    """A ControlNet and the picture [H W 3] uint8 it follows, from `start` to `end` of the steps. `canny`: two
    thresholds, and the picture's edges are taken first."""

    path: Path
    image: np.ndarray
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    canny: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _within("control strength", self.strength, 0, 10)
        _within("control start", self.start, 0, 1)
        _within("control end", self.end, self.start, 1)
        if self.canny is not None and not 0 <= self.canny[0] <= self.canny[1]:
            low, high = self.canny
            raise RequestError(f"canny {low},{high}: the second threshold is no less than the first, neither below 0")


@dataclass(frozen=True)
class Lora:
    """A LoRA by the name of its file, with its weight on the backbone and on the text encoders."""

    name: str
    weight: float = 1.0
    text_weight: float | None = None

    def __post_init__(self) -> None:
        _within(f"weight of LoRA {self.name}", self.weight, -20, 20)


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """A prompt and `batch` pictures of it, with seeds counting up from `seed` (random when None).

    None takes what the model's users expect. `guidance` is the distilled guidance of FLUX.1 dev; `cfg_scale` steers
    away from the negative prompt with a second pass, 1 is without. `sigmas` overrides `schedule` and `steps`.
    `text_tokens` is T5's length. `decode_with` `taesd` takes the small decoder;
    `upscale` makes the finished picture so many times larger with the upscaler's file.
    """

    prompt: str
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    seed: int | None = None
    rng: str = "cuda"
    guidance: float | None = None
    cfg_scale: float | None = None
    cfg_rescale: float = 0.0
    clip_skip: int | None = None
    sampler: str | None = None
    schedule: str | None = None
    sigmas: Sequence[float] | None = None
    batch: int = 1
    text_tokens: int | None = None
    tile: int | None = None
    redraw: Redraw | None = None
    hires: Hires | None = None
    loras: tuple[Lora, ...] = ()
    controls: tuple[Control, ...] = ()
    upscale: float | None = None
    decode_with: Literal["vae", "taesd"] = "vae"
    preview_every: int = 0

    def __post_init__(self) -> None:
        for side in (self.width, self.height):
            if side is not None and not latents.SMALLEST <= side <= latents.LARGEST:
                raise RequestError(f"size: {side} pixels; {latents.SMALLEST} to {latents.LARGEST} can be made")
        if self.sampler is not None:
            names.sampler(self.sampler)
        if self.schedule is not None:
            names.schedule(self.schedule)
        noise.rng(self.rng, 0)
        if self.steps is not None:
            _within("steps", self.steps, 1, MAX_STEPS)
        _within("batch", self.batch, 1, MAX_BATCH)
        if self.seed is not None and not 0 <= self.seed <= MAX_SEED - self.batch:
            raise RequestError(f"seed {self.seed}: 0 to {MAX_SEED - self.batch}, or none for a random one")
        for name, value, least, most in (
            ("guidance", self.guidance, 0, 100),
            ("cfg scale", self.cfg_scale, 0, 100),
            ("cfg rescale", self.cfg_rescale, 0, 1),
            ("clip skip", self.clip_skip, 1, 12),
            ("text tokens", self.text_tokens, 1, MAX_TEXT_TOKENS),
            ("upscale", self.upscale, 1, 8),
            ("preview every", self.preview_every, 0, MAX_STEPS),
        ):
            if value is not None:
                _within(name, value, least, most)
        if self.tile is not None and not 16 <= self.tile <= 512:
            raise RequestError(f"vae tile size {self.tile}: 16 to 512 latent pixels (8 pixels of the picture each)")

    def with_seed(self) -> GenerateRequest:
        return self if self.seed is not None else replace(self, seed=random.randrange(2**32))

    @property
    def seeds(self) -> list[int]:
        """Of each picture; the request must have a seed."""
        assert self.seed is not None
        return [self.seed + i for i in range(self.batch)]


def _within(name: str, value: float, least: float, most: float) -> None:
    """Raises RequestError, also for what is no number."""
    if not (math.isfinite(value) and least <= value <= most):
        raise RequestError(f"{name} {value if isinstance(value, int) else f'{value:g}'}: {least:g} to {most:g}")
