"""Masks: A1111's blur, hard masks of latents, colours from around."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from relight.errors import RequestError
from relight.images import mask as masks

GOLDEN = np.load(Path(__file__).parent / "opencv.npz")
MASK = (GOLDEN["mask"] / 255).astype(np.float32)


def square(size: int, start: int, stop: int) -> np.ndarray:
    mask = np.zeros((size, size), np.float32)
    mask[start:stop, start:stop] = 1
    return mask


@pytest.mark.parametrize("pixels", ["1", "4", "9.5"])
def test_blur_is_a1111s(pixels: str) -> None:
    """It works in eight bits: 1.6 steps apart were measured."""
    np.testing.assert_allclose(masks.blur(MASK, float(pixels)) * 255, GOLDEN[f"blurred/{pixels}"], atol=2)


def test_no_blur_is_the_mask_and_any_blur_keeps_a_full_one() -> None:
    assert masks.blur(MASK, 0) is MASK
    for shape in ((8, 8), (1, 9), (3, 1)):
        np.testing.assert_allclose(masks.blur(np.ones(shape, np.float32), 30), 1, atol=1e-5)


def test_the_overlay_takes_all_that_is_half_masked() -> None:
    np.testing.assert_allclose(masks.overlay(np.array([[0, 0.25, 0.5, 0.75, 1]], np.float32)), [[0, 0.5, 1, 1, 1]])


def test_a_latent_mask_is_hard_and_lies_where_the_mask_does() -> None:
    small = masks.latent_mask(masks.blur(square(128, 32, 96), 4), 16, 16)
    assert small.dtype == np.float32
    np.testing.assert_array_equal(small, square(16, 4, 12))


def test_the_conditioning_mask_is_rounded_and_sampled() -> None:
    mask = square(64, 8, 24) * np.float32(0.6)
    mask[40, 40] = 0.5  # not masked: A1111 rounds halves to even
    np.testing.assert_array_equal(masks.conditioning_mask(mask, 8, 8), square(8, 1, 3))


def test_what_an_inpainting_checkpoint_sees_is_grey_where_masked() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 2] = 255
    seen = masks.hollow(image, square(4, 1, 3))
    assert seen.shape == (3, 4, 4) and seen.dtype == np.float32
    assert (seen[:, 1:3, 1:3] == 0).all()
    assert seen[0, 0, 0] == -1 and seen[2, 3, 3] == 1


def test_fill_leaves_what_is_not_masked_and_takes_colours_from_around() -> None:
    image = np.zeros((96, 120, 3), np.uint8)
    image[:, :60], image[:, 60:] = (200, 40, 10), (20, 60, 220)
    image[30:60, 30:90] = (0, 255, 0)
    mask = np.zeros((96, 120), np.float32)
    mask[30:60, 30:90] = 1
    filled = masks.fill_around(image, mask)
    np.testing.assert_array_equal(filled[mask == 0], image[mask == 0])
    inside = filled[30:60, 30:90].astype(int)
    assert inside[..., 1].max() <= 61, "the green under the mask is gone"
    assert inside[:, 0, 0].min() > 150 and inside[:, -1, 2].min() > 150, "each side is like its neighbours"
    assert np.abs(np.diff(inside, axis=1)).max() < 90, "and softer than the edge around it, of 180"


def test_fill_follows_a_soft_mask() -> None:
    image = np.full((32, 32, 3), 100, np.uint8)
    image[16, 16] = 200
    half = masks.fill_around(image, square(32, 16, 17) * np.float32(0.5))
    assert 150 < half[16, 16, 0] < 160


def test_fill_of_a_picture_masked_whole_is_grey() -> None:
    filled = masks.fill_around(np.zeros((9, 14, 3), np.uint8), np.ones((9, 14), np.float32))
    assert np.unique(filled).tolist() == [128]


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 7)])
def test_fill_takes_any_size(shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, np.float32)
    mask[: shape[0] // 2] = 1
    assert np.unique(masks.fill_around(np.full((*shape, 3), 77, np.uint8), mask)).tolist() == [77]


def test_an_unknown_fill_names_those_there_are() -> None:
    for mode in masks.FILLS:
        masks.check_fill(mode)
    with pytest.raises(RequestError, match="'noise'.*latent_noise"):
        masks.check_fill("noise")
