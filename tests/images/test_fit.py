"""Sizes: A1111's resize modes, and filters that keep a mask a mask."""

from __future__ import annotations

import numpy as np
import pytest

from relight.errors import RequestError
from relight.images.fit import MODES, fit, proportional
from relight.images.resize import FILTERS, resize_image

SIZES = [(64, 64), (40, 100), (101, 33), (7, 5), (1, 1)]


def ramp(width: int, height: int) -> np.ndarray:
    """Red rises from left to right, green from top to bottom."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width)
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    return image


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("source", SIZES)
def test_any_picture_and_mask_come_out_in_the_size_asked_for(
    source: tuple[int, int], size: tuple[int, int], mode: str
) -> None:
    assert fit(ramp(*source), *size, mode).shape == (size[1], size[0], 3)
    mask = fit(np.random.default_rng(0).random(source[::-1], np.float32), *size, mode)
    assert mask.shape == size[::-1] and mask.min() >= 0 and mask.max() <= 1


def test_the_size_it_has_changes_no_pixel() -> None:
    for mode in MODES:
        np.testing.assert_array_equal(fit(ramp(30, 20), 30, 20, mode), ramp(30, 20))


@pytest.mark.parametrize(
    ("source", "size", "cover", "across"),
    [
        ((1000, 700), (512, 512), True, (731, 512)),
        ((1000, 700), (512, 512), False, (512, 358)),
        ((700, 1000), (512, 512), True, (512, 731)),
        ((700, 1000), (512, 512), False, (358, 512)),
        ((640, 480), (1024, 768), True, (1024, 768)),
        ((640, 480), (1024, 768), False, (1024, 768)),
        ((333, 100), (512, 768), True, (2557, 768)),
        ((9000, 3), (64, 64), False, (64, 1)),
    ],
)
def test_proportions_are_kept_by_a1111s_arithmetic(
    source: tuple[int, int], size: tuple[int, int], cover: bool, across: tuple[int, int]
) -> None:
    assert proportional(*source, *size, cover=cover) == across


def test_stretch_keeps_all_and_crop_keeps_the_middle() -> None:
    wide = ramp(400, 200)
    stretched, cropped = fit(wide, 100, 100, "stretch"), fit(wide, 100, 100, "crop")
    assert stretched[50, 0, 0] < 5 and stretched[50, -1, 0] > 250
    assert 60 < cropped[50, 0, 0] < 68 and 187 < cropped[50, -1, 0] < 195
    np.testing.assert_allclose(cropped[0, :, 1], 0, atol=3)


def test_fill_repeats_the_pixels_of_the_edge() -> None:
    filled = fit(ramp(400, 200), 100, 100, "fill")
    np.testing.assert_array_equal(filled[:25], np.broadcast_to(filled[25], (25, 100, 3)))
    np.testing.assert_array_equal(filled[75:], np.broadcast_to(filled[74], (25, 100, 3)))
    assert filled[25, :, 1].max() < 5 and filled[74, :, 1].min() > 250


def test_shrinking_looks_at_every_pixel() -> None:
    checkers = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    for method in ("lanczos", "bicubic", "bilinear", "area"):
        shrunk = resize_image(np.repeat(checkers[..., None], 3, 2), 8, 8, method)
        np.testing.assert_allclose(shrunk[1:-1, 1:-1], 127.5, atol=2)


def test_lanczos_does_not_overshoot_in_a_mask() -> None:
    edge = np.zeros((8, 8), np.float32)
    edge[:, 4:] = 1
    for method in FILTERS:
        resized = resize_image(edge, 31, 31, method)
        assert resized.dtype == np.float32 and resized.min() == 0 and resized.max() == 1


def test_unknown_names_are_answered_with_those_there_are() -> None:
    with pytest.raises(RequestError, match="'zoom'.*stretch, crop, fill"):
        fit(ramp(4, 4), 8, 8, "zoom")
    with pytest.raises(RequestError, match="'best'.*lanczos, bicubic"):
        resize_image(ramp(4, 4), 8, 8, "best")
