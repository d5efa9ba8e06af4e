"""Memory of programs is known before it is taken, refusals leave nothing behind, and runs are independent."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from checkpoints import arrays
from executors_present import EXECUTORS
from relight.errors import ConfigError, OutOfDeviceMemory, UnsupportedOp
from relight.executors.base import CompileOptions
from relight.executors.ggml import GgmlExecutor
from relight.executors.ggml.api import text
from relight.executors.ggml.executor import GgmlProgram
from relight.executors.reference import ReferenceExecutor
from relight.graph import Graph, Tensor, Weights, input_tensor, ops
from relight.models import flux
from stored import ArraySource

AUTO = CompileOptions()
DEVICES = ("ggml-cpu", "vulkan0")
random = np.random.default_rng(5)


def array(*shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


@pytest.fixture(params=DEVICES)
def executor(request: pytest.FixtureRequest) -> GgmlExecutor:
    return fresh(request.param)


def fresh(name: str, limit_bytes: int | None = None) -> GgmlExecutor:
    """With a count of its own; skips where the device is not there."""
    EXECUTORS[name]()
    return GgmlExecutor(name, limit_bytes=limit_bytes)


SOURCE = ArraySource(
    {"in.weight": array(96, 64) / 8, "in.bias": array(96), "out.weight": array(64, 48) / 8, "norm.scale": array(64)}
)


def network(tokens: int = 11) -> Graph:
    """Residual sums, attention and a norm: results that ggml would gladly write over their inputs."""
    w, x = Weights(SOURCE), input_tensor("x", (1, tokens, 64))
    shift = input_tensor("shift", (1, 1, 64))
    q, k = ops.linear(ops.rms_norm(x + shift, w["norm.scale"], eps=1e-6), w / "in").split([48, 48])
    heads = [part.reshape(1, tokens, 1, 48) for part in (q, k)]
    attended = ops.attention(heads[0], heads[1], heads[1]).reshape(1, tokens, 48)
    middle = x + ops.linear(ops.silu(attended), w / "out")
    return Graph({"middle": middle.reshape(tokens, 64), "y": ops.silu(middle * shift) + middle})


def inputs(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(node.shape).astype(np.float32) for name, node in network().inputs.items()}


def allocated(program: GgmlProgram) -> int:
    base = program.base
    static = base.ggml_backend_buffer_get_size(program._static_buffer)
    return int(static) + int(base.ggml_gallocr_get_buffer_size(program._allocator, 0))


def test_results_do_not_depend_on_the_runs_before(executor: GgmlExecutor) -> None:
    graph = network()
    weights, reference = executor.load((graph,), SOURCE), ReferenceExecutor()
    defined = reference.compile(graph, reference.load((graph,), SOURCE), AUTO)
    program = executor.compile(graph, weights, AUTO)
    for seed in (1, 2, 1):
        got, expected = program.run(inputs(seed)), defined.run(inputs(seed))
        for name in graph.outputs:
            np.testing.assert_allclose(got[name], expected[name], atol=5e-3)
    program.close()
    weights.close()


def test_an_output_that_is_a_view_keeps_its_memory() -> None:
    """The norm would take the place of the doubled input, which nothing but an output looks at by then."""
    executor = fresh("ggml-cpu")
    half = (input_tensor("x", (1, 11, 64)) * 2).reshape(64, 11)
    graph = Graph({"half": half, "y": ops.layer_norm(half + 1, eps=1e-6)})
    program = executor.compile(graph, executor.load((graph,), {}), AUTO)
    x = array(1, 11, 64)
    np.testing.assert_array_equal(program.run({"x": x})["half"], 2 * x.reshape(64, 11))
    program.close()


@pytest.mark.parametrize("options", [AUTO, CompileOptions(attention="flash"), CompileOptions(scores_bytes=20_000)])
def test_the_measure_is_what_is_allocated(executor: GgmlExecutor, options: CompileOptions) -> None:
    source = ArraySource(arrays("diffusion"), "Q8_0")
    w = Weights(source)
    graph = flux.record(w, flux.FluxConfig.from_weights(w), 7, 10, 14)
    weights = executor.load((graph,), source)
    measured = executor.measure(graph, options)
    program = executor.compile(graph, weights, options)
    assert allocated(program) == measured.compute == program.memory.compute
    assert executor.limit.used == weights.nbytes + measured.compute
    if executor.device.is_vulkan:  # on the CPU most weights are used where they lie
        assert weights.nbytes == measured.weights
    program.close()
    weights.close()


def test_the_measure_takes_no_memory(executor: GgmlExecutor) -> None:
    terabyte = Graph({"y": ops.silu(input_tensor("x", (1 << 20, 1 << 18)))})
    assert executor.measure(terabyte, AUTO).compute == 2 << 40
    assert executor.limit.peak == 0


BIG = ArraySource({"l.weight": np.zeros((1024, 3072), np.float32)})


def big_layer() -> Graph:
    """12 MiB of weights in another order, and as many in and a third out."""
    w = Weights(BIG).__truediv__("l").rows(np.arange(1024)[::-1].copy())
    return Graph({"y": ops.linear(input_tensor("x", (1024, 3072)), w)})


@pytest.mark.parametrize("name", DEVICES)
def test_a_limit_refuses_weights_with_numbers_and_takes_nothing(name: str) -> None:
    executor = fresh(name, limit_bytes=11 << 20)
    with pytest.raises(OutOfDeviceMemory, match=rf"weights needs 0\.01 GiB on {name}, where 0\.00 GiB of 0\.01 GiB"):
        executor.load((big_layer(),), BIG)
    assert (executor.limit.used, executor.limit.peak) == (0, 0)


@pytest.mark.parametrize("name", DEVICES)
def test_a_limit_refuses_a_program_with_numbers_and_takes_nothing(name: str) -> None:
    executor = fresh(name, limit_bytes=27 << 20)
    weights = executor.load((big_layer(),), BIG)
    assert executor.limit.used == 12 << 20
    with pytest.raises(OutOfDeviceMemory, match=rf"the compute buffer needs 0\.02 GiB on {name}, where 0\.01 GiB of 0"):
        executor.compile(big_layer(), weights, AUTO)
    assert executor.limit.used == executor.limit.peak == 12 << 20
    weights.close()
    assert executor.limit.used == 0


def test_close_gives_everything_back_once(executor: GgmlExecutor) -> None:
    weights = executor.load((big_layer(),), BIG)
    program = executor.compile(big_layer(), weights, AUTO)
    assert executor.limit.used == (12 << 20) + program.memory.compute
    for _ in range(2):
        program.close()
        weights.close()
    assert executor.limit.used == 0
    assert executor.limit.peak == (12 << 20) + program.memory.compute


def test_two_programs_share_one_set_of_weights(executor: GgmlExecutor) -> None:
    graphs = network(11), network(12)
    weights = executor.load(graphs, SOURCE)
    taken = executor.limit.used
    first, second = (executor.compile(graph, weights, AUTO) for graph in graphs)
    assert executor.limit.used == taken + first.memory.compute + second.memory.compute
    before = first.run(inputs(1))["y"]
    second.close()
    np.testing.assert_array_equal(first.run(inputs(1))["y"], before)
    first.close()
    weights.close()


@pytest.fixture
def program() -> Iterator[GgmlProgram]:
    executor = fresh("ggml-cpu")
    graph = network()
    weights = executor.load((graph,), SOURCE)
    program = executor.compile(graph, weights, AUTO)
    yield program
    program.close()
    weights.close()


def test_inputs_are_checked_by_name_and_shape(program: GgmlProgram) -> None:
    with pytest.raises(ValueError, match=r"inputs \['x'\] given, \['shift', 'x'\] needed"):
        program.run({"x": inputs(1)["x"]})
    with pytest.raises(ValueError, match=r"input x has shape \(1, 12, 64\), the graph was compiled for \(1, 11, 64\)"):
        program.run(inputs(1) | {"x": array(1, 12, 64)})


def test_seconds_are_those_of_the_last_run(program: GgmlProgram) -> None:
    assert program.seconds == 0
    program.run(inputs(1))
    assert 0 < program.seconds < 10


def nodes(program: GgmlProgram) -> list[tuple[str, int]]:
    """Operation and bytes of each node of a program's ggml graph."""
    assert program._build is not None
    base, graph = program.base, program._build.graph
    found = (base.ggml_graph_node(graph, i) for i in range(base.ggml_graph_n_nodes(graph)))
    return [(text(base.ggml_op_desc(node)), int(base.ggml_nbytes(node))) for node in found]


@pytest.mark.parametrize(("scores_bytes", "chunks"), [(1 << 30, 1), (100_000, 3), (50_000, 5), (2400, 100)])
def test_scores_never_pass_their_limit(scores_bytes: int, chunks: int) -> None:
    """100 queries, 2 heads and 300 keys: 240,000 bytes of scores, 2,400 for each query."""
    executor = fresh("ggml-cpu")
    q, k = input_tensor("q", (1, 100, 2, 16)), input_tensor("k", (1, 300, 2, 16))
    graph = Graph({"y": ops.attention(q, k, k, bias=input_tensor("bias", (100, 300)))})
    weights = executor.load((graph,), {})
    options = CompileOptions(attention="chunked", scores_bytes=scores_bytes)
    program = executor.compile(graph, weights, options)
    scores = [nbytes for op, nbytes in nodes(program) if op == "SOFT_MAX"]
    assert len(scores) == chunks
    assert max(scores) <= scores_bytes
    assert sum(scores) == 240_000
    program.close()
    weights.close()


def test_a_limit_below_the_scores_of_one_query_is_refused() -> None:
    q = input_tensor("q", (1, 100, 2, 16))
    options = CompileOptions(attention="chunked", scores_bytes=799)
    with pytest.raises(UnsupportedOp, match=r"2 heads over 100 keys takes 800 bytes .* scores_bytes is 799"):
        fresh("ggml-cpu").measure(Graph({"y": ops.attention(q, q, q)}), options)


def test_ten_thousand_chunks_find_room() -> None:
    """ggml ends the process when a graph has more nodes than it was made for."""
    q = input_tensor("q", (1, 10_000, 1, 8))
    options = CompileOptions(attention="chunked", scores_bytes=40_000)
    assert fresh("ggml-cpu").measure(Graph({"y": ops.attention(q, q, q)}), options).compute > 0


def test_convolution_is_lowered_as_asked() -> None:
    executor, source = fresh("ggml-cpu"), ArraySource({"c.weight": array(8, 4, 3, 3)}, "F16")
    graph = Graph({"y": ops.conv2d(input_tensor("x", (1, 4, 9, 7)), Weights(source) / "c", padding=1)})
    weights = executor.load((graph,), source)
    for convolution, op in (("direct", "CONV_2D"), ("im2col", "IM2COL"), ("auto", "CONV_2D")):
        program = executor.compile(graph, weights, CompileOptions(convolution=convolution))
        assert op in [name for name, _ in nodes(program)]
        program.close()
    weights.close()


def test_vulkan_refuses_a_tensor_past_its_binding_limit() -> None:
    """lavapipe binds 128 MiB at most. A real GPU binds 4 GiB and takes this one."""
    executor = fresh("vulkan0")
    if not executor.device.is_software:
        pytest.skip(f"{executor.device.description} binds larger tensors")
    graph = Graph({"y": ops.silu(input_tensor("x", (40 << 20,)))})
    weights = executor.load((graph,), {})
    with pytest.raises(UnsupportedOp, match=r"vulkan0 cannot compute SILU of shape \[41943040, 1, 1, 1\] \(160 MiB\)"):
        executor.compile(graph, weights, AUTO)
    assert executor.limit.used == 0
    weights.close()


def test_an_operation_ggml_lacks_is_refused_before_anything_is_taken(executor: GgmlExecutor) -> None:
    graph = Graph({"y": Tensor("fft", (3,), inputs=(input_tensor("x", (3,)),))})
    for act in (executor.measure, lambda graph, options: executor.compile(graph, executor.load((), {}), options)):
        with pytest.raises(UnsupportedOp, match=f"{executor.name} has no fft"):
            act(graph, AUTO)
    assert executor.limit.peak == 0


def test_every_operation_is_known(executor: GgmlExecutor) -> None:
    assert [op for op in ops.OPS if executor.why_not(Tensor(op, (1,))) is not None] == []


def test_an_unknown_device_is_answered_with_those_there() -> None:
    EXECUTORS["ggml-cpu"]()
    with pytest.raises(ConfigError, match=r"no device vulkan9: this machine has .*ggml-cpu"):
        GgmlExecutor("vulkan9")
    with pytest.raises(ConfigError, match=r"no device cuda0: this machine has .*ggml-cpu$"):
        GgmlExecutor("cuda0")
