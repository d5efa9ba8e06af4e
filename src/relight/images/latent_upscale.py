"""Latents in another size, for a second pass at more pixels: the arithmetic of torch's interpolate, axis by axis.

Each method is a matrix [out in] per axis, so a resized plane is `rows @ plane @ columns.T`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from relight.errors import RequestError

CUBIC, CUBIC_ANTIALIASED = -0.75, -0.5
"""The free number of the cubic kernel (Keys 1981), as torch has it without and with antialiasing."""


def upscale_latents(latents: np.ndarray, height: int, width: int, method: str = "bilinear") -> np.ndarray:
    """[... h w] as [... height width] in latent pixels, larger or smaller; float32.

    Raises RequestError for a method that is none of `METHODS`.
    """
    if method not in METHODS:
        raise RequestError(f"latent upscale: there is no {method!r}; there are {', '.join(METHODS)}")
    rows, columns = (METHODS[method](*size) for size in zip(latents.shape[-2:], (height, width), strict=True))
    resized: np.ndarray = rows @ latents.astype(np.float64) @ columns.T
    return resized.astype(np.float32)


def nearest(size: int, wanted: int) -> np.ndarray:
    """The pixel whose part holds the left edge of the new one."""
    return np.eye(size)[np.arange(wanted) * size // wanted]


def nearest_exact(size: int, wanted: int) -> np.ndarray:
    """The pixel whose part holds the middle of the new one."""
    return np.eye(size)[(2 * np.arange(wanted) + 1) * size // (2 * wanted)]


def area(size: int, wanted: int) -> np.ndarray:
    """The mean of all pixels the new one touches."""
    first = np.arange(wanted) * size // wanted
    last = -(-(np.arange(wanted) + 1) * size // wanted)
    at = np.arange(size)
    touched = (at >= first[:, None]) & (at < last[:, None])
    return touched / touched.sum(1, keepdims=True)


def interpolated(kernel: Callable[[np.ndarray], np.ndarray], reach: int) -> Callable[[int, int], np.ndarray]:
    """Between the pixels around, whatever the scale; beyond the edges their pixels are repeated."""

    def matrix(size: int, wanted: int) -> np.ndarray:
        middle = (np.arange(wanted) + 0.5) * size / wanted - 0.5
        taps = np.floor(middle)[:, None] + np.arange(1 - reach, reach + 1)
        weights = np.zeros((wanted, size))
        rows = np.broadcast_to(np.arange(wanted)[:, None], taps.shape)
        np.add.at(weights, (rows, taps.clip(0, size - 1).astype(int)), kernel(taps - middle[:, None]))
        return weights

    return matrix


def antialiased(kernel: Callable[[np.ndarray], np.ndarray], reach: int) -> Callable[[int, int], np.ndarray]:
    """The kernel widened by the scale where the picture shrinks; beyond the edges there is nothing."""

    def matrix(size: int, wanted: int) -> np.ndarray:
        scale = max(size / wanted, 1.0)
        middle = (np.arange(wanted)[:, None] + 0.5) * size / wanted
        at = np.arange(size)
        first = np.maximum((middle - reach * scale + 0.5).astype(int), 0)
        last = np.minimum((middle + reach * scale + 0.5).astype(int), size)
        weights = np.where((at >= first) & (at < last), kernel((at + 0.5 - middle) / scale), 0)
        normal: np.ndarray = weights / weights.sum(1, keepdims=True)
        return normal

    return matrix


def triangle(x: np.ndarray) -> np.ndarray:
    value: np.ndarray = np.maximum(1 - np.abs(x), 0)
    return value


def cubic(a: float) -> Callable[[np.ndarray], np.ndarray]:
    def kernel(x: np.ndarray) -> np.ndarray:
        x = np.abs(x)
        inner = ((a + 2) * x - (a + 3)) * x * x + 1
        outer = ((x - 5) * x + 8) * x * a - 4 * a
        value: np.ndarray = np.where(x < 1, inner, np.where(x < 2, outer, 0))
        return value

    return kernel


METHODS: dict[str, Callable[[int, int], np.ndarray]] = {
    "nearest": nearest,
    "nearest-exact": nearest_exact,
    "bilinear": interpolated(triangle, 1),
    "bilinear-antialiased": antialiased(triangle, 1),
    "bicubic": interpolated(cubic(CUBIC), 2),
    "bicubic-antialiased": antialiased(cubic(CUBIC_ANTIALIASED), 2),
    "area": area,
}

A1111 = {
    "Latent": "bilinear",
    "Latent (antialiased)": "bilinear-antialiased",
    "Latent (bicubic)": "bicubic",
    "Latent (bicubic antialiased)": "bicubic-antialiased",
    "Latent (nearest)": "nearest",
    "Latent (nearest-exact)": "nearest-exact",
}
"""Names of A1111's upscalers of latents, which other programs send."""
