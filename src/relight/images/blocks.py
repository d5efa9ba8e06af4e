"""Statistics of pictures and latents that verdicts rest on."""

from __future__ import annotations

import numpy as np
from PIL import Image

BLOCK = 8
"""Pixels of a picture to a latent pixel."""
RELATED = 0.1
ENOUGH = 32  # blocks on each side, to call them unrelated


def block_means(image: np.ndarray) -> np.ndarray:
    """uint8 [H W 3] to the means of its 8x8 pixels, float32 [H/8 W/8 3], rounded to levels."""
    return np.asarray(Image.fromarray(image).reduce(BLOCK), np.float32)


def lag_correlation(planes: np.ndarray) -> np.ndarray:
    """[C h w] to [C]: how neighbours, down and across, are correlated; 0 for a constant plane."""
    x = planes - planes.mean((1, 2), keepdims=True)
    down, across = (x[:, 1:] * x[:, :-1]).mean((1, 2)), (x[:, :, 1:] * x[:, :, :-1]).mean((1, 2))
    correlation: np.ndarray = (down + across) / 2 / np.maximum(np.square(x).mean((1, 2)), np.finfo(np.float32).tiny)
    return correlation


def decorrelated(blocks: np.ndarray) -> float | None:
    """The largest correlation of neighbouring blocks [h w 3], of this size, twice and four times it, in any colour,
    if it is small throughout; None also where there are too few."""
    if min(blocks.shape[:2]) < ENOUGH:
        return None
    planes, largest = blocks.transpose(2, 0, 1), 0.0
    for _ in range(3):
        largest = max(largest, float(np.abs(lag_correlation(planes)).max()))
        if largest > RELATED + 2 / np.sqrt(planes[0].size):
            return None
        planes = halved(planes)
    return largest


def halved(planes: np.ndarray) -> np.ndarray:
    height, width = planes.shape[1] // 2, planes.shape[2] // 2
    means: np.ndarray = planes[:, : 2 * height, : 2 * width].reshape(-1, height, 2, width, 2).mean((2, 4))
    return means
