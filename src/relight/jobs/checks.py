"""What is checked before any process starts: that the files are whole and belong together, that the prompt is text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from relight.errors import ConfigError, ModelFileError, RequestError
from relight.graph import Weights, input_tensor
from relight.graph.tensor import ShapeError
from relight.jobs.request import ModelFiles
from relight.models import clip, controlnet, esrgan, flux, t5, taesd, unet, vae
from relight.models.tokenizers import ClipTokenizer, T5Tokenizer, TokenIds
from relight.prompts import parse, sequence
from relight.sampling import latents
from relight.weights.checkpoint import Checkpoint, open_component
from relight.weights.embeddings import load_embedding

SMALLEST = 8
"""Latent pixels: sizes are checked by recording each network for a very small picture."""
UNET_CHANNELS, INPAINTING_CHANNELS = 4, 9


@dataclass(frozen=True)
class FluxTokens:
    """A prompt as both text encoders of FLUX take it, with the weight of each of T5's tokens [T]."""

    clip: TokenIds
    t5: TokenIds
    weights: np.ndarray


class Checked:
    """Files that belong together. Raises ModelFileError where they do not, naming the file."""

    def __init__(self, files: ModelFiles) -> None:
        self.files = files
        self.prediction = files.prediction
        self.configs: dict[str, Any] = {
            kind: self._open(kind, files.paths.get(kind, ())) for kind in files.family.kinds
        }
        self._check_widths()
        self._controlnets: set[Path] = set()
        self.clip_tokenizer = ClipTokenizer()
        if "t5xxl" in self.configs:
            paths = files.paths["t5xxl"]
            with closing(open_component("t5xxl", paths)) as checkpoint:
                self.t5_tokenizer = T5Tokenizer.find(paths[0], checkpoint.metadata, files.t5_tokenizer)

    @property
    def flux(self) -> flux.FluxConfig | None:
        """None for UNets."""
        config: flux.FluxConfig | None = self.configs.get("diffusion")
        return config

    @property
    def unet(self) -> unet.UnetConfig | None:
        config: unet.UnetConfig | None = self.configs.get("unet")
        return config

    @cached_property
    def sees_mask(self) -> bool:
        """Whether the backbone was made for inpainting: it takes the mask and the picture around it."""
        return self.unet is not None and self.unet.in_channels == INPAINTING_CHANNELS

    def check_optional(self, kind: str) -> None:
        """That the file of a network only some requests need is there and fits. Raises ConfigError, ModelFileError."""
        if kind in self.configs:
            return
        paths = self.files.paths.get(kind, ())
        if not paths:
            raise ConfigError(f"what is asked for needs a model file that is not there; give it with --{dashed(kind)}")
        config = self._open(kind, paths)
        channels = self.configs["vae"].latent_channels
        if kind == "taesd" and config.latent_channels != channels:
            raise ModelFileError(
                f"{paths[0]}: is a TAESD for {config.latent_channels} latent channels; this model has {channels}"
            )
        self.configs[kind] = config

    def check_controlnets(self, paths: Iterable[Path]) -> None:
        """Raises RequestError for a model that has none, ModelFileError for one of another family."""
        for path in paths:
            if path in self._controlnets:
                continue
            if self.unet is None:
                raise RequestError(f"ControlNets are for Stable Diffusion and SDXL; {self.files.name} is neither")
            config = self._open("controlnet", (path,))
            theirs, ours = ((c.context_dim, c.model_channels, c.label_dim) for c in (config, self.unet))
            if theirs != ours:
                raise ModelFileError(
                    f"{path}: is a ControlNet for text {config.context_dim} wide; {self.files.name} reads text "
                    f"{self.unet.context_dim} wide: take one made for {self.files.family.title}"
                )
            self._controlnets.add(path)

    def _open(self, kind: str, paths: tuple[Path, ...]) -> Any:
        if not paths:
            raise ModelFileError(f"{self.files.family.title} needs a {kind} file; give it with --{dashed(kind)}")
        config_of, record = NETWORKS[kind]
        with closing(open_component(kind, paths)) as checkpoint:
            w = Weights(checkpoint)
            try:
                config = config_of(w, kind)
                record(w, config)
            except (ModelFileError, ValueError, IndexError, ZeroDivisionError) as error:
                known = isinstance(error, (ModelFileError, ShapeError))
                why = str(error) if known else "one has an unexpected number of axes"
                raise ModelFileError(
                    f"{paths[0]}: its tensors do not make a whole network ({why}); download it again"
                ) from error
            self._note(kind, checkpoint)
        return config

    def _note(self, kind: str, checkpoint: Checkpoint) -> None:
        if kind == "unet" and self.prediction is None:
            self.prediction = checkpoint.prediction

    def _check_widths(self) -> None:
        """What the backbone was made for, against what its neighbours give."""
        backbone, wanted = (
            ("diffusion", flux_widths(self.flux)) if self.flux else ("unet", unet_widths(self.files, self.unet))
        )
        diffusion = self.files.paths[backbone][0].name
        for kind, width in wanted.items():
            config = self.configs[kind]
            found = config.latent_channels if kind == "vae" else config.hidden_size
            if found != width:
                raise ModelFileError(
                    f"{self.files.paths[kind][0]}: is a {kind} of width {found}; {diffusion} was made for {width}"
                )

    def flux_tokens(self, prompt: str, length: int) -> FluxTokens:
        """Raises RequestError for text that is not Unicode, ModelFileError where a vocabulary has too few rows."""
        found = FluxTokens(self.clip_tokenizer.encode(plain(prompt)), *sequence(prompt, self.t5_tokenizer, length))
        self.check_ids("clip_l", found.clip.ids)
        self.check_ids("t5xxl", found.t5.ids)
        return found

    def check_ids(self, kind: str, ids: np.ndarray) -> None:
        rows = self.configs[kind].vocabulary
        if int(ids.max()) >= rows:
            raise ModelFileError(
                f"{self.files.paths[kind][0]}: has {rows} tokens, and the tokenizer gives number {int(ids.max())}: "
                "they do not belong together"
            )

    def embedding(self, name: str) -> Mapping[str, np.ndarray]:
        """The vectors of a textual inversion by text encoder. Raises RequestError where it is for another model."""
        vectors = load_embedding(self.files.embeddings[name])
        for kind in self.files.family.text:
            width = self.configs[kind].hidden_size
            if kind not in vectors or vectors[kind].shape[1] != width:
                have = ", ".join(f"{kind} {rows.shape[1]} wide" for kind, rows in vectors.items())
                raise RequestError(f"embedding {name} is for another model: it has {have}; {kind} is {width} wide here")
        return vectors


def plain(prompt: str) -> str:
    """A prompt without what says how much its parts weigh."""
    return " ".join("".join(piece.text for piece in part) for part in parse(prompt))


def dashed(kind: str) -> str:
    return kind.replace("_", "-")


def flux_widths(config: flux.FluxConfig | None) -> dict[str, int]:
    assert config is not None
    channels = config.in_channels // latents.PATCH**2
    return {"t5xxl": config.text_dim, "clip_l": config.pooled_dim, "vae": channels}


def unet_widths(files: ModelFiles, config: unet.UnetConfig | None) -> dict[str, int]:
    assert config is not None
    if config.in_channels not in (UNET_CHANNELS, INPAINTING_CHANNELS):
        raise ModelFileError(
            f"{files.paths['unet'][0]}: takes {config.in_channels} channels; relight runs UNets of {UNET_CHANNELS}, "
            f"and of {INPAINTING_CHANNELS} for inpainting"
        )
    if len(files.family.text) > 1:
        return {"vae": config.out_channels}  # the widths of the encoders add up, and each is told by its kind
    return {files.family.text[0]: config.context_dim, "vae": config.out_channels}


def _record_flux(w: Weights, config: flux.FluxConfig) -> None:
    flux.record(w, config, SMALLEST, SMALLEST, SMALLEST)
    flux.record_modulation(w, config, 1)


def _record_unet(w: Weights, config: unet.UnetConfig) -> None:
    unet.record(w, config, SMALLEST, SMALLEST, SMALLEST)


def _record_controlnet(w: Weights, config: unet.UnetConfig) -> None:
    inputs = unet.record_inputs(config, SMALLEST, SMALLEST, SMALLEST, 1)
    side = SMALLEST * controlnet.HINT_SCALE
    controlnet.controlnet(w, config, inputs, input_tensor("hint", (1, 3, side, side)), input_tensor("strength", (1,)))


def _record_vae(w: Weights, config: vae.VaeConfig) -> None:
    if config.scale != latents.SCALE:
        raise ModelFileError(f"{len(config.channels)} levels make {config.scale} pixels of one, and 8 are needed")
    vae.record_decoder(w, config, SMALLEST, SMALLEST)


CLIP = (clip.ClipConfig.from_weights, clip.record)
NETWORKS: dict[str, tuple[Callable[[Weights, str], Any], Callable[[Weights, Any], object]]] = {
    "diffusion": (lambda w, kind: flux.FluxConfig.from_weights(w), _record_flux),
    "unet": (lambda w, kind: unet.UnetConfig.from_weights(w), _record_unet),
    "clip_l": CLIP,
    "clip_g": CLIP,
    "clip_h": CLIP,
    "t5xxl": (lambda w, kind: t5.T5Config.from_weights(w), lambda w, config: t5.record(w, config, SMALLEST)),
    "vae": (lambda w, kind: vae.VaeConfig.from_weights(w), _record_vae),
    "controlnet": (lambda w, kind: unet.UnetConfig.from_weights(w), _record_controlnet),
    "taesd": (
        lambda w, kind: taesd.TaesdConfig.from_weights(w),
        lambda w, config: taesd.record_decoder(w, config, SMALLEST, SMALLEST),
    ),
    "upscaler": (
        lambda w, kind: esrgan.EsrganConfig.from_weights(w),
        lambda w, config: esrgan.record(w, config, SMALLEST, SMALLEST),
    ),
}
