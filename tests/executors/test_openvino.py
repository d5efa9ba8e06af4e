"""What OpenVINO does beyond the common operations: precisions, forms of weights, cutting, the cache, memory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openvino", reason="no executor openvino: the package openvino is missing")

import psutil

from golden import weights
from relight.errors import OutOfDeviceMemory, UnsupportedOp
from relight.executors.base import CompileOptions
from relight.executors.openvino import OpenvinoExecutor, cpu_has_bf16, device
from relight.executors.openvino.cache import ModelCache
from relight.executors.openvino.forms import Use, pack, uses
from relight.executors.openvino.program import OpenvinoProgram
from relight.executors.openvino.segments import cut
from relight.executors.openvino.weights import OpenvinoWeights
from relight.executors.reference import ReferenceExecutor
from relight.graph import Graph, Weights, input_tensor, ops
from relight.models import t5, vae
from relight.weights.checkpoint import StoredTensor
from running import relative_error
from stored import ArraySource

random = np.random.default_rng(11)

BOUNDS = {"f32": 1e-5, "bf16": 5e-3, "int8": 1e-2, "int4": 0.12}
"""Relative error of a matrix product of normal numbers. int4 has 16 levels for the range of 32 weights."""


def array(*shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def options(precision: Any = "f32", **others: Any) -> CompileOptions:
    if precision == "bf16" and not cpu_has_bf16():
        pytest.skip("precision bf16 on openvino: this CPU has neither AVX512_BF16 nor AMX")
    return CompileOptions(precision=precision, **others)


def product(source: ArraySource, inner: int = 256) -> Graph:
    return Graph({"y": ops.linear(input_tensor("x", (7, inner)), Weights(source) / "l")})


def layer(out: int = 96, inner: int = 256, form: str = "F32") -> ArraySource:
    return ArraySource({"l.weight": array(out, inner), "l.bias": array(out)}, form)


def run(executor: Any, graph: Graph, source: Any, inputs: dict[str, np.ndarray], chosen: CompileOptions) -> np.ndarray:
    weights = executor.load((graph,), source)
    program = executor.compile(graph, weights, chosen)
    try:
        return np.asarray(program.run(inputs)["y"])
    finally:
        program.close()
        weights.close()


def error(graph: Graph, source: Any, inputs: dict[str, np.ndarray], chosen: CompileOptions) -> float:
    expected = run(ReferenceExecutor(), graph, source, inputs, chosen)
    return relative_error(run(OpenvinoExecutor(), graph, source, inputs, chosen), expected)


@pytest.fixture
def compiled() -> Iterator[Any]:
    """Compiles with given options; keeps weights and program open to be looked into until the test ends."""
    opened: list[Any] = []

    def compile_it(
        graph: Graph, source: Any, chosen: CompileOptions, executor: OpenvinoExecutor | None = None
    ) -> tuple[OpenvinoProgram, OpenvinoWeights]:
        executor = executor or OpenvinoExecutor()
        weights = executor.load((graph,), source)
        program = executor.compile(graph, weights, chosen)
        opened.extend((program, weights))
        return program, weights

    yield compile_it
    for item in opened:
        item.close()


def layers_at_run_time(program: OpenvinoProgram) -> Counter[tuple[str, str]]:
    """Kinds of layers that OpenVINO really runs, with their precision."""
    model = program.steps[0].request.get_compiled_model().get_runtime_model()
    facts = [node.get_rt_info() for node in model.get_ops()]
    return Counter((fact["layerType"].astype(str), fact["runtimePrecision"].astype(str)) for fact in facts)


# Precision


@pytest.mark.parametrize("precision", BOUNDS)
def test_products_are_within_the_bound_of_their_precision(precision: str) -> None:
    source = layer()
    assert error(product(source), source, {"x": array(7, 256)}, options(precision)) < BOUNDS[precision]


def test_q8_0_keeps_its_values_in_int8() -> None:
    source = layer(form="Q8_0")
    (use,) = uses_of(product(source), "auto", "matrix")
    codes, scales = pack(use, source["l.weight"], 1)
    blocks = source["l.weight"].parts[0].reshape(-1, 34)
    np.testing.assert_array_equal(codes.reshape(-1, 32), blocks[:, 2:].view(np.int8))
    np.testing.assert_allclose(scales.reshape(-1), blocks[:, :2].copy().view(np.float16).reshape(-1), rtol=1e-3)


def test_quantised_files_stay_in_8_bits_unless_told_otherwise() -> None:
    source = layer(form="Q4_K")
    forms = {precision: uses_of(product(source), precision, "matrix")[0].form for precision in ("auto", "f32", "int4")}
    assert forms == {"auto": "int8", "f32": "F32", "int4": "int4"}


@pytest.mark.parametrize(("precision", "element"), [("int8", "i8"), ("int4", "u8")])
def test_packed_weights_are_unpacked_at_run_time_and_not_before(compiled: Any, precision: str, element: str) -> None:
    program, weights = compiled(product(layer_source := layer()), layer_source, options(precision))
    layers = layers_at_run_time(program)
    assert layers["Input", element] == 1, "the codes are an input of the model"
    assert layers["Subgraph", element] == 1, "and go through one fused pass"
    assert layers["MatMul", "bf16" if cpu_has_bf16() else "f32"] == 1
    assert not layers["Convert", element], "OpenVINO's own conversion is twenty times as slow"
    packed = {"i8": 96 * 256 + 96 * 8 * 2, "u8": 96 * 128 + 96 * 8 * 4}[element]
    assert weights.nbytes == packed + 4 * 96


def test_bf16_is_refused_where_the_cpu_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: False)
    source = layer()
    with pytest.raises(UnsupportedOp, match="AVX512_BF16 or AMX.*f32, int8 and int4 run"):
        run(OpenvinoExecutor(), product(source), source, {}, CompileOptions(precision="bf16"))
    assert run(OpenvinoExecutor(), product(source), source, {"x": array(7, 256)}, CompileOptions()).dtype == np.float32


@pytest.mark.parametrize(("precision", "bound"), [("f32", 1e-5), ("bf16", 1e-2), ("int8", 2e-2)])
def test_six_blocks_of_t5_stay_within_a_bound(precision: str, bound: float) -> None:
    graph, source, inputs = small_t5()
    assert error(graph, source, inputs, options(precision)) < bound


def test_a_decoder_in_bf16_stays_within_a_bound() -> None:
    source = ArraySource(weights.random_weights(weights.vae_shapes(16, quant_convs=False)))
    config = vae.VaeConfig.from_weights(Weights(source))
    graph = Graph({"y": vae.record_decoder(Weights(source), config, 6, 5).outputs["image"]})
    assert error(graph, source, {"latents": array(1, 16, 6, 5)}, options("bf16")) < 4e-2


def test_angles_are_exact_in_bf16() -> None:
    """Positions in the thousands would be off by whole turns if bfloat16 held them."""
    x, positions = input_tensor("x", (1, 9, 1, 64)), input_tensor("p", (2, 9), "i32")
    moved = positions.narrow(0, 1, 1)
    graph = Graph({"y": ops.rope(x, moved, sections=(32,), theta=10000.0)})
    inputs = {"x": array(1, 9, 1, 64), "p": np.stack([np.zeros(9), 4000 + np.arange(9)]).astype(np.int32)}
    assert error(graph, ArraySource({}), inputs, options("bf16")) < 1e-5


def test_positions_from_weights_are_refused_before_the_run() -> None:
    source = ArraySource({"t": array(3)})
    graph = Graph({"y": ops.timestep_embedding(input_tensor("x", (3,)) * Weights(source)["t"], 8)})
    (node,) = (node for node in graph.nodes if node.op == "timestep_embedding")
    reason = OpenvinoExecutor().why_not(node)
    assert reason is not None and "depends on t" in reason
    with pytest.raises(UnsupportedOp, match="depends on t"):
        run(OpenvinoExecutor(), graph, source, {}, options())


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_attention_in_chunks_equals_the_fused_kernel(precision: str) -> None:
    q, k = input_tensor("q", (1, 37, 2, 64)), input_tensor("k", (1, 53, 2, 64))
    graph = Graph({"y": ops.attention(q, k, k * 0.5, bias=input_tensor("b", (2, 37, 53)))})
    inputs = {"q": array(1, 37, 2, 64), "k": array(1, 53, 2, 64), "b": array(2, 37, 53)}
    for how in ("flash", "chunked"):
        bound = 1e-5 if precision == "f32" else 1e-2
        assert error(graph, ArraySource({}), inputs, options(precision, attention=how, scores_bytes=5000)) < bound


def test_long_wide_heads_go_in_chunks_in_bf16(compiled: Any) -> None:
    q, k = input_tensor("q", (1, 8, 1, 512)), input_tensor("k", (1, 4200, 1, 512))
    graph = Graph({"y": ops.attention(q, k, k)})
    chunked, _ = compiled(graph, ArraySource({}), options("bf16"))
    fused, _ = compiled(graph, ArraySource({}), options("f32"))
    assert layers_at_run_time(chunked)["MatMul", "bf16"] == 2
    assert layers_at_run_time(fused)["MatMul", "f32"] == 0


# Weights


def uses_of(graph: Graph, precision: Any, role: str) -> list[Use]:
    return [use for _, _, use in uses(graph, precision) if use.role == role]


@pytest.mark.parametrize("form", ["F32", "F16", "BF16"])
def test_floating_point_files_are_read_where_they_lie(compiled: Any, form: str) -> None:
    source = layer(form=form)
    program, _ = compiled(product(source), source, options())
    part = source["l.weight"].parts[0]
    addresses = [tensor.data.ctypes.data for tensor in program.steps[0].weights.values()]
    assert part.ctypes.data in addresses


def test_weights_at_odd_addresses_of_a_read_only_map_give_the_same(tmp_path: Path) -> None:
    weight = array(33, 64).astype(np.float16)
    path = tmp_path / "odd.bin"
    path.write_bytes(b"?" * 6 + weight.tobytes())
    mapped = np.memmap(path, np.uint8, "r")
    source = ArraySource({})
    source["l.weight"] = StoredTensor("l.weight", weight.shape, "F16", (mapped[6:],), path=path)
    assert error(product(source, 64), source, {"x": array(7, 64)}, options()) < 1e-5


def test_a_run_of_rows_is_a_view_and_other_selections_a_copy() -> None:
    source = layer()
    stored = source["l.weight"]
    for rows, shared in ((np.arange(8, 40), True), (np.arange(40)[::-1], False)):
        leaf = (Weights(source) / "l").rows(rows.copy())["weight"]
        (taken,) = pack(Use(leaf, "matrix", "F32"), stored, 1)
        assert np.shares_memory(taken, stored.parts[0]) == shared
        np.testing.assert_array_equal(taken, stored.parts[0].view(np.float32).reshape(96, 256)[rows])


@pytest.mark.parametrize("precision", BOUNDS)
def test_selected_rows_and_columns(precision: str) -> None:
    source = layer(96, 384)
    selected = (Weights(source) / "l").rows(np.arange(96).reshape(2, 48).T.reshape(-1)).columns(64, 320)
    graph = Graph({"y": ops.linear(input_tensor("x", (7, 256)), selected)})
    assert error(graph, source, {"x": array(7, 256)}, options(precision)) < BOUNDS[precision]


def test_scaled_fp8_is_read_with_its_scale() -> None:
    codes = random.integers(0, 120, (40, 64), dtype=np.uint8)
    source = ArraySource({})
    source["l.weight"] = StoredTensor("l.weight", codes.shape, "F8_E4M3", (codes.reshape(-1),), scale=0.37)
    for precision in ("f32", "auto"):
        assert error(product(source, 64), source, {"x": array(7, 64)}, options(precision)) < 1e-2


def test_embedding_tables_take_no_memory(compiled: Any) -> None:
    source = ArraySource({"table": array(50_000, 64)}, "Q8_0")
    graph = Graph({"y": ops.embedding(input_tensor("ids", (5,), "i32"), Weights(source)["table"])})
    program, weights = compiled(graph, source, options())
    assert program.memory.weights == 0 and not weights.arrays
    inputs = {"ids": np.array([4, 49_999, 0, 4, 7], np.int32)}
    assert error(graph, source, inputs, options()) == 0


def test_programs_over_the_same_weights_pack_them_once(compiled: Any) -> None:
    source, executor = layer(), OpenvinoExecutor()
    small, large = product(source), Graph({"y": ops.linear(input_tensor("x", (20, 256)), Weights(source) / "l")})
    weights = executor.load((small, large), source)
    programs = [executor.compile(graph, weights, options("int8")) for graph in (small, large)]
    first, second = ({t.data.ctypes.data for t in program.steps[0].weights.values()} for program in programs)
    assert first == second
    for item in (*programs, weights):
        item.close()


def test_loading_reports_every_byte_once() -> None:
    source, seen = layer(), []
    graph = product(source)
    OpenvinoExecutor().load((graph, graph), source, lambda done, total: seen.append((done, total)))
    whole = 4 * (96 * 256 + 96)
    assert seen[-1] == (whole, whole) and len(seen) == 2


# Cutting


def small_t5() -> tuple[Graph, ArraySource, dict[str, np.ndarray]]:
    """Six blocks, with random weights in F16."""
    config = t5.T5Config(hidden_size=64, num_layers=6, num_heads=2, head_dim=32, mlp_size=128, vocabulary=100)
    names: dict[str, tuple[int, ...]] = {
        "shared.weight": (100, 64),
        t5.POSITION_TABLE: (32, 2),
        "encoder.final_layer_norm.weight": (64,),
    }
    for i in range(6):
        block = f"encoder.block.{i}.layer"
        names |= {f"{block}.0.SelfAttention.{part}.weight": (64, 64) for part in "qkvo"}
        names |= {f"{block}.{j}.layer_norm.weight": (64,) for j in (0, 1)}
        names |= {f"{block}.1.DenseReluDense.{part}.weight": (128, 64) for part in ("wi_0", "wi_1")}
        names[f"{block}.1.DenseReluDense.wo.weight"] = (64, 128)
    source = ArraySource({name: array(*shape) * np.float32(0.1) for name, shape in names.items()}, "F16")
    text = t5.record(Weights(source), config, 19)
    inputs = t5.host_inputs(config, random.integers(0, 100, 19))
    return Graph({"y": text.outputs["text"]}), source, inputs


BLOCK = 2 * (4 * 64 * 64 + 3 * 64 * 128)


def test_a_cut_graph_gives_what_the_whole_one_does(compiled: Any) -> None:
    graph, source, inputs = small_t5()
    whole, _ = compiled(graph, source, options())
    parts, _ = compiled(graph, source, options(), OpenvinoExecutor(segment_bytes=BLOCK + 1000))
    assert len(whole.steps) == 1 and len(parts.steps) == 6
    np.testing.assert_allclose(parts.run(inputs)["y"], whole.run(inputs)["y"], rtol=1e-5, atol=1e-6)


def test_equal_blocks_are_compiled_once(compiled: Any) -> None:
    graph, source, _ = small_t5()
    program, _ = compiled(graph, source, options(), OpenvinoExecutor(segment_bytes=BLOCK + 1000))
    assert len({id(step.request) for step in program.steps}) == 3, "first, middle and last"


def test_cuts_fall_where_little_crosses() -> None:
    graph, *_ = small_t5()
    sizes = {node.serial: 2 * sum(s.size for s in node.inputs if s.op == "weight") for node in graph.nodes}
    segments = cut(graph, sizes, BLOCK + 1000)
    for segment in segments[1:]:
        assert len(segment.takes) <= 2, "the residual stream and the position bias"
    nodes = [node for segment in segments for node in segment.nodes]
    assert nodes == [node for node in graph.nodes if node.op not in ("input", "weight")]
    assert all(sum(sizes[node.serial] for node in segment.nodes) <= BLOCK + 1000 for segment in segments)


def test_a_weight_over_the_limit_is_a_segment_of_its_own() -> None:
    graph, *_ = small_t5()
    sizes = {node.serial: 1000 for node in graph.nodes if node.op == "linear"}
    segments = cut(graph, sizes, 10)
    assert max(sum(node.op == "linear" for node in segment.nodes) for segment in segments) == 1


# Cache


@pytest.fixture
def convolution(tmp_path: Path) -> tuple[Graph, ArraySource, dict[str, np.ndarray], Path]:
    """A convolution whose kernel lies in a file."""
    kernel, path = array(32, 16, 3, 3), tmp_path / "kernel.bin"
    path.write_bytes(kernel.tobytes())
    source = ArraySource({})
    part = np.memmap(path, np.uint8, "r")
    source["c.weight"] = StoredTensor("c.weight", kernel.shape, "F32", (part,), path=path)
    graph = Graph({"y": ops.conv2d(input_tensor("x", (1, 16, 9, 7)), Weights(source) / "c", padding=1)})
    return graph, source, {"x": array(1, 16, 9, 7)}, path


def test_a_compiled_model_is_taken_from_disk(convolution: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, source, inputs, _ = convolution
    first = run(OpenvinoExecutor(cache_dir=tmp_path / "cache"), graph, source, inputs, options())
    (blob,) = (tmp_path / "cache").iterdir()
    assert blob.stat().st_size > 4 * 32 * 16 * 9, "the constants are in it"
    monkeypatch.setattr("relight.executors.openvino.model.SegmentModel.build", None)  # nothing is built again
    second = run(OpenvinoExecutor(cache_dir=tmp_path / "cache"), graph, source, inputs, options())
    np.testing.assert_array_equal(first, second)


def test_a_changed_file_or_precision_is_compiled_again(convolution: Any, tmp_path: Path) -> None:
    graph, source, inputs, path = convolution
    executor = OpenvinoExecutor(cache_dir=tmp_path / "cache")
    for chosen in ("f32", "bf16" if cpu_has_bf16() else "f32"):
        run(executor, graph, source, inputs, options(chosen))
    before = len(list((tmp_path / "cache").iterdir()))
    assert before == (2 if cpu_has_bf16() else 1)
    path.touch()
    run(executor, graph, source, inputs, options())
    assert len(list((tmp_path / "cache").iterdir())) == before + 1


@pytest.mark.parametrize("damage", [lambda blob: blob[:-100], lambda blob: b"x" * len(blob)])
def test_a_damaged_blob_is_replaced(convolution: Any, tmp_path: Path, damage: Any) -> None:
    graph, source, inputs, _ = convolution
    executor = OpenvinoExecutor(cache_dir=tmp_path / "cache")
    first = run(executor, graph, source, inputs, options())
    (blob,) = (tmp_path / "cache").iterdir()
    whole = blob.read_bytes()
    blob.write_bytes(damage(whole))
    np.testing.assert_array_equal(run(executor, graph, source, inputs, options()), first)
    assert [path.stat().st_size for path in (tmp_path / "cache").iterdir()] == [len(whole)]


def test_a_cache_that_cannot_be_written_is_done_without(convolution: Any, tmp_path: Path) -> None:
    graph, source, inputs, _ = convolution
    (tmp_path / "file").write_text("in the way")
    run(OpenvinoExecutor(cache_dir=tmp_path / "file"), graph, source, inputs, options())


def test_the_oldest_models_make_room(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path / "cache", limit_bytes=250)
    for key in ("a", "b"):
        cache.store(key, memoryview(bytes(100)))
    found = cache.find("a")
    assert found is not None
    os.utime(tmp_path / "cache" / "b-100.blob", (1, 1))
    cache.store("c", memoryview(bytes(100)))
    cache.store("d", memoryview(bytes(126)))  # over half the limit: would drive out all others
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["a-100.blob", "c-100.blob"]


def test_networks_without_convolutions_leave_no_file(tmp_path: Path) -> None:
    source = layer()
    run(OpenvinoExecutor(cache_dir=tmp_path / "cache"), product(source), source, {"x": array(7, 256)}, options())
    assert not (tmp_path / "cache").exists()


# Memory


def test_too_little_memory_is_refused_with_what_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    source = layer(1024, 1024)
    need = OpenvinoExecutor().measure(product(source, 1024), options()).total
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=need - 1))
    with pytest.raises(OutOfDeviceMemory, match=r"needs 0.01 GiB .* are free; precision (bf16 .* and )?int8 would"):
        run(OpenvinoExecutor(), product(source, 1024), source, {}, options())
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(OutOfDeviceMemory, match="no precision fits: run this component elsewhere"):
        run(OpenvinoExecutor(), product(source, 1024), source, {}, options())


def test_memory_is_counted_in_the_forms_that_are_held(compiled: Any) -> None:
    source = layer(form="F16")
    for precision, size in (("f32", 2 * 96 * 256), ("int8", 96 * 256 + 2 * 96 * 8), ("int4", 96 * 128 + 4 * 96 * 8)):
        program, weights = compiled(product(source), source, options(precision))
        assert program.memory.weights == weights.nbytes == size + 4 * 96


def test_only_copies_count_as_already_held(compiled: Any) -> None:
    source = layer()
    source["l.weight"].parts[0].flags.writeable = source["l.bias"].parts[0].flags.writeable = False
    assert compiled(product(source), source, options())[1].private_nbytes == 0
    assert compiled(product(source), source, options("int8"))[1].private_nbytes == 96 * 256 + 2 * 96 * 8
