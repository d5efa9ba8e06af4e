"""Networks that take a picture, or its latents, tile by tile: one graph serves all tiles of a plan."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Hashable

from relight.models import tiling
from relight.workers.components.base import Component, Sizes, StepDone


class Tiled(Component):
    """Its graph depends on the sizes of a tile alone."""

    @abstractmethod
    def tiles(self, sizes: Sizes) -> list[tiling.Tile]:
        """Of what goes in; all of one shape."""

    def shape_key(self, sizes: Sizes) -> Hashable:
        tile = self.tiles(sizes)[0]
        return tile.height, tile.width


class TiledLatents(Tiled):
    """By tiles of `tile` latent pixels of `latent_height` x `latent_width`."""

    def tiles(self, sizes: Sizes) -> list[tiling.Tile]:
        return tiling.tile_plan(sizes["latent_height"], sizes["latent_width"], sizes["tile"])


def timed(step_done: StepDone) -> Callable[[int, int], None]:
    """Adds the seconds since the last tile."""
    started = time.perf_counter()

    def tile_done(done: int, total: int) -> None:
        nonlocal started
        now = time.perf_counter()
        step_done(done, total, now - started)
        started = now

    return tile_done
