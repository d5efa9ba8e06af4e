"""Weights are used where they lie where that can be, and else held in the format the device computes with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from executors_present import EXECUTORS
from relight.errors import ModelFileError
from relight.executors.base import CompileOptions
from relight.executors.ggml import GgmlExecutor
from relight.executors.ggml.api import F16, F32, ffi
from relight.executors.ggml.weights import GgmlWeights
from relight.executors.reference import ReferenceExecutor
from relight.graph import Graph, Tensor, Weights, input_tensor, ops
from relight.weights.checkpoint import StoredTensor
from stored import ArraySource, stored

Q8_0 = 8
random = np.random.default_rng(6)


def array(*shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def fresh(name: str) -> GgmlExecutor:
    EXECUTORS[name]()
    return GgmlExecutor(name)


@pytest.fixture(params=["ggml-cpu", "vulkan0"])
def executor(request: pytest.FixtureRequest) -> GgmlExecutor:
    return fresh(request.param)


def layer(source: ArraySource, choose: Callable[[Weights], Weights] = lambda w: w) -> Graph:
    w = choose(Weights(source) / "l")
    return Graph({"y": ops.linear(input_tensor("x", (11, w["weight"].shape[1])), w)})


def address(tensor: object) -> int:
    return int(ffi.cast("uintptr_t", tensor.data))  # type: ignore[attr-defined]


def tensor_of(weights: GgmlWeights, graph: Graph, name: str) -> object:
    (leaf,) = (leaf for leaf in graph.weights if leaf.name == name)
    return weights.tensors[leaf.attrs["key"]]


def contents(executor: GgmlExecutor, tensor: object) -> np.ndarray:
    raw = np.empty(int(executor.base.ggml_nbytes(tensor)), np.uint8)
    executor.base.ggml_backend_tensor_get(tensor, ffi.from_buffer(raw), 0, raw.nbytes)
    return raw


@pytest.mark.parametrize("offset", [0, 1, 34])
def test_the_cpu_uses_whole_weights_where_they_lie(offset: int) -> None:
    """Wherever a file puts them: nothing is copied, and nothing counted."""
    executor, source = fresh("ggml-cpu"), ArraySource({"l.weight": array(33, 64)}, "Q8_0")
    raw = source["l.weight"].parts[0]
    moved = np.zeros(raw.size + 64, np.uint8)[offset:][: raw.size]
    moved[:] = raw
    source["l.weight"] = StoredTensor("l.weight", (33, 64), "Q8_0", (moved,))
    graph = layer(source)
    weights = executor.load((graph,), source)
    assert address(tensor_of(weights, graph, "l.weight")) == moved.ctypes.data
    assert weights.nbytes == executor.limit.used == 0
    program = executor.compile(graph, weights, CompileOptions())
    x = array(11, 64)
    np.testing.assert_allclose(program.run({"x": x})["y"], x @ defined(graph, source).T, atol=0.3)
    program.close()
    weights.close()


def defined(graph: Graph, source: ArraySource) -> np.ndarray:
    """The matrix of a layer, by the reference."""
    return next(iter(ReferenceExecutor().load((graph,), source).arrays.values()))


def test_a_gpu_holds_the_bytes_of_the_file() -> None:
    executor, source = fresh("vulkan0"), ArraySource({"l.weight": array(33, 64)}, "Q8_0")
    graph = layer(source)
    weights = executor.load((graph,), source)
    tensor = tensor_of(weights, graph, "l.weight")
    assert tensor.type == Q8_0  # type: ignore[attr-defined]
    np.testing.assert_array_equal(contents(executor, tensor), source["l.weight"].parts[0])
    assert executor.limit.used == weights.nbytes >= source["l.weight"].nbytes
    weights.close()


REORDERED = np.arange(32).reshape(2, 16).T.reshape(-1)


@pytest.mark.parametrize(
    ("choose", "rows", "columns"),
    [
        (lambda w: w.rows(3, 19), slice(3, 19), slice(None)),
        (lambda w: w.rows(REORDERED), REORDERED, slice(None)),
        (lambda w: w.columns(32, 64), slice(None), slice(1, 2)),
        (lambda w: w.rows(REORDERED).columns(0, 64), REORDERED, slice(0, 2)),
    ],
)
def test_parts_are_copied_in_whole_blocks(
    executor: GgmlExecutor, choose: Callable[[Weights], Weights], rows: slice | np.ndarray, columns: slice
) -> None:
    source = ArraySource({"l.weight": array(33, 96)}, "Q8_0")
    graph = layer(source, choose)
    weights = executor.load((graph,), source)
    blocks = source["l.weight"].parts[0].reshape(33, 3, 34)
    tensor = tensor_of(weights, graph, "l.weight")
    np.testing.assert_array_equal(contents(executor, tensor), blocks[rows][:, columns].reshape(-1))
    assert weights.nbytes > 0
    weights.close()


def test_vectors_become_float32(executor: GgmlExecutor) -> None:
    source, scale = ArraySource({"scale": array(64)}), array(64)
    source["scale"] = stored_as_bf16("scale", scale)
    graph = Graph({"y": input_tensor("x", (11, 64)) * Weights(source)["scale"]})
    weights = executor.load((graph,), source)
    tensor = tensor_of(weights, graph, "scale")
    assert tensor.type == F32  # type: ignore[attr-defined]
    np.testing.assert_allclose(contents(executor, tensor).view(np.float32), scale, rtol=2**-7)
    weights.close()


def stored_as_bf16(name: str, values: np.ndarray) -> StoredTensor:
    raw = (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    return StoredTensor(name, values.shape, "BF16", (raw,))


CODES = {0x38: 1.0, 0x40: 2.0, 0xC4: -3.0, 0x7E: 448.0, 0x01: 2.0**-9, 0x00: 0.0}
"""Bytes of float8 e4m3fn and what they mean."""


def test_fp8_matrices_become_f16_with_their_scale_applied_once(executor: GgmlExecutor) -> None:
    codes = np.tile(np.array(list(CODES), np.uint8), (5, 8))
    source = ArraySource({"l.weight": np.zeros((5, 48), np.float32)})
    source["l.weight"] = StoredTensor("l.weight", (5, 48), "F8_E4M3", (codes.reshape(-1),), scale=0.25)
    graph = layer(source)
    weights = executor.load((graph,), source)
    tensor = tensor_of(weights, graph, "l.weight")
    assert tensor.type == F16  # type: ignore[attr-defined]
    expected = np.tile(np.array(list(CODES.values()), np.float32) * 0.25, (5, 8))
    np.testing.assert_array_equal(contents(executor, tensor).view(np.float16).reshape(5, 48), expected)
    np.testing.assert_array_equal(defined(graph, source), expected)
    weights.close()


def test_kernels_are_f16_or_f32(executor: GgmlExecutor) -> None:
    kernel = array(4, 3, 3, 3)
    for form, held in (("F32", F32), ("F16", F16), ("BF16", F16)):
        source = ArraySource({"c.weight": kernel}, form)
        graph = Graph({"y": ops.conv2d(input_tensor("x", (1, 3, 9, 7)), Weights(source) / "c")})
        weights = executor.load((graph,), source)
        assert tensor_of(weights, graph, "c.weight").type == held  # type: ignore[attr-defined]
        weights.close()


def test_a_weight_of_two_graphs_is_held_once(executor: GgmlExecutor) -> None:
    source = ArraySource({"l.weight": array(32, 64), "l.bias": array(32)})
    graphs = layer(source, lambda w: w.rows(0, 8)), layer(source, lambda w: w.rows(0, 8))
    weights = executor.load(graphs, source)
    assert len(weights.tensors) == 2
    weights.close()


def test_progress_ends_at_the_whole(executor: GgmlExecutor) -> None:
    source = ArraySource({"l.weight": array(64, 64), "l.bias": array(64)})
    graph = layer(source, lambda w: w.rows(np.arange(64)[::-1].copy()))
    seen: list[tuple[int, int]] = []
    weights = executor.load((graph,), source, lambda done, total: seen.append((done, total)))
    assert [total for _, total in seen] == [4 * 65 * 64] * len(seen)
    assert seen[-1][0] == 4 * 65 * 64
    assert seen == sorted(seen)
    weights.close()


def test_a_short_weight_is_refused_by_name_and_nothing_is_kept(executor: GgmlExecutor) -> None:
    """A source that promises more than it has; no file gets this far."""
    whole = ArraySource({"l.weight": array(64, 64)})
    graph = layer(whole, lambda w: w.rows(np.arange(64)[::-1].copy()))
    half = ArraySource({"l.weight": array(64, 32)})
    with pytest.raises(ModelFileError, match=r"l\.weight: 8192 bytes in the file, 16384 needed"):
        executor.load((graph,), half)
    assert executor.limit.used == 0


def test_a_load_that_fails_keeps_nothing(executor: GgmlExecutor) -> None:
    source = ArraySource({"l.weight": array(64, 64), "l.bias": array(64)})

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    reversed_rows = layer(source, lambda w: w.rows(np.arange(64)[::-1].copy()))
    with pytest.raises(KeyboardInterrupt):
        executor.load((reversed_rows,), source, interrupt)
    assert executor.limit.used == 0


def test_a_large_input_survives_f16_weights() -> None:
    """ggml's CPU code turns the input of an F16 product into F16; `wide_range` keeps it below its end."""
    executor, source = fresh("ggml-cpu"), ArraySource({"l.weight": np.full((4, 64), 2.0**-10, np.float32)}, "F16")

    def result(wide_range: bool) -> Tensor:
        return ops.linear(input_tensor("x", (11, 64)), Weights(source) / "l", wide_range=wide_range)

    for wide_range, finite in ((True, True), (False, False)):
        graph = Graph({"y": result(wide_range)})
        weights = executor.load((graph,), source)
        program = executor.compile(graph, weights, CompileOptions())
        y = program.run({"x": np.full((11, 64), 1e5, np.float32)})["y"]
        assert np.isfinite(y).all() == finite
        program.close()
        weights.close()


def test_an_array_stored_as_bf16_reads_back() -> None:
    """The encoding used above against ggml's own."""
    values = array(3, 64)
    by_ggml = stored("m", values, "BF16").parts[0].view(np.uint16).astype(np.int64)
    by_hand = stored_as_bf16("m", values).parts[0].view(np.uint16).astype(np.int64).reshape(-1)
    assert np.abs(by_ggml - by_hand).max() <= 1  # one rounds, one cuts
