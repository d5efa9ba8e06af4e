"""Upscaling by a network of the ESRGAN family, in tiles of the picture."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from relight.graph import Graph
from relight.models import esrgan, tiling
from relight.workers.components.base import Arrays, Sizes, StepDone, Values
from relight.workers.components.tiled import Tiled, timed

TILE = 256
"""Pixels of the small picture in one tile."""


class Upscaler(Tiled):
    """`image` [H W 3] uint8 -> `image` [sH sW 3] uint8, s the file's own scale, of `image_height` x `image_width`."""

    stage: ClassVar[str] = "upscale"

    @property
    def config(self) -> esrgan.EsrganConfig:
        return esrgan.EsrganConfig.from_weights(self.base)

    def tiles(self, sizes: Sizes) -> list[tiling.Tile]:
        return tiling.upscale_plan(sizes["image_height"], sizes["image_width"], TILE, self.config.unshuffle)

    def graph(self, sizes: Sizes) -> Graph:
        tile = self.tiles(sizes)[0]
        return esrgan.record(self.w, self.config, tile.height, tile.width)

    def run(self, sizes: Sizes, arrays: Arrays, values: Values, step_done: StepDone) -> dict[str, np.ndarray]:
        image, tiles, program = arrays["image"], self.tiles(sizes), self.program(sizes)

        def upscale_tile(tile: np.ndarray) -> np.ndarray:
            return program.run({"image": tile})["upscaled"]

        return {"image": tiling.upscale_tiled(image, tiles, self.config.scale, upscale_tile, timed(step_done))}
