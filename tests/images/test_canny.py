"""Edges, against OpenCV's (golden/make_images.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from relight.errors import RequestError
from relight.images.canny import canny

GOLDEN = np.load(Path(__file__).parent / "opencv.npz")
PICTURE = GOLDEN["picture"]
CASES = [name for name in GOLDEN.files if name.startswith("edges/")]


@pytest.mark.parametrize("case", CASES)
def test_edges_are_opencvs_pixel_by_pixel(case: str) -> None:
    _, low, high = case.split("/")
    edges = canny(PICTURE, int(low), int(high))
    expected = np.unpackbits(GOLDEN[case], count=edges[..., 0].size).reshape(edges.shape[:2])
    assert 100 < expected.sum() < expected.size / 2
    np.testing.assert_array_equal(edges[..., 0], expected * 255)


def test_edges_are_white_on_black_in_three_channels() -> None:
    edges = canny(PICTURE)
    assert edges.dtype == np.uint8 and edges.shape == PICTURE.shape
    assert np.unique(edges).tolist() == [0, 255]
    assert (edges == edges[..., :1]).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (64, 64)])
def test_a_flat_picture_of_any_size_has_no_edges(shape: tuple[int, int]) -> None:
    assert not canny(np.full((*shape, 3), 200, np.uint8)).any()


@pytest.mark.parametrize(("low", "high"), [(200, 100), (-1, 100)])
def test_thresholds_out_of_order_are_refused(low: int, high: int) -> None:
    with pytest.raises(RequestError, match=f"thresholds {low} and {high}"):
        canny(PICTURE, low, high)
