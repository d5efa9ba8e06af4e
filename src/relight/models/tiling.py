"""Decoding latents and upscaling pictures in tiles: where the tiles lie, and how what comes out is blended into one.

All tiles of a plan have one shape, so one compiled graph serves them all. Sizes are in pixels of what goes in: of the
latents, for each of which a decoded picture has eight, or of the picture that is upscaled. Differences to a decode in
one piece come from the decoder's group norms and attention, which see only the tile: larger tiles help more than more
overlap.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from relight.errors import ExecutorError

SCALE = 8  # of decoding
OVERLAP = 16  # about what the decoder's 3x3 convolutions look around: they reach 17 pixels
SMALLEST_TILE = 2 * OVERLAP
GRAIN = 8
"""Tiles are multiples of this where they can be: convolution kernels for whole blocks of pixels are many times faster
than those that look at each edge (measured: tiles of 54 took eight times as long as tiles of 56)."""


@dataclass(frozen=True)
class Span:
    """One axis of a tile: pixels `start` to `stop`, of which `before` and `after` are shared with neighbours."""

    start: int
    length: int
    before: int
    after: int

    @property
    def stop(self) -> int:
        return self.start + self.length

    def scaled(self, scale: int) -> slice:
        """Where it lies in a picture `scale` times as large."""
        return slice(self.start * scale, self.stop * scale)

    def window(self, scale: int) -> np.ndarray:
        """Weight of each pixel of that picture along this axis: rising over `before`, falling over `after`."""
        weights = np.ones(self.length * scale, np.float32)
        weights[: self.before * scale] *= ramp(self.before * scale)
        weights[len(weights) - self.after * scale :] *= ramp(self.after * scale)[::-1]
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
    """Tiles of equal shape, at most `tile` in height and width, that cover `height` x `width`, row by row.

    Neighbours share at least `overlap` (16, but no more than half a tile, unless given). With the number of tiles
    settled, they are made as small as the overlap allows and spread evenly. Raises ValueError when `tile` is less
    than 1 or no larger than the overlap.
    """
    overlap = min(OVERLAP, tile // 2) if overlap is None else overlap
    if not 0 <= overlap < tile:
        raise ValueError(f"tiles of {tile} pixels cannot overlap by {overlap}: the overlap must be smaller")
    columns = spans(width, tile, overlap)
    return [Tile(rows, column) for rows in spans(height, tile, overlap) for column in columns]


def upscale_plan(height: int, width: int, tile: int, multiple: int = 1) -> list[Tile]:
    """As `tile_plan`, of tiles whose sizes are multiples of `multiple` (1, 2, 4 or 8): at the right and at the bottom
    they may reach past the picture, which `upscale_tiled` fills."""
    height, width = (math.ceil(size / multiple) * multiple for size in (height, width))
    return tile_plan(height, width, tile if tile >= max(height, width) else tile - tile % GRAIN)


def tile_candidates(height: int, width: int) -> list[int]:
    """Tile sizes worth trying for `tile_plan`, largest first: the whole picture, then two tiles along its longer side,
    three, and so on down to 32 pixels."""
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

    def decoded(tile: Tile) -> np.ndarray:
        part = latents[:, :, tile.rows.scaled(1), tile.columns.scaled(1)]
        return decode_tile(np.ascontiguousarray(part))

    batch, _, height, width = latents.shape
    picture = np.empty((batch, 3, height * SCALE, width * SCALE), np.float32)
    for first, rows in blended(plan, SCALE, decoded, progress):
        picture[:, :, first : first + rows.shape[2]] = rows
    return picture


def encode_tiled(
    image: np.ndarray,
    plan: Sequence[Tile],
    encode_tile: Callable[[np.ndarray], np.ndarray],
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Picture [B 3 8h 8w] to latents [B C h w], each tile of a plan in latent pixels through `encode_tile`."""

    def encoded(tile: Tile) -> np.ndarray:
        return encode_tile(np.ascontiguousarray(image[:, :, tile.rows.scaled(SCALE), tile.columns.scaled(SCALE)]))

    bands = [(first, rows.copy()) for first, rows in blended(plan, 1, encoded, progress)]
    return np.concatenate([rows for _, rows in bands], axis=2)


def upscale_tiled(
    image: np.ndarray,
    plan: Sequence[Tile],
    scale: int,
    upscale_tile: Callable[[np.ndarray], np.ndarray],
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Picture [h w 3] to one [scale*h scale*w 3], both uint8, each tile [1 3 h w] of 0 to 1 through `upscale_tile`.

    Of what is beyond the picture's edges the tiles see its mirror image. Beside the result, memory is taken for one row
    of tiles in float32. Raises ExecutorError where a tile comes out with numbers that are not finite.
    """
    height, width, _ = image.shape
    beyond = (plan[-1].rows.stop - height, plan[-1].columns.stop - width)
    if any(beyond):
        image = np.pad(image, ((0, beyond[0]), (0, beyond[1]), (0, 0)), "reflect")

    def upscaled(tile: Tile) -> np.ndarray:
        part = image[tile.rows.scaled(1), tile.columns.scaled(1)].transpose(2, 0, 1)[None]
        out = upscale_tile(np.ascontiguousarray(part, np.float32) / 255)
        if not np.isfinite(out).all():
            raise ExecutorError(
                f"the upscaler made no numbers of the {tile.width}x{tile.height} pixels at {tile.columns.start}, "
                f"{tile.rows.start}; use smaller tiles, or another device for it"
            )
        return out

    result = np.empty((height * scale, width * scale, 3), np.uint8)
    for first, rows in blended(plan, scale, upscaled, progress):
        place = result[first : first + rows.shape[2]]
        np.clip(rows, 0, 1, out=rows)
        rows *= 255
        np.rint(rows, out=rows)
        place[...] = rows[0, :, : len(place), : width * scale].transpose(1, 2, 0)
    return result


def blended(
    plan: Sequence[Tile],
    scale: int,
    compute: Callable[[Tile], np.ndarray],
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[int, np.ndarray]]:
    """The picture from top to bottom as (first row, rows [B 3 n W]), which are overwritten when the next are asked for.

    Only one row of tiles is held; what it shares with the next is carried over.
    """
    bands = [list(tiles) for _, tiles in itertools.groupby(plan, key=lambda tile: tile.rows)]
    down = [band[0].rows for band in bands]
    across = [tile.columns for tile in bands[0]]
    row_shares, column_shares = shares(down, scale), shares(across, scale)
    starts = [*(span.start for span in down), down[-1].stop]
    held: np.ndarray = np.empty(0, np.float32)
    done = 0
    for n, band in enumerate(bands):
        for tile, column_share in zip(band, column_shares, strict=True):
            part = compute(tile) * (row_shares[n][:, None] * column_share)
            if not done:
                held = np.zeros((*part.shape[:-1], across[-1].stop * scale), np.float32)
            held[..., tile.columns.scaled(scale)] += part
            done += 1
            if progress:
                progress(done, len(plan))
        finished = (starts[n + 1] - starts[n]) * scale
        yield starts[n] * scale, held[:, :, :finished]
        carried = held.shape[2] - finished
        held[:, :, :carried] = held[:, :, finished:]
        held[:, :, carried:] = 0


def shares(spans: Sequence[Span], scale: int) -> list[np.ndarray]:
    """The windows of the spans along an axis, divided by their sum at each pixel."""
    windows = [span.window(scale) for span in spans]
    total = np.zeros(spans[-1].stop * scale, np.float32)
    for span, window in zip(spans, windows, strict=True):
        total[span.scaled(scale)] += window
    return [window / total[span.scaled(scale)] for span, window in zip(spans, windows, strict=True)]


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
