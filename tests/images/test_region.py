"""Only what is masked: where A1111 would cut, and laid back so that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from relight.errors import RequestError
from relight.images.region import Region, composite, masked_region, paste

# picture, masked box, padding, size it is made in, region: by A1111's functions
CASES = [
    ((512, 512), (100, 100, 228, 132), 0, (512, 512), (100, 52, 228, 180)),
    ((258, 198), (69, 8, 131, 14), 10, (840, 680), (59, 0, 141, 66)),
    ((275, 161), (166, 88, 267, 101), 56, (328, 840), (110, 0, 275, 161)),
    ((207, 20), (81, 0, 178, 16), 50, (232, 144), (31, 0, 207, 20)),
    ((261, 26), (21, 11, 141, 12), 1, (64, 176), (20, 0, 142, 26)),
    ((22, 207), (11, 127, 14, 158), 27, (1016, 832), (0, 100, 22, 185)),
    ((294, 126), (201, 87, 280, 105), 23, (904, 192), (3, 64, 294, 126)),
]


def box(width: int, height: int, region: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((height, width), np.float32)
    Region(*region).crop(mask)[:] = 1
    return mask


@pytest.mark.parametrize(("picture", "masked", "padding", "size", "region"), CASES)
def test_the_region_is_a1111s(
    picture: tuple[int, int],
    masked: tuple[int, int, int, int],
    padding: int,
    size: tuple[int, int],
    region: tuple[int, int, int, int],
) -> None:
    found = masked_region(box(*picture, masked), *size, padding)
    assert found == region
    assert (found.width, found.height) == (region[2] - region[0], region[3] - region[1])


def test_what_eight_bits_would_round_to_zero_is_not_masked() -> None:
    mask = box(64, 64, (20, 20, 40, 40))
    mask[0, 0] = 0.4 / 255
    assert masked_region(mask, 512, 512, 0) == (20, 20, 40, 40)


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(RequestError, match="^mask: nothing in it is white"):
        masked_region(np.zeros((8, 8), np.float32), 512, 512)


def test_composite_mixes_by_the_mask() -> None:
    black, white = np.zeros((1, 3, 3), np.uint8), np.full((1, 3, 3), 255, np.uint8)
    mixed = composite(black, white, np.array([[0, 0.5, 1]], np.float32))
    assert mixed.dtype == np.uint8 and mixed[0, :, 0].tolist() == [0, 128, 255]


def test_a_part_made_larger_is_laid_back_under_its_mask_alone() -> None:
    original = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    before = original.copy()
    mask = box(80, 60, (30, 20, 50, 40))
    region = masked_region(mask, 512, 512, 8)
    result = paste(original, np.full((512, 512, 3), 9, np.uint8), region, mask)
    assert (result[mask == 1] == 9).all()
    np.testing.assert_array_equal(result[mask == 0], original[mask == 0])
    np.testing.assert_array_equal(original, before)


def test_cut_out_and_laid_back_unchanged_is_the_same_picture() -> None:
    original = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    region = Region(10, 5, 42, 37)
    result = paste(original, region.crop(original), region, np.ones((60, 80), np.float32))
    np.testing.assert_array_equal(result, original)
