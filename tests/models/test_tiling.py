from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden import weights as g
from relight.errors import ExecutorError
from relight.executors.base import CompileOptions
from relight.executors.reference import ReferenceExecutor
from relight.graph import Weights
from relight.models.tiling import (
    OVERLAP,
    SCALE,
    decode_tiled,
    tile_candidates,
    tile_plan,
    upscale_plan,
    upscale_tiled,
)
from relight.models.vae import VaeConfig, record_decoder
from running import relative_error
from stored import ArraySource

SIZES = st.integers(1, 90)


@settings(deadline=None)
@given(SIZES, SIZES, st.integers(1, 60), st.floats(0, 1, exclude_max=True))
def test_tiles_of_one_shape_cover_the_picture_and_overlap(height: int, width: int, tile: int, shared: float) -> None:
    overlap = int(shared * tile)
    plan = tile_plan(height, width, tile, overlap)
    assert len({(t.height, t.width) for t in plan}) == 1
    assert plan[0].height <= min(tile, height) and plan[0].width <= min(tile, width)
    for size, axis in ((height, {t.rows for t in plan}), (width, {t.columns for t in plan})):
        spans = sorted(axis, key=lambda span: span.start)
        assert (spans[0].start, spans[-1].stop) == (0, size)
        assert (spans[0].before, spans[-1].after) == (0, 0)
        for left, right in zip(spans, spans[1:], strict=False):
            assert left.after == right.before == left.stop - right.start >= overlap
    assert len(plan) == len({t.rows for t in plan}) * len({t.columns for t in plan})


def test_tiles_are_no_larger_than_their_number_needs() -> None:
    plan = tile_plan(128, 128, 64)
    assert (len(plan), plan[0].height) == (9, 56)  # 3 * 54 - 2 * 16 = 130 would do, and 56 is the next multiple of 8


def test_a_tile_no_larger_than_its_overlap_is_refused() -> None:
    with pytest.raises(ValueError, match="tiles of 16 pixels cannot overlap by 16"):
        tile_plan(64, 64, 16, 16)
    with pytest.raises(ValueError, match="tiles of 0 pixels"):
        tile_plan(64, 64, 0)


def test_candidates_fall_from_the_whole_picture_to_small_tiles() -> None:
    assert tile_candidates(128, 96) == [128, 72, 56, 48, 40, 32]
    assert tile_candidates(16, 24) == [24]
    areas = [plan[0].height * plan[0].width for plan in (tile_plan(128, 96, size) for size in tile_candidates(128, 96))]
    assert areas == sorted(areas, reverse=True)
    assert areas[0] == 128 * 96


def test_progress_counts_the_tiles() -> None:
    steps: list[tuple[int, int]] = []
    decode_tiled(latents(40, 24), tile_plan(40, 24, 20, 8), blurred, lambda *step: steps.append(step))
    assert steps == [(i, 6) for i in range(1, 7)]


def test_constant_tiles_stay_constant() -> None:
    picture = decode_tiled(latents(61, 47), tile_plan(61, 47, 23, 15), constant)
    assert picture.shape == (1, 3, 61 * SCALE, 47 * SCALE)
    assert np.abs(picture - 0.7).max() < 1e-6


def test_a_single_tile_is_left_as_it_is() -> None:
    z = latents(20, 30)
    assert np.array_equal(decode_tiled(z, tile_plan(20, 30, 30), blurred), blurred(z))


def test_a_decoder_that_looks_only_near_is_tiled_without_seams() -> None:
    """Its tiles are wrong within 3 latent pixels of their edges, where blending gives them little weight."""
    z = latents(80, 48)
    whole = blurred(z)
    errors = [relative_error(decode_tiled(z, tile_plan(80, 48, 40, o), blurred), whole) for o in (0, 8, OVERLAP)]
    assert errors[0] > 0.1
    assert errors[1] < errors[0] / 5
    assert errors[2] < errors[0] / 50


def test_tiled_and_untiled_decodes_agree() -> None:
    """The decoder's group norms and attention see only the tile. Of a picture between -3.6 and 3.6 (deviation 0.55)
    in tiles of 17 latent pixels, the largest difference is 0.24 and the root of the mean square 0.031."""
    arrays = g.random_weights(g.decoder_shapes(16, (32, 32, 32, 32)))
    for name in arrays:
        if name.endswith(("conv2.weight", "proj_out.weight")):
            arrays[name] *= 0.25  # after training, a residual branch adds little to what passes it by
    source = ArraySource(arrays)
    cfg, reference = VaeConfig.from_weights(Weights(source)), ReferenceExecutor()

    def decode(z: np.ndarray) -> np.ndarray:
        graph = record_decoder(Weights(source), cfg, z.shape[2], z.shape[3])
        program = reference.compile(graph, reference.load((graph,), source), CompileOptions())
        return program.run({"latents": z})["image"]

    z = latents(24, 24)
    whole = decode(z)
    difference = decode_tiled(z, tile_plan(24, 24, 20), decode) - whole
    assert np.abs(difference).max() < 0.3
    assert np.sqrt((difference**2).mean()) < 0.04


@settings(deadline=None)
@given(SIZES, SIZES, st.integers(8, 60), st.sampled_from([1, 2, 4]))
def test_tiles_of_pictures_divide_by_what_the_upscaler_folds(height: int, width: int, tile: int, multiple: int) -> None:
    plan = upscale_plan(height, width, tile, multiple)
    assert len({(t.height, t.width) for t in plan}) == 1
    assert plan[0].height % multiple == plan[0].width % multiple == 0
    assert max(plan[0].height, plan[0].width) <= max(tile, multiple)
    assert 0 <= plan[-1].rows.stop - height < multiple and 0 <= plan[-1].columns.stop - width < multiple


@settings(deadline=None)
@given(SIZES, SIZES, st.integers(8, 60), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 3]))
def test_upscaling_in_tiles_is_upscaling(height: int, width: int, tile: int, multiple: int, scale: int) -> None:
    """Pixels are repeated, so that neither tiles nor their blending nor what is beyond the edges may show."""
    image = np.random.RandomState(height).randint(0, 256, (height, width, 3)).astype(np.uint8)
    got = upscale_tiled(image, upscale_plan(height, width, tile, multiple), scale, repeated(scale))
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, image.repeat(scale, 0).repeat(scale, 1))


def test_what_passes_black_and_white_is_clipped() -> None:
    image = np.array([[[0, 100, 200]]], np.uint8)
    brighter = upscale_tiled(image, upscale_plan(1, 1, 8), 1, lambda x: 2 * x - 0.5)
    assert brighter.tolist() == [[[0, 72, 255]]]


def test_upscaling_holds_one_row_of_tiles_beside_the_result() -> None:
    image = np.zeros((512, 512, 3), np.uint8)
    plan = upscale_plan(512, 512, 64)
    tracemalloc.start()
    result = upscale_tiled(image, plan, 4, repeated(4))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    row_of_tiles, tile = 3 * 4 * 4 * 64 * 4 * 512, 3 * 4 * (4 * 64) ** 2
    assert result.nbytes < peak < result.nbytes + row_of_tiles + 6 * tile


def test_a_tile_without_numbers_is_an_error_that_says_where() -> None:
    def spoiled(x: np.ndarray) -> np.ndarray:
        return np.where(x == 1, np.nan, x)

    image = np.zeros((40, 60, 3), np.uint8)
    image[39, 5] = 255
    with pytest.raises(ExecutorError, match="the 32x32 pixels at 0, 8; use smaller tiles"):
        upscale_tiled(image, upscale_plan(40, 60, 32), 1, spoiled)


def test_progress_counts_the_tiles_of_a_picture() -> None:
    steps: list[tuple[int, int]] = []
    plan = upscale_plan(40, 60, 32)
    upscale_tiled(np.zeros((40, 60, 3), np.uint8), plan, 1, repeated(1), lambda *step: steps.append(step))
    assert steps == [(i, len(plan)) for i in range(1, len(plan) + 1)]


def repeated(scale: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: x.repeat(scale, 2).repeat(scale, 3)


def latents(height: int, width: int) -> np.ndarray:
    return np.random.RandomState(height).standard_normal((1, 16, height, width)).astype(np.float32)


def constant(z: np.ndarray) -> np.ndarray:
    return np.full((1, 3, z.shape[2] * SCALE, z.shape[3] * SCALE), 0.7, np.float32)


def blurred(z: np.ndarray) -> np.ndarray:
    """Three channels, each pixel the mean of 7x7 latent pixels, with zeros around as convolutions have them."""
    padded = np.pad(z[:, :3], ((0, 0), (0, 0), (3, 3), (3, 3)))
    means: np.ndarray = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), axis=(2, 3)).mean((4, 5))
    return means.repeat(SCALE, 2).repeat(SCALE, 3)
