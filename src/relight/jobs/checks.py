"""What is checked before any process starts: that the files are whole and belong together, that the prompt is text."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relight.errors import ModelFileError
from relight.graph import Weights
from relight.graph.tensor import ShapeError
from relight.jobs.request import ModelFiles
from relight.models import clip, flux, t5, vae
from relight.models.tokenizers import ClipTokenizer, T5Tokenizer, TokenIds
from relight.sampling import latents
from relight.weights.checkpoint import open_component

SMALLEST = 8
"""Latent pixels: sizes are checked by recording each network for a very small picture."""


@dataclass(frozen=True)
class Tokens:
    """A prompt as both text encoders take it."""

    clip: TokenIds
    t5: TokenIds


class Checked:
    """Files that belong together. Raises ModelFileError where they do not, naming the file."""

    def __init__(self, files: ModelFiles) -> None:
        self.files = files
        self.flux = self._open("diffusion", flux.FluxConfig.from_weights, _record_flux)
        self.clip = self._open("clip_l", clip.ClipConfig.from_weights, clip.record)
        self.t5 = self._open("t5xxl", t5.T5Config.from_weights, lambda w, config: t5.record(w, config, SMALLEST))
        self.vae = self._open("vae", vae.VaeConfig.from_weights, _record_vae)
        self._check_widths()
        self.clip_tokenizer = ClipTokenizer()
        with closing(open_component("t5xxl", files.t5xxl)) as checkpoint:
            self.t5_tokenizer = T5Tokenizer.find(files.t5xxl[0], checkpoint.metadata, files.t5_tokenizer)

    def _open[C](self, kind: str, config_of: Callable[[Weights], C], record: Callable[[Weights, C], object]) -> C:
        paths = self.files.of(kind)
        with closing(open_component(kind, paths)) as checkpoint:
            w = Weights(checkpoint)
            try:
                config = config_of(w)
                record(w, config)
            except (ModelFileError, ValueError, IndexError, ZeroDivisionError) as error:
                known = isinstance(error, (ModelFileError, ShapeError))
                why = str(error) if known else "one has an unexpected number of axes"
                raise ModelFileError(
                    f"{paths[0]}: its tensors do not make a whole network ({why}); download it again"
                ) from error
        return config

    def _check_widths(self) -> None:
        files, diffusion = self.files, self.files.diffusion[0].name
        for paths, what, width, wanted in (
            (files.t5xxl, "a T5", self.t5.hidden_size, self.flux.text_dim),
            (files.clip_l, "a CLIP-L", self.clip.hidden_size, self.flux.pooled_dim),
            (files.vae, "a VAE", self.vae.latent_channels * latents.PATCH**2, self.flux.in_channels),
        ):
            if width != wanted:
                raise ModelFileError(f"{paths[0]}: is {what} of width {width}; {diffusion} was made for {wanted}")

    def tokens(self, prompt: str, length: int) -> Tokens:
        """Raises RequestError for text that is not Unicode, ModelFileError where a vocabulary has too few rows."""
        found = Tokens(self.clip_tokenizer.encode(prompt), self.t5_tokenizer.encode(prompt, length))
        _check_rows(self.files.clip_l[0], found.clip.ids, self.clip.vocabulary)
        _check_rows(self.files.t5xxl[0], found.t5.ids, self.t5.vocabulary)
        return found


def _record_flux(w: Weights, config: flux.FluxConfig) -> None:
    flux.record(w, config, SMALLEST, SMALLEST, SMALLEST)
    flux.record_modulation(w, config, 1)


def _record_vae(w: Weights, config: vae.VaeConfig) -> None:
    if config.scale != latents.SCALE:
        raise ModelFileError(f"{len(config.channels)} levels make {config.scale} pixels of one, and 8 are needed")
    vae.record_decoder(w, config, SMALLEST, SMALLEST)


def _check_rows(path: Path, ids: np.ndarray, rows: int) -> None:
    if int(ids.max()) >= rows:
        raise ModelFileError(
            f"{path}: has {rows} tokens, and the tokenizer gives number {int(ids.max())}: they do not belong together"
        )
