"""The autoencoder in tiles: latents to picture, picture to latents, and the small decoder that stands in for it."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from relight.errors import ExecutorError
from relight.graph import Graph
from relight.models import taesd, tiling, vae
from relight.workers.components.base import Arrays, Sizes, StepDone, Values
from relight.workers.components.tiled import TiledLatents, timed


class Decoder(TiledLatents):
    """latents [C h w] -> picture [8h 8w 3] uint8, tile by tile."""

    stage: ClassVar[str] = "decode"

    @abstractmethod
    def record(self, height: int, width: int) -> Graph:
        """For a tile of latents: input `latents` [1 C h w], output `image` [1 3 8h 8w], -1 to 1."""

    def graph(self, sizes: Sizes) -> Graph:
        tile = self.tiles(sizes)[0]
        return self.record(tile.height, tile.width)

    def run(self, sizes: Sizes, arrays: Arrays, values: Values, step_done: StepDone) -> dict[str, np.ndarray]:
        """`latents` [C h w] as the autoencoder makes them, unscaled -> `image` [8h 8w 3] uint8."""
        program = self.program(sizes)

        def decode_tile(tile: np.ndarray) -> np.ndarray:
            return program.run({"latents": tile})["image"]

        image = tiling.decode_tiled(arrays["latents"][None], self.tiles(sizes), decode_tile, timed(step_done))[0]
        if not np.isfinite(image).all():
            raise ExecutorError(
                "the decoded picture has values that are not numbers; decode it elsewhere (--backend vae=cpu)"
            )
        return {"image": to_pixels(image)}


class VaeDecoder(Decoder):
    def record(self, height: int, width: int) -> Graph:
        return vae.record_decoder(self.w, vae.VaeConfig.from_weights(self.base), height, width)


class TinyDecoder(Decoder):
    """TAESD: takes the latents of the diffusion, in a small part of the time, for previews and hurried people."""

    def record(self, height: int, width: int) -> Graph:
        return taesd.record_decoder(self.w, taesd.TaesdConfig.from_weights(self.base), height, width)


class VaeEncoder(TiledLatents):
    """picture [8h 8w 3] uint8 -> the distribution of its latents."""

    stage: ClassVar[str] = "encode picture"

    def graph(self, sizes: Sizes) -> Graph:
        tile = self.tiles(sizes)[0]
        config = vae.VaeConfig.from_weights(self.base)
        return vae.record_encoder(self.w, config, tile.height * config.scale, tile.width * config.scale)

    def run(self, sizes: Sizes, arrays: Arrays, values: Values, step_done: StepDone) -> dict[str, np.ndarray]:
        """`image` [8h 8w 3] uint8 -> `moments` [2C h w]: means, then log variances."""
        program = self.program(sizes)
        pixels = np.ascontiguousarray(arrays["image"].transpose(2, 0, 1), np.float32)[None] / 127.5 - 1

        def encode_tile(tile: np.ndarray) -> np.ndarray:
            return program.run({"image": tile})["moments"]

        return {"moments": tiling.encode_tiled(pixels, self.tiles(sizes), encode_tile, timed(step_done))[0]}


def to_pixels(image: np.ndarray) -> np.ndarray:
    """[3 H W] of -1 to 1 -> [H W 3] uint8."""
    pixels: np.ndarray = np.round(np.clip((image + 1) / 2, 0, 1) * 255).astype(np.uint8)
    return pixels.transpose(1, 2, 0)
