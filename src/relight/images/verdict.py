"""Looking at what came out: ruined latents, black, flat or garbled pictures, tiles that went wrong.

A verdict is certain only where pixels alone do not have to tell, since people ask for black squares, television static
and wallpapers: latents are judged by what no picture's can be, a picture by the latents it was decoded from
(`witness.py`). Everything else is a warning. None of it needs the model; 1024x1024 take about 20 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from relight.images import witness
from relight.images.blocks import block_means, decorrelated, lag_correlation
from relight.images.region import Region

ABSURD, LOUD = 6.0, 3.5
"""Root mean square of latents, which are about 1 for every model's pictures; high guidance reaches 2 to 3."""
STILL = 1e-3  # deviation of latents that hold nothing; one colour gives 0.1 to 0.2
FLAT = 1.5  # deviation in levels of 255 of a picture of one colour
DARK = 16  # levels
STRUCTURED = 5.0  # deviation of block means, in levels, from which a picture has forms
UNRELATED = 0.2
"""Share of a picture's block means explained by its latents. Measured with two autoencoders: on natural, drawn,
patterned and noisy pictures, decoded noise and half-denoised latents 0.47 to 1; by others' latents, 0.08 in the
median."""


@dataclass(frozen=True)
class Verdict:
    """What is wrong: `kind` is numbers, range, constant, noise, black, flat, tile, repeated, unrelated or saturated."""

    kind: str
    message: str
    certain: bool
    """Ruined, to be made anew another way. Otherwise a warning: it may be what was asked for."""


def judge_numbers(values: np.ndarray, what: str = "picture") -> Verdict | None:
    """Of latents or of a decoder's floats, which show what is lost in eight bits: values that are no numbers."""
    finite = np.isfinite(values)
    if finite.all():
        return None
    broken = values.size - int(finite.sum())
    return Verdict("numbers", f"{broken:,} of {values.size:,} values of the {what} are NaN or infinite", True)


def judge_latents(latents: np.ndarray) -> Verdict | None:
    """Of [C h w] as the sampler left them, about 1 in scale; None where nothing is wrong."""
    if broken := judge_numbers(latents, "latents"):
        return broken
    size = float(np.sqrt(np.square(latents, dtype=np.float64).mean()))
    if size > LOUD:
        return Verdict("range", f"the latents' root mean square is {size:.3g}; pictures have about 1", size > ABSURD)
    deviation = float(latents.std((1, 2)).max())
    if deviation < STILL:
        return Verdict("constant", f"no channel of the latents varies by more than {deviation:.2g}", True)
    return judge_noise(latents)


def judge_noise(latents: np.ndarray) -> Verdict | None:
    """Whether they are what a generator of noise gives: neighbours unrelated in every channel, all channels alike and
    about zero. Pictures, even of static, differ in all three, but half-denoised ones come near."""
    mean, deviation = latents.mean((1, 2)), np.maximum(latents.std((1, 2)), STILL)
    related = float(np.abs(lag_correlation(latents)).max())
    uneven = float(deviation.max() / deviation.min()) - 1
    off = float(np.abs(mean / deviation).max())
    chance = 4 / np.sqrt(latents[0].size)  # four standard errors of a mean
    if not (related < 0.2 + chance and uneven < 0.25 + chance and off < 0.3 + chance):
        return None
    certain = bool(related < 0.05 + chance and uneven < 0.1 + chance and off < 0.05 + chance)
    message = (
        f"the latents are {'' if certain else 'nearly '}pure noise, as if denoising did not converge: neighbours "
        f"correlate by {related:.2f} at most, channels deviate {1 + uneven:.2f} to 1, means are {off:.2f} of that off 0"
    )
    return Verdict("noise", message, certain)


def judge_picture(image: np.ndarray, latents: np.ndarray | None = None, tiles: Sequence[Region] = ()) -> Verdict | None:
    """Of a decoded picture uint8 [H W 3], before anything is pasted or upscaled; None where nothing is wrong.

    `latents` [C h w] are those it was decoded from, about 1 in scale; without them nothing is certain. `tiles` are the
    plan's, in pixels. Raises ValueError for latents that are not an eighth of the picture.
    """
    blocks = block_means(image)
    if latents is not None and latents.shape[1:] != blocks.shape[:2]:
        raise ValueError(f"latents of {latents.shape[1:]} are not those of a picture of {image.shape[:2]}")
    if flat := judge_flat(image, blocks, latents):
        return flat
    if latents is not None and (ruined := judge_by_latents(image, blocks, latents, tiles)):
        return ruined
    return judge_pixels(image, blocks)


def judge_flat(image: np.ndarray, blocks: np.ndarray, latents: np.ndarray | None) -> Verdict | None:
    if blocks.std((0, 1)).max() >= FLAT or image.std((0, 1)).max() >= FLAT:
        return None
    lightest = int(image.max())
    kind, says = ("black", f"black: no value is above {lightest}") if lightest <= DARK else ("flat", "of one colour: ")
    if kind == "flat":
        says += "about ({:.0f}, {:.0f}, {:.0f})".format(*blocks.mean((0, 1)))
    if latents is None:
        return Verdict(kind, f"the picture is {says}", False)
    varies = witness.variation(latents)
    certain = varies > witness.VARIED
    though = "though its latents vary" if certain else "and its latents vary little"
    message = f"the picture is {says}, {though}: by {varies:.2f}, one colour by less than {witness.VARIED}"
    return Verdict(kind, message, certain)


def judge_by_latents(
    image: np.ndarray, blocks: np.ndarray, latents: np.ndarray, tiles: Sequence[Region]
) -> Verdict | None:
    """Tiles before the whole: a wrong one spoils the fit of all."""
    if twins := witness.repeated_tiles(blocks, latents, tiles):
        first, second, differ = twins
        says = f"tiles {first + 1} and {second + 1} of {len(tiles)} are the same, but their latents"
        return Verdict("repeated", f"{says} differ by {differ:.0%} of what unrelated ones do", True)
    if broken := witness.broken_tile(image, blocks, latents, tiles):
        tile = f"tile {broken.number + 1} of {len(tiles)}"
        if broken.agreement is None:
            says = f"{tile} is of one colour, where its latents ask for a deviation of {broken.expected:.0f} levels"
        else:
            says = f"{tile} is garbled: it correlates by {broken.agreement:.2f} with what its latents ask for"
        return Verdict("tile", says, True)
    explained = witness.explained(blocks, latents)
    if explained is not None and explained < UNRELATED and blocks.std((0, 1)).max() > STRUCTURED:
        says = f"its latents explain {max(explained, 0):.0%} of it, and half or more of any picture decoded from them"
        return Verdict("unrelated", f"the picture is garbled: {says}", True)
    return None


def judge_pixels(image: np.ndarray, blocks: np.ndarray) -> Verdict | None:
    """Warnings. Decoded noise has the statistics of foliage, so only pixels without any form are called noise: in
    colour, uncorrelated in blocks of 8 to 32, hardly two neighbours alike. Grain, static, gravel, confetti and
    patterns lack one or another."""
    rows = image[:: max(len(image) // 128, 1)].transpose(2, 0, 1).astype(np.int16, order="C")  # [3 ~128 W]
    alike = float((np.abs(np.diff(rows, axis=2)).max(0) <= 2).mean())
    grey = rows.mean(0, dtype=np.float32)
    light, colour = float(grey.std()), float((rows - grey).std())
    formed = blocks.std((0, 1)).max() > STRUCTURED  # finer than a block there may be patterns
    if formed and alike < 0.3 and colour > 0.3 * light and (related := decorrelated(blocks)) is not None:
        says = f"without form: blocks correlate by {related:.2f} at most, {alike:.0%} of neighbours are alike"
        return Verdict("noise", f"the picture is {says}", False)
    clipped = float(((rows == 0) | (rows == 255)).mean())
    if clipped > 0.85 and alike < 0.3 and colour > 60:
        says = f"{clipped:.0%} of its values are 0 or 255, and {alike:.0%} of neighbours are alike"
        return Verdict("saturated", f"the picture's colours are at their limits: {says}", False)
    return None
