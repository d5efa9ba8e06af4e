"""Inpainting only what is masked: the part of a picture to work on, cut out, and laid back under its mask.

The part is A1111's, to the pixel: the mask's bounding box and padding, widened to the proportions of the size it will
be made in, moved rather than cut where it would leave the picture.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from relight.errors import RequestError
from relight.images.fit import fit

FAINTEST = 0.5 / 255
"""What rounds to more than zero in eight bits is masked."""


class Region(NamedTuple):
    """A rectangle of pixels; `right` and `bottom` are outside it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    def crop(self, image: np.ndarray) -> np.ndarray:
        """This part of [H W ...], as a view."""
        return image[self.top : self.bottom, self.left : self.right]


def masked_region(mask: np.ndarray, width: int, height: int, padding: int = 32) -> Region:
    """The part of a picture that holds all of `mask` [H W] and `padding` pixels, to be made as width x height.

    Raises RequestError for a mask in which nothing is to be painted.
    """
    rows, columns = (np.flatnonzero((mask >= FAINTEST).any(axis)) for axis in (1, 0))
    if not len(rows):
        raise RequestError("mask: nothing in it is white, so nothing would be painted; invert it, or leave it out")
    left, right = padded(columns[0], columns[-1] + 1, padding, mask.shape[1])
    top, bottom = padded(rows[0], rows[-1] + 1, padding, mask.shape[0])
    if (right - left) * height > (bottom - top) * width:
        top, bottom = widened(top, bottom, int((right - left) / (width / height)), mask.shape[0])
    else:
        left, right = widened(left, right, int((bottom - top) * (width / height)), mask.shape[1])
    return Region(left, top, right, bottom)


def padded(start: int, stop: int, padding: int, size: int) -> tuple[int, int]:
    return max(int(start) - padding, 0), min(int(stop) + padding, size)


def widened(start: int, stop: int, length: int, size: int) -> tuple[int, int]:
    """`length` around what was, moved inside 0 to `size`; all of it where `length` is more."""
    start -= (length - (stop - start)) // 2
    start = max(min(start, size - length), 0)
    return start, min(start + length, size)


def paste(original: np.ndarray, made: np.ndarray, region: Region, mask: np.ndarray) -> np.ndarray:
    """`made` [h w 3] in its place in `original` [H W 3], blended by `mask` [H W]. Outside `region` nothing changes."""
    whole = original.copy()
    part = fit(made, region.width, region.height, "crop")
    whole[region.top : region.bottom, region.left : region.right] = composite(
        region.crop(original), part, region.crop(mask)
    )
    return whole


def composite(original: np.ndarray, made: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`made` where `mask` [H W] is 1, `original` where it is 0, mixed between; uint8 [H W 3]."""
    weight = mask[..., None]
    mixed: np.ndarray = original * (1 - weight) + made * weight
    return np.rint(mixed).astype(np.uint8)
