"""Parts of stored weights: exactly the bytes that were asked for, never much more in memory than one piece."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from relight.errors import UnsupportedOp
from relight.executors.leaves import held_format, held_pieces, leaf_float32, leaf_nbytes, leaf_pieces, roles
from relight.graph import Graph, Tensor, Weights, input_tensor, ops
from relight.weights.checkpoint import StoredTensor
from stored import ArraySource

random = np.random.default_rng(8)


def in_parts(array: np.ndarray, *cuts: int) -> StoredTensor:
    """Float32 rows in several parts, as a matrix joined from several tensors of a file has them."""
    parts = tuple(part.reshape(-1).view(np.uint8) for part in np.split(array, cuts))
    return StoredTensor("m", array.shape, "F32", parts)


def leaf(stored: StoredTensor, choose: Callable[[Weights], Weights] = lambda w: w) -> Tensor:
    source = ArraySource({})
    source["m"] = stored
    return choose(Weights(source))["m"]


MATRIX = random.standard_normal((20, 8)).astype(np.float32)
ORDER = np.array([19, 0, 7, 6, 5, 12, 12, 1])
CHOICES: dict[str, tuple[Callable[[Weights], Weights], np.ndarray]] = {
    "whole": (lambda w: w, MATRIX),
    "rows together": (lambda w: w.rows(3, 15), MATRIX[3:15]),
    "rows in another order": (lambda w: w.rows(ORDER), MATRIX[ORDER]),
    "columns": (lambda w: w.columns(2, 7), MATRIX[:, 2:7]),
    "rows and columns": (lambda w: w.rows(ORDER).columns(2, 7), MATRIX[ORDER, 2:7]),
}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("cuts", [(), (5, 12)])
@pytest.mark.parametrize("piece_bytes", [1, 100, 1 << 20])
def test_pieces_are_the_chosen_part_in_order(choice: str, cuts: tuple[int, ...], piece_bytes: int) -> None:
    choose, expected = CHOICES[choice]
    stored = in_parts(MATRIX, *cuts)
    chosen = leaf(stored, choose)
    joined = np.concatenate(list(leaf_pieces(chosen, stored, piece_bytes)))
    np.testing.assert_array_equal(joined.view(np.float32).reshape(expected.shape), expected)
    np.testing.assert_array_equal(leaf_float32(chosen, stored), expected)
    assert leaf_nbytes(chosen, "F32") == joined.size


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("cuts", [(), (5, 12)])
@pytest.mark.parametrize("piece_bytes", [1, 100, 1 << 20])
def test_converted_pieces_are_the_chosen_part_scaled(choice: str, cuts: tuple[int, ...], piece_bytes: int) -> None:
    choose, expected = CHOICES[choice]
    stored = in_parts(MATRIX, *cuts)
    stored = StoredTensor("m", stored.shape, "F32", stored.parts, scale=0.5)
    joined = np.concatenate(list(held_pieces(leaf(stored, choose), stored, "F16", piece_bytes)))
    half = (0.5 * expected).astype(np.float16)
    np.testing.assert_array_equal(joined.view(np.float16).reshape(half.shape), half)


def test_whole_pieces_are_views_of_the_file() -> None:
    stored = in_parts(MATRIX)
    for choose in (lambda w: w, lambda w: w.rows(3, 15)):
        pieces = list(leaf_pieces(leaf(stored, choose), stored, 100))
        assert len(pieces) > 1
        assert all(np.shares_memory(piece, stored.parts[0]) for piece in pieces)


@pytest.mark.parametrize("choose", [lambda w: w, lambda w: w.rows(np.arange(4096)[::-1].copy())])
def test_a_large_matrix_is_converted_a_piece_at_a_time(choose: Callable[[Weights], Weights]) -> None:
    """32 MiB of fp8 is 128 MiB of float32, and at no time are more than a few of its pieces of 1 MiB there."""
    stored = StoredTensor("m", (4096, 8192), "F8_E4M3", (np.full(32 << 20, 0x38, np.uint8),), scale=2.0)
    chosen = leaf(stored, choose)
    tracemalloc.start()
    total = sum(piece.size for piece in held_pieces(chosen, stored, "F16", 1 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 64 << 20
    assert peak < 8 << 20


def test_columns_of_a_kernel_are_whole_kernels() -> None:
    kernel = random.standard_normal((6, 4, 3, 3)).astype(np.float32)
    stored = in_parts(kernel)
    chosen = leaf(stored, lambda w: w.columns(1, 3))
    joined = np.concatenate(list(leaf_pieces(chosen, stored)))
    np.testing.assert_array_equal(joined.view(np.float32).reshape(6, 2, 3, 3), kernel[:, 1:3])


def test_a_scalar_is_one_value() -> None:
    stored = StoredTensor("m", (), "F16", (np.array(3, np.float16).reshape(1).view(np.uint8),))
    assert np.concatenate(list(held_pieces(leaf(stored), stored, "F32"))).view(np.float32).tolist() == [3.0]


def test_columns_that_cut_a_block_are_refused() -> None:
    source = ArraySource({"m": np.ones((4, 96), np.float32)}, "Q8_0")
    chosen = Weights(source).columns(16, 64)["m"]
    with pytest.raises(UnsupportedOp, match=r"m: columns 16 to 64 cut a Q8_0 block of 32"):
        list(leaf_pieces(chosen, source["m"]))


def test_a_scaled_block_format_is_refused() -> None:
    whole = ArraySource({"m": np.ones((4, 96), np.float32)}, "Q8_0")["m"]
    scaled = StoredTensor("m", whole.shape, "Q8_0", whole.parts, scale=2.0)
    with pytest.raises(UnsupportedOp, match=r"m: Q8_0 with scale 2\.0 cannot be made Q8_0"):
        list(held_pieces(leaf(scaled), scaled, "Q8_0"))


@pytest.mark.parametrize(
    ("form", "matrix", "kernel", "vector"),
    [
        ("F32", "F32", "F32", "F32"),
        ("F16", "F16", "F16", "F32"),
        ("BF16", "BF16", "F16", "F32"),
        ("F8_E4M3", "F16", "F16", "F32"),
        ("Q4_K", "Q4_K", "F16", "F32"),
    ],
)
def test_the_use_of_a_weight_decides_its_format(form: str, matrix: str, kernel: str, vector: str) -> None:
    weight = Tensor("weight", (4, 256), form)
    assert [held_format(weight, role) for role in ("matrix", "kernel", "vector")] == [matrix, kernel, vector]


def test_a_weight_with_two_uses_is_refused() -> None:
    w = Weights(ArraySource({"l.weight": np.ones((8, 8), np.float32)}))
    x = input_tensor("x", (5, 8))
    graph = Graph({"y": ops.linear(x, w / "l"), "z": x + (w / "l").rows(0, 5)["weight"]})
    assert sorted(role for _, role in roles((graph,)).values()) == ["matrix", "vector"]
    with pytest.raises(UnsupportedOp, match=r"l\.weight is used both as matrix and as vector"):
        roles((graph, Graph({"y": input_tensor("x", (8, 8)) * (w / "l")["weight"]})))
