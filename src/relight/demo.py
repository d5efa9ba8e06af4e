"""The model that ships with relight, and pictures shown where they were asked for: in the terminal."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import numpy as np
from PIL import Image

EMBEDDED = Path(__file__).parent / "embedded"
"""A FLUX in the published layout, small: 128x128 pixels, emoji. It takes the way of every other model."""

SIZE = 128
GALLERY = (
    "a red apple",
    "smiling cat face",
    "rocket",
    "blue heart",
    "a green tree",
    "pizza, 3d",
    "penguin",
    "flat sun",
)
COLUMNS = 40
SHADES = " .:-=+*#%@"


def sheet(images: list[np.ndarray], columns: int = 4) -> np.ndarray:
    """Pictures [h w 3] of one size, side by side in rows, on white."""
    height, width = images[0].shape[:2]
    rows = -(-len(images) // columns)
    page = np.full((rows * height, min(columns, len(images)) * width, 3), 255, np.uint8)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        page[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
    return page


def can_show_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether a stream is a terminal that shows 24-bit colour and block characters."""
    if not stream.isatty() or environ.get("TERM") in (None, "dumb") or "NO_COLOR" in environ:
        return False
    return "UTF" in (stream.encoding or "").upper()


def in_terminal(
    image: np.ndarray, stream: TextIO, environ: Mapping[str, str] = os.environ, columns: int = COLUMNS
) -> str:
    """The picture as text: half blocks in colour, two pixels to a character, or letters where that cannot be shown."""
    height = round(columns * image.shape[0] / image.shape[1] / 2) * 2
    if can_show_colour(stream, environ):
        return blocks(np.asarray(Image.fromarray(image).resize((columns, height), Image.Resampling.BOX)))
    return letters(np.asarray(Image.fromarray(image).convert("L").resize((columns, height // 2), Image.Resampling.BOX)))


def blocks(pixels: np.ndarray) -> str:
    """[h w 3] -> h/2 lines; the upper pixel is the character's colour, the lower one its background."""
    lines = []
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        cells = (
            f"\x1b[38;2;{a[0]};{a[1]};{a[2]}m\x1b[48;2;{b[0]};{b[1]};{b[2]}m▀"
            for a, b in zip(upper, lower, strict=True)
        )
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def letters(grey: np.ndarray) -> str:
    """[h w] of 0..255 -> h lines, dark pixels as dense letters."""
    dense = (255 - grey.astype(int)) * (len(SHADES) - 1) // 255
    return "\n".join("".join(SHADES[d] for d in row).rstrip() for row in dense)
