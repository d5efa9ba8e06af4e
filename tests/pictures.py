"""Legitimate pictures of every kind that a check of results must not cry wolf at, drawn here, and the emoji we made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHEET = Path(__file__).parent.parent / "training/sheet.png"
CELL, PITCH = 128, (132, 146)  # pictures on the sheet, and how far apart
SIDE = 384

Drawing = Callable[[int], np.ndarray]
DRAWINGS: dict[str, Drawing] = {}


def drawing(function: Drawing) -> Drawing:
    DRAWINGS[function.__name__] = function
    return function


def rng(size: int) -> np.random.Generator:
    return np.random.default_rng(size)


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(np.rint(grey.clip(0, 255)).astype(np.uint8)[..., None], 3, axis=2)


def coloured(channels: np.ndarray) -> np.ndarray:
    """[3 H W] to a picture."""
    return np.rint(channels.clip(0, 255)).astype(np.uint8).transpose(1, 2, 0)


def natural(size: int, slope: float = 1.0, seed: int = 0, contrast: float = 50) -> np.ndarray:
    """[H W] whose amplitudes fall with frequency as in photographs (1/f: Field 1987), about 128."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    frequency[0, 0] = np.inf
    white = np.random.default_rng(seed).standard_normal((size, size))
    field = np.fft.irfft2(np.fft.rfft2(white) / frequency**slope, (size, size))
    scaled: np.ndarray = field / field.std() * contrast + 128
    return scaled


def canvas(size: int, colour: str = "white") -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (size, size), colour)
    return image, ImageDraw.Draw(image)


def emoji(size: int) -> Iterator[np.ndarray]:
    """All 40 of the sheet."""
    sheet = Image.open(SHEET).convert("RGB")
    for row in range(5):
        for column in range(8):
            left, top = column * PITCH[0], row * PITCH[1]
            cell = sheet.crop((left, top, left + CELL, top + CELL))
            yield np.asarray(cell.resize((size, size), Image.Resampling.LANCZOS))


@drawing
def gradient(size: int) -> np.ndarray:
    return coloured(np.stack([*(np.mgrid[:size, :size] * (255 / size)), np.full((size, size), 90.0)]))


@drawing
def fog(size: int) -> np.ndarray:
    """Hardly any contrast."""
    return rgb(natural(size, 1.5, 1, contrast=4) + 70)


@drawing
def photograph(size: int) -> np.ndarray:
    light = natural(size, 1.0, 2)
    return coloured(np.stack([light + 0.3 * (natural(size, 1.2, 3 + i) - 128) for i in range(3)]))


@drawing
def rough_photograph(size: int) -> np.ndarray:
    """Foliage has flatter spectra than most."""
    return coloured(np.stack([natural(size, 0.7, 6) + 0.4 * (natural(size, 0.7, 7 + i) - 128) for i in range(3)]))


@drawing
def film_grain(size: int) -> np.ndarray:
    return rgb(natural(size, 1.2, 10) + rng(size).normal(0, 25, (size, size)))


@drawing
def colour_grain(size: int) -> np.ndarray:
    return coloured(natural(size, 1.2, 11) + rng(size).normal(0, 25, (3, size, size)))


@drawing
def static(size: int) -> np.ndarray:
    """A television without a station."""
    return rgb(rng(size).uniform(0, 255, (size, size)))


@drawing
def gravel(size: int) -> np.ndarray:
    """Grey stones without any large form."""
    stones = Image.fromarray(rng(size).uniform(0, 255, (size // 8, size // 8)).astype(np.uint8))
    return rgb(np.asarray(stones.resize((size, size), Image.Resampling.BICUBIC), np.float64))


@drawing
def brown_gravel(size: int) -> np.ndarray:
    grey = gravel(size)[..., 0].astype(np.float64)
    tint = natural(size, 0.3, 12, contrast=6) - 128
    return coloured(np.stack([grey * 0.9 + tint, grey * 0.7, grey * 0.5 - tint]))


@drawing
def sprinkles(size: int) -> np.ndarray:
    """Sweets of all colours, side by side."""
    image, draw = canvas(size, "pink")
    random = rng(size)
    for x, y in random.integers(0, size, (size * size // 60, 2)).tolist():
        draw.ellipse((x, y, x + 9, y + 9), fill=tuple(random.integers(0, 256, 3).tolist()))
    return np.asarray(image)


@drawing
def mosaic(size: int) -> np.ndarray:
    cells = rng(size).integers(0, 256, (size // 16, size // 16, 3), np.uint8)
    return np.kron(cells, np.ones((16, 16, 1), np.uint8))


@drawing
def pixel_art(size: int) -> np.ndarray:
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (255, 255, 0), (0, 0, 255), (255, 255, 255)], np.uint8)
    return np.kron(colours[rng(size).integers(0, 6, (size // 8, size // 8))], np.ones((8, 8, 1), np.uint8))


@drawing
def dithered(size: int) -> np.ndarray:
    """Eight colours only, as on early home computers."""
    levels = photograph(size) / 255 + rng(size).uniform(-0.5, 0.5, (size, size, 1))
    return ((levels > 0.5) * 255).astype(np.uint8)


@drawing
def halftone(size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(photograph(size)).convert("1").convert("RGB"))


@drawing
def neon(size: int) -> np.ndarray:
    """Colours at their limits, as at too high a cfg_scale."""
    return coloured(np.stack([(natural(size, 1.5, 20 + i) - 128) * 8 + 128 for i in range(3)]))


@drawing
def text_page(size: int) -> np.ndarray:
    image, draw = canvas(size)
    for y in range(4, size, 12):
        draw.text((4, y), "the quick brown fox jumps over the lazy dog " * 4, fill="black")
    return np.asarray(image)


@drawing
def code_square(size: int) -> np.ndarray:
    """As a QR code."""
    cells = rng(size).integers(0, 2, (size // 12 + 1, size // 12 + 1)) * 255
    return rgb(np.kron(cells, np.ones((12, 12))))[:size, :size]


@drawing
def line_art(size: int) -> np.ndarray:
    image, draw = canvas(size)
    points = rng(size).integers(0, size, (40, 2)).tolist()
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        draw.line((x0, y0, x1, y1), fill="black", width=2)
    return np.asarray(image)


@drawing
def flat_shapes(size: int) -> np.ndarray:
    image, draw = canvas(size, "#d9c9a0")
    draw.rectangle((0, size // 2, size, size), fill="#337744")
    draw.ellipse((size // 3, size // 6, size * 2 // 3, size // 2), fill="#ee3322")
    return np.asarray(image)


@drawing
def black_square(size: int) -> np.ndarray:
    image, draw = canvas(size)
    draw.rectangle((size // 8, size // 8, size * 7 // 8, size * 7 // 8), fill="black")
    return np.asarray(image)


@drawing
def moon(size: int) -> np.ndarray:
    """A small light in a black sky."""
    image, draw = canvas(size, "black")
    draw.ellipse((size * 7 // 10, size // 10, size * 8 // 10, size // 5), fill="#ffffcc")
    return np.asarray(image)


@drawing
def star_field(size: int) -> np.ndarray:
    return rgb((rng(size).random((size, size)) > 0.998) * 255.0)


@drawing
def half_black(size: int) -> np.ndarray:
    image = photograph(size).copy()
    image[:, : size // 2] = 0
    return image


@drawing
def white_sky(size: int) -> np.ndarray:
    image = photograph(size).copy()
    image[: size * 11 // 20] = 255
    return image


def checkers(size: int, cell: int) -> np.ndarray:
    return rgb((np.indices((size, size)) // cell).sum(0) % 2 * 255.0)


def stripes(size: int, period: int) -> np.ndarray:
    lit = np.arange(size) % period * 2 < period
    row = np.where(lit[None, :, None], np.array([220, 30, 40]), np.array([250, 250, 240]))
    return row.repeat(size, 0).astype(np.uint8)


def wallpaper(size: int, pitch: int) -> np.ndarray:
    """One motif again and again."""
    return np.tile(next(emoji(pitch)), (size // pitch + 1, size // pitch + 1, 1))[:size, :size]


def every(size: int = SIDE) -> Iterator[tuple[str, np.ndarray]]:
    """All of them by name."""
    yield from ((name, draw(size)) for name, draw in DRAWINGS.items())
    yield from ((f"checkers {cell}", checkers(size, cell)) for cell in (1, 2, 8, 16, 64))
    yield from ((f"stripes {period}", stripes(size, period)) for period in (2, 16, 64))
    yield from ((f"wallpaper {pitch}", wallpaper(size, pitch)) for pitch in (32, 64, 128))
    yield from ((f"emoji {i}", picture) for i, picture in enumerate(emoji(size)))
