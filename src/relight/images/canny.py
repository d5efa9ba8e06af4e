"""Edges of a picture as ControlNets were trained on them: Canny's detector (1986), bit for bit as OpenCV computes it.

Sobel 3x3 per colour, the strongest colour of each pixel, |dx| + |dy| as strength, thinned along the gradient's
direction in four sectors, then strong edges and whatever weaker ones touch them.
"""

from __future__ import annotations

import numpy as np

from relight.errors import RequestError

LOW, HIGH = 100, 200
"""The thresholds of A1111's and ControlNet's preprocessors, for strengths of 0 to 2040."""
TAN_22 = 13573  # tan(22.5 degrees) in 15 binary places


def canny(image: np.ndarray, low: int = LOW, high: int = HIGH) -> np.ndarray:
    """Edges of uint8 [H W 3] as uint8 [H W 3], 255 on 0. Raises RequestError for thresholds out of order."""
    if not 0 <= low <= high:
        raise RequestError(f"canny: thresholds {low} and {high}: the second is no less than the first, neither below 0")
    dx, dy = strongest(image)
    strength = np.abs(dx) + np.abs(dy)
    candidates = thinned(strength, dx, dy) & (strength > low)
    edges = connected(candidates, candidates & (strength > high))
    return np.repeat((edges * np.uint8(255))[..., None], 3, axis=2)


def strongest(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sobel gradients [H W] of the colour in which they are largest; beyond the edges pixels are repeated."""
    dx, dy = sobel(image[..., 0])
    strength = np.abs(dx) + np.abs(dy)
    for channel in (1, 2):
        x, y = sobel(image[..., channel])
        stronger = (other := np.abs(x) + np.abs(y)) > strength
        for kept, new in ((dx, x), (dy, y), (strength, other)):
            np.copyto(kept, new, where=stronger)
    return dx, dy


def sobel(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p = np.pad(plane, 1, mode="edge").astype(np.int16)
    down, across = p[:-2] + 2 * p[1:-1] + p[2:], p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]
    return down[:, 2:] - down[:, :-2], across[2:] - across[:-2]


def thinned(strength: np.ndarray, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Where `strength` is no less than at its two neighbours along the gradient; of two equal ones, the first."""
    around = np.pad(strength, 1)

    def at(row: int, column: int) -> np.ndarray:
        height, width = strength.shape
        return around[1 + row :, 1 + column :][:height, :width]

    x, y = np.abs(dx).astype(np.int32), np.abs(dy).astype(np.int32) << 15
    flat, steep = y < x * TAN_22, y > x * (TAN_22 + (2 << 15))  # tan(67.5 degrees) is 2 more
    falling = (dx < 0) != (dy < 0)
    along_row = (strength > at(0, -1)) & (strength >= at(0, 1))
    along_column = (strength > at(-1, 0)) & (strength >= at(1, 0))
    rising_diagonal = (strength > at(-1, -1)) & (strength > at(1, 1))
    falling_diagonal = (strength > at(-1, 1)) & (strength > at(1, -1))
    diagonal = np.where(falling, falling_diagonal, rising_diagonal)
    kept: np.ndarray = np.where(flat, along_row, np.where(steep, along_column, diagonal))
    return kept


def connected(candidates: np.ndarray, strong: np.ndarray) -> np.ndarray:
    """`strong` and the candidates that a chain of neighbouring ones, diagonals too, ties to them."""
    width = candidates.shape[1] + 2
    waiting = np.pad(candidates & ~strong, 1).ravel()
    edges = np.pad(strong, 1).ravel()
    front = np.flatnonzero(edges)
    steps = np.array([row * width + column for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column])
    while len(front):
        near = (front[:, None] + steps).ravel()
        front = np.unique(near[waiting[near]])
        waiting[front], edges[front] = False, True
    return edges.reshape(-1, width)[1:-1, 1:-1]
