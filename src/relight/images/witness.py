"""What latents say of the picture decoded from them.

Every autoencoder of this kind keeps colours nearly linear: the means of 8x8 pixels are a linear function of the latent
pixel there, up to a few levels. The function is fitted to the picture at hand, so nothing needs to be known of the
model; a picture to which none fits is not a decode of these latents.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from relight.images.blocks import BLOCK
from relight.images.region import Region

VARIED = 0.45
"""Deviation of latents over a picture, mean of the channels. Measured: one colour 0.13 to 0.21, a moon in a black sky
0.26, photographs and drawings 0.5 to 1."""
FEWEST = 4  # latent pixels to each number that is fitted
EXPECTED, EXPECTED_SHARE = 12.0, 0.25
"""Deviation that latents ask for in a tile, in levels and of that elsewhere. Where a picture is of one colour, 10 and
0.15 at most were measured."""
SAME = 1.0  # levels between the block means of tiles that are the same
FORMS = 8.0  # deviation of block means in a tile worth comparing
UNLIKE, ALIKE = 0.1, 0.5
"""Correlation of a tile with what the others' function makes of its latents, where it is garbled and where it is not.
Measured in tiles of one picture 0.6 to 1, in collages of unlike ones 0.5 at the first percentile."""
FITTING = 0.5  # share explained elsewhere
DIFFERENT = 0.5  # of latents: 0 are the same, 1 have nothing in common


class BrokenTile(NamedTuple):
    number: int
    expected: float
    """Deviation, in levels, that the latents ask for."""
    agreement: float | None
    """Correlation of the tile with what its latents ask for; None for a tile of one colour."""


class Moments(NamedTuple):
    """Sums over latent pixels from which a linear function is fitted; those of a part can be taken away."""

    samples: int
    xx: np.ndarray  # [C+1 C+1]
    xy: np.ndarray  # [C+1 3]; its last row are the sums of y
    yy: np.ndarray  # [3]

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray) -> Moments:
        return cls(len(x), x.T @ x, x.T @ y, np.square(y).sum(0))

    def without(self, part: Moments) -> Moments:
        return Moments(self.samples - part.samples, self.xx - part.xx, self.xy - part.xy, self.yy - part.yy)

    def fitted(self) -> np.ndarray:
        """The function [C+1 3] of least squares, damped enough for channels that are alike."""
        normal = self.xx.copy()
        normal[np.diag_indices_from(normal)] += 1e-6 * np.trace(normal) / len(normal)
        function: np.ndarray = np.linalg.solve(normal, self.xy)
        return function

    def variance(self) -> np.ndarray:
        """Of y, [3]."""
        variance: np.ndarray = self.yy / self.samples - np.square(self.xy[-1] / self.samples)
        return variance.clip(0)

    def explained(self) -> float | None:
        """Share of y's variance that the function gives, corrected for its numbers; None for too few pixels to tell."""
        numbers = len(self.xx)
        if self.samples < FEWEST * numbers:
            return None
        function = self.fitted()
        left = self.yy.sum() - 2 * (function * self.xy).sum() + (function * (self.xx @ function)).sum()
        return float(1 - left / (self.samples - numbers) / max(self.variance().sum(), 1e-9))


def variation(latents: np.ndarray) -> float:
    """How much [C h w] vary over the picture."""
    return float(latents.std((1, 2)).mean())


def explained(blocks: np.ndarray, latents: np.ndarray) -> float | None:
    """Share of the variance of `blocks` [h w 3] that the best linear function of `latents` [C h w] gives; None for too
    few to tell."""
    return Moments.of(pixels(latents), colours(blocks)).explained()


def broken_tile(
    image: np.ndarray, blocks: np.ndarray, latents: np.ndarray, tiles: Sequence[Region]
) -> BrokenTile | None:
    """The tile that is not what its latents ask for, by the function that fits all others; of several, the one without
    which the rest fits best."""
    if len(tiles) < 2:
        return None
    x, y = pixels(latents), colours(blocks)
    places = np.arange(len(x)).reshape(blocks.shape[:2])
    whole = Moments.of(x, y)
    inside = [in_blocks(core).crop(places).ravel() for core in cores(tiles)]
    formed = {i for i, part in enumerate(inside) if len(part) and y[part].std(0).max() > FORMS}
    dead = {i for i, core in enumerate(cores(tiles)) if len(inside[i]) and one_colour(core.crop(image))}
    found: list[tuple[float, BrokenTile]] = []
    for number in sorted(formed | dead):
        own = in_blocks(tiles[number]).crop(places).ravel()
        elsewhere = whole.without(Moments.of(x[own], y[own]))
        share = elsewhere.explained()
        if share is None or share < FITTING:
            continue
        asked = x @ elsewhere.fitted()
        agreement = {i: correlation(asked[inside[i]], y[inside[i]]) for i in formed}
        chance = 1.5 / np.sqrt(len(inside[number]))
        sound = min((agreement[i] for i in formed - {number}), default=1.0) > ALIKE
        garbled = number in formed and agreement[number] < UNLIKE + chance and sound
        expected = float(asked[inside[number]].std(0).max())
        usual = float(np.sqrt(elsewhere.variance().max()))
        if (garbled or number in dead) and expected > max(EXPECTED, EXPECTED_SHARE * usual):
            found.append((share, BrokenTile(number, expected, agreement.get(number))))
    return max(found)[1] if found else None


def repeated_tiles(blocks: np.ndarray, latents: np.ndarray, tiles: Sequence[Region]) -> tuple[int, int, float] | None:
    """Two tiles that are the same inside, and how far their latents differ, if they do."""
    inner = [in_blocks(core) for core in cores(tiles)]
    for first, second in itertools.combinations(range(len(inner)), 2):
        a, b = (inner[i].crop(blocks) for i in (first, second))
        if a.shape != b.shape or not a.size or a.std((0, 1)).max() < FORMS or np.abs(a - b).max() > SAME:
            continue
        x, y = (inner[i].crop(latents.transpose(1, 2, 0)) for i in (first, second))
        differ = float(np.square(x - y).mean((0, 1)).sum() / max(2 * latents.var((1, 2)).sum(), 1e-9))
        if differ > DIFFERENT:
            return first, second, differ
    return None


def cores(tiles: Sequence[Region]) -> list[Region]:
    """What only one tile makes: each less the widest overlap on every side, so that all have one shape."""
    if len(tiles) < 2:
        return []
    across = widest_overlap({(tile.left, tile.right) for tile in tiles})
    down = widest_overlap({(tile.top, tile.bottom) for tile in tiles})
    return [Region(t.left + across, t.top + down, t.right - across, t.bottom - down) for t in tiles]


def widest_overlap(spans: set[tuple[int, int]]) -> int:
    ordered = sorted(spans)
    return max((max(before[1] - after[0], 0) for before, after in itertools.pairwise(ordered)), default=0)


def in_blocks(region: Region) -> Region:
    return Region(*(edge // BLOCK for edge in region))


def one_colour(image: np.ndarray) -> bool:
    first = image[0, 0]
    return not (image[::16, ::16] != first).any() and not (image != first).any()


def pixels(latents: np.ndarray) -> np.ndarray:
    """[C h w] to [h*w C+1], the last a one."""
    flat = latents.reshape(len(latents), -1).T.astype(np.float64)
    return np.concatenate([flat, np.ones((len(flat), 1))], axis=1)


def colours(blocks: np.ndarray) -> np.ndarray:
    """[h w 3] to [h*w 3]."""
    return blocks.reshape(-1, 3).astype(np.float64)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of two sets of colours [N 3], each about its mean."""
    a, b = a - a.mean(0), b - b.mean(0)
    return float((a * b).sum() / max(np.sqrt(np.square(a).sum() * np.square(b).sum()), 1e-9))
