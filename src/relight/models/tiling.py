"""Decoding latents in tiles: where the tiles lie, and how their pictures are blended into one.

All tiles of a plan have one shape, so one compiled graph serves them all. Sizes are in latent pixels; the picture has
eight for each. Differences to a decode in one piece come from the decoder's group norms and attention, which see only
the tile: larger tiles help more than more overlap.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

SCALE = 8
OVERLAP = 16  # about what the decoder's 3x3 convolutions look around: they reach 17 pixels
SMALLEST_TILE = 2 * OVERLAP
GRAIN = 8
"""Tiles are multiples of this where they can be: convolution kernels for whole blocks of pixels are many times faster
than those that look at each edge (measured: tiles of 54 took eight times as long as tiles of 56)."""


@dataclass(frozen=True)
class Span:
    """One axis of a tile: latent pixels `start` to `stop`, of which `before` and `after` are shared with neighbours."""

    start: int
    length: int
    before: int
    after: int

    @property
    def stop(self) -> int:
        return self.start + self.length

    def window(self) -> np.ndarray:
        """Weight of each pixel of the picture along this axis: rising over `before`, falling over `after`."""
        weights = np.ones(self.length * SCALE, np.float32)
        weights[: self.before * SCALE] *= ramp(self.before * SCALE)
        weights[len(weights) - self.after * SCALE :] *= ramp(self.after * SCALE)[::-1]
        return weights


@dataclass(frozen=True)
class Tile:
    rows: Span
    columns: Span

    @property
    def height(self) -> int:
        return self.rows.length

    @property
    def width(self) -> int:
        return self.columns.length


def tile_plan(height: int, width: int, tile: int, overlap: int | None = None) -> list[Tile]:
    """Tiles of equal shape, at most `tile` in height and width, that cover latents of `height` x `width`.

    Neighbours share at least `overlap` (16, but no more than half a tile, unless given). With the number of tiles
    settled, they are made as small as the overlap allows and spread evenly. Raises ValueError when `tile` is less
    than 1 or no larger than the overlap.
    """
    overlap = min(OVERLAP, tile // 2) if overlap is None else overlap
    if not 0 <= overlap < tile:
        raise ValueError(f"tiles of {tile} latent pixels cannot overlap by {overlap}: the overlap must be smaller")
    columns = spans(width, tile, overlap)
    return [Tile(rows, column) for rows in spans(height, tile, overlap) for column in columns]


def tile_candidates(height: int, width: int) -> list[int]:
    """Tile sizes worth trying for `tile_plan`, largest first: the whole picture, then two tiles along its longer side,
    three, and so on down to 32 latent pixels."""
    longest = max(height, width)
    counts = range(2, longest)
    even = (grained(even_length(longest, count, OVERLAP)) for count in counts)
    smaller = itertools.takewhile(lambda size: size >= SMALLEST_TILE, even)
    return list(dict.fromkeys([longest, *(size for size in smaller if size < longest)]))


def decode_tiled(
    latents: np.ndarray,
    plan: Sequence[Tile],
    decode_tile: Callable[[np.ndarray], np.ndarray],
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Latents [B C h w] to picture [B 3 8h 8w], each tile through `decode_tile`, blended where tiles overlap.

    `progress` is called with (tiles done, tiles in all). With a single tile the picture is that tile's, untouched.
    """
    batch, _, height, width = latents.shape
    picture = np.zeros((batch, 3, height * SCALE, width * SCALE), np.float32)
    total = np.zeros(picture.shape[2:], np.float32)
    for done, tile in enumerate(plan, 1):
        rows, columns = tile.rows, tile.columns
        part = decode_tile(np.ascontiguousarray(latents[:, :, rows.start : rows.stop, columns.start : columns.stop]))
        weights = rows.window()[:, None] * columns.window()
        place = (slice(rows.start * SCALE, rows.stop * SCALE), slice(columns.start * SCALE, columns.stop * SCALE))
        picture[:, :, *place] += part * weights
        total[place] += weights
        if progress:
            progress(done, len(plan))
    picture /= total
    return picture


def spans(size: int, tile: int, overlap: int) -> list[Span]:
    """Equal spans of at most `tile` that cover `size`, from the first pixel to the last."""
    if size <= tile:
        return [Span(0, size, 0, 0)]
    count = math.ceil((size - overlap) / (tile - overlap))
    length = grained(even_length(size, count, overlap))
    if length > tile:
        length = even_length(size, count, overlap)
    starts = [round(i * (size - length) / (count - 1)) for i in range(count)]
    shared = [0, *(before + length - after for before, after in zip(starts, starts[1:], strict=False)), 0]
    return [Span(start, length, shared[i], shared[i + 1]) for i, start in enumerate(starts)]


def even_length(size: int, count: int, overlap: int) -> int:
    """Length of `count` spans that cover `size` with neighbours sharing `overlap`."""
    return math.ceil((size + (count - 1) * overlap) / count)


def grained(length: int) -> int:
    return math.ceil(length / GRAIN) * GRAIN


def ramp(length: int) -> np.ndarray:
    """0 to 1 with flat ends; it and its mirror image add up to 1 (smootherstep, 6t^5 - 15t^4 + 10t^3: Perlin 2002)."""
    t = (np.arange(length, dtype=np.float32) + 0.5) / max(length, 1)
    return t**3 * (t * (6 * t - 15) + 10)
