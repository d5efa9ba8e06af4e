"""A picture or mask of any size in the size that is to be made: A1111's three resize modes, by its arithmetic."""

from __future__ import annotations

import numpy as np

from relight.errors import RequestError
from relight.images.resize import resize_image

MODES = ("stretch", "crop", "fill")
"""A1111's `resize_mode` 0, 1, 2: just resize, crop and resize, resize and fill."""


def fit(image: np.ndarray, width: int, height: int, mode: str = "crop", method: str = "lanczos") -> np.ndarray:
    """[H W ...] as [height width ...]. Raises RequestError for an unknown mode.

    `stretch` changes proportions; `crop` keeps them and cuts off what stands out; `fill` keeps them and repeats the
    pixels of the edge where something is missing.
    """
    if mode not in MODES:
        raise RequestError(f"resize mode: there is no {mode!r}; there are {', '.join(MODES)}")
    if mode == "stretch":
        return resize_image(image, width, height, method)
    across, down = proportional(image.shape[1], image.shape[0], width, height, cover=mode == "crop")
    resized = resize_image(image, across, down, method)
    return cut(resized, width, height) if mode == "crop" else padded(resized, width, height)


def proportional(source_width: int, source_height: int, width: int, height: int, cover: bool) -> tuple[int, int]:
    """The size in which a picture just covers width x height, or just goes into it."""
    if (width * source_height > source_width * height) == cover:
        return width, max(source_height * width // source_width, 1)
    return max(source_width * height // source_height, 1), height


def cut(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """The middle, where an odd pixel is left over as A1111 does."""
    top, left = image.shape[0] // 2 - height // 2, image.shape[1] // 2 - width // 2
    return image[top : top + height, left : left + width]


def padded(image: np.ndarray, width: int, height: int) -> np.ndarray:
    above, before = height // 2 - image.shape[0] // 2, width // 2 - image.shape[1] // 2
    below, after = height - image.shape[0] - above, width - image.shape[1] - before
    return np.pad(image, [(above, below), (before, after)] + [(0, 0)] * (image.ndim - 2), mode="edge")
