"""FLUX.1: the modulation, computed once a picture for every noise level, and the transformer, run once a step."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import ClassVar

import numpy as np

from relight.graph import Graph
from relight.models import flux
from relight.sampling import latents as latent_space
from relight.workers.components.backbone import Backbone, Level
from relight.workers.components.base import Arrays, Component, Sizes, StepDone, Values


class Modulation(Component):
    """How timestep, guidance and pooled text steer every block: a quarter of FLUX's weights, used once per picture."""

    stage: ClassVar[str] = "encode"

    def graph(self, sizes: Sizes) -> Graph:
        return flux.record_modulation(self.w, flux.FluxConfig.from_weights(self.base), sizes["levels"])

    def shape_key(self, sizes: Sizes) -> Hashable:
        return sizes["levels"]

    def run(self, sizes: Sizes, arrays: Arrays, values: Values, step_done: StepDone) -> dict[str, np.ndarray]:
        """timesteps [N] in 0..1, pooled [1 768], `guidance` -> modulation [N M]."""
        timesteps = arrays["timesteps"]
        inputs = {"timesteps": timesteps, "pooled": arrays["pooled"]}
        program = self.program(sizes)
        if flux.FluxConfig.from_weights(self.base).guidance_embed:
            inputs["guidance"] = np.full(timesteps.shape, values["guidance"], np.float32)
        return {"modulation": program.run(inputs)["modulation"]}


class FluxBackbone(Backbone):
    """The FLUX transformer. Conditions: `text` [K T 4096] and `modulation` [K E M], rows in the order of `levels`."""

    def graph(self, sizes: Sizes) -> Graph:
        config = flux.FluxConfig.from_weights(self.base)
        return flux.record(self.w, config, sizes["text_tokens"], sizes["latent_height"], sizes["latent_width"])

    def shape_key(self, sizes: Sizes) -> Hashable:
        return sizes["text_tokens"], sizes["latent_height"], sizes["latent_width"]

    def begin(self, sizes: Sizes, arrays: Arrays, values: Values) -> None:
        super().begin(sizes, arrays, values)
        self.row = {sigma: row for row, sigma in enumerate(values["levels"])}
        self.positions = flux.positions(sizes["text_tokens"], sizes["latent_height"] // 2, sizes["latent_width"] // 2)

    def predict(self, sizes: Sizes, latents: np.ndarray, level: Level, conditions: Sequence[int]) -> np.ndarray:
        """One picture at a time: velocities [1 16 h w]."""
        (condition,), row = conditions, self.row[level.sigma]
        tokens = self.program(sizes).run(
            {
                "latents": latent_space.pack(latents[0])[None],
                "text": self.arrays["text"][condition][None],
                "modulation": self.arrays["modulation"][condition, row : row + 1],
                "positions": self.positions,
            }
        )["velocity"][0]
        return latent_space.unpack(tokens, *latents.shape[2:])[None]
