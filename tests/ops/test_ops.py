"""Every operation on every executor present, against reference.py. Sizes are odd on purpose.

Nearly all the time goes to lavapipe, which compiles each kernel for seconds. A matrix product of two to eight tokens
is a kernel of its own for each count, 19 s of compiling in F32, 49 s in F16 and 159 s in IQ4_NL, so most cases have
nine tokens or more (3 to 5 s in every format) and only Q4_K (2 s) has four. Heads are of 64, since flash attention
takes 7 s to compile for them and 117 s for heads of 128: those only a real GPU meets, in the tests of networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from executors_present import EXECUTORS
from relight.executors.base import CompileOptions, Executor
from relight.executors.reference import ReferenceExecutor
from relight.graph import Graph, Tensor, Weights, input_tensor, ops
from stored import ArraySource

random = np.random.default_rng(7)


def array(*shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


TOLERANCE = {"ggml-cpu": 1e-5, "vulkan0": 1e-3, "openvino": 1e-5}
"""Largest difference over the largest value, in float32 throughout. GPUs have shorter sines and exponentials."""

COARSER = {
    "ggml-cpu": {
        "gelu_tanh": 1e-3,  # looked up in a table of F16
        "quick_gelu": 1e-3,
        "attention by flash": 5e-3,  # sums in F16
        "linear of a wide range": 1e-3,  # F16 weights make the input F16
        "conv2d in F16": 1e-3,
        "linear with a pair beside it": 1e-3,  # pairs are F16
        "linear with a pair, by rows and columns": 1e-3,
        "conv2d with a pair beside it": 1e-3,
        "rope far out": 3e-4,  # angles in float32 by repeated products
        "timestep_embedding": 3e-4,
        "F16": 1e-3,
        "BF16": 5e-3,
        "blocks": 1e-2,  # block formats make the input 8 bits
    },
    "vulkan0": {
        "BF16": 5e-3,
        "blocks": 1e-2,  # as on the CPU where the GPU has integer dot products; lavapipe is exact
    },
    "openvino": {},
}
"""Where an executor rounds more, by case or format of the weights."""


@dataclass
class Case:
    """`build` records the output from named inputs and weights, matrices stored in `form`. `beside`: low-rank pairs."""

    name: str
    build: Callable[..., Tensor]
    inputs: dict[str, np.ndarray]
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    form: str = "F32"
    options: CompileOptions = CompileOptions()
    beside: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def source(self) -> ArraySource:
        stored = ArraySource(self.weights, self.form)
        stored.update(ArraySource(self.beside, "F16"))
        return stored


class Beside(ArraySource):
    """Low-rank pairs in F16, as LoRAs are kept, all of whose ranks reach every row."""

    def ranks(self, name: str, rows: np.ndarray | None) -> tuple[int, int] | None:
        return (0, self.shape(f"lora:{name}.down")[0]) if f"lora:{name}.down" in self else None


def unary(op: Callable[[Tensor], Tensor]) -> Case:
    return Case(op.__name__, lambda w, x: op(x), {"x": 3 * array(2, 3, 65)})


def affine(size: int) -> dict[str, np.ndarray]:
    return {"n.weight": array(size), "n.bias": array(size)}


def layer(out: int, inner: int, *kernel: int) -> dict[str, np.ndarray]:
    return {"l.weight": array(out, inner, *kernel) / np.float32(inner**0.5), "l.bias": array(out)}


def pair(out: int, inner: int, *kernel: int, rank: int = 8) -> dict[str, np.ndarray]:
    ones = (1,) * len(kernel)
    return {
        "lora:l.weight.down": array(rank, inner, *kernel) / np.float32(inner**0.5),
        "lora:l.weight.up": array(out, rank, *ones) / np.float32(rank**0.5),
    }


def qkv(tokens: int, keys: int, heads: int, size: int) -> dict[str, np.ndarray]:
    return {"q": array(1, tokens, heads, size), "k": array(1, keys, heads, size), "v": array(1, keys, heads, size)}


POSITIONS = np.stack([np.zeros(11), np.arange(11) // 4, np.arange(11) % 4]).astype(np.int32)
FAR = np.stack([np.arange(11), 900 + np.arange(11), 37 * np.arange(11)]).astype(np.int32)
ROPE_64 = {"sections": (4, 14, 14), "theta": 10000.0}
CHUNKED = CompileOptions(attention="chunked", scores_bytes=4000)
FLASH = CompileOptions(attention="flash")
IM2COL, DIRECT = CompileOptions(convolution="im2col"), CompileOptions(convolution="direct")


def attend(w: Weights, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    return ops.attention(q, k, v, bias=bias)


def strided_heads(w: Weights, x: Tensor) -> Tensor:
    q, k, v = (part.reshape(1, 11, 2, 64) for part in x.split([128, 128, 128]))
    return ops.attention(ops.rms_norm(q, w["scale"], eps=1e-6), k, v)


CAUSAL = np.triu(np.full((27, 27), -np.inf, np.float32), 1)

CASES = [
    Case("add", lambda w, a, b: a + b, {"a": array(2, 3, 7), "b": array(3, 7)}),
    Case("add broadcast from the left", lambda w, a, b: a + b, {"a": array(1, 1, 7), "b": array(1, 5, 7)}),
    Case("add scalar", lambda w, x: x + 2.5, {"x": array(3, 7)}),
    Case("mul", lambda w, a, b: a * b, {"a": array(2, 3, 7), "b": array(2, 1, 7)}),
    Case("mul scalar", lambda w, x: x * -0.3, {"x": array(3, 7)}),
    Case("mul by weight", lambda w, x: x * w["scale"], {"x": array(3, 7)}, {"scale": array(7)}),
    Case("linear", lambda w, x: ops.linear(x, w / "l"), {"x": array(2, 5, 64)}, layer(33, 64)),
    Case("linear without bias", lambda w, x: ops.linear(x, w / "l", bias=False), {"x": array(11, 64)}, layer(33, 64)),
    Case(
        "linear of a wide range",
        lambda w, x: ops.linear(x, w / "l", wide_range=True),
        {"x": 2e5 * array(11, 64)},
        layer(33, 64),
        "F16",
    ),
    Case("linear with a 1x1 kernel", lambda w, x: ops.linear(x, w / "l"), {"x": array(11, 64)}, layer(33, 64, 1, 1)),
    Case(
        "linear on a narrowed input",
        lambda w, x: ops.linear(x.narrow(1, 3, 64), w / "l"),
        {"x": array(11, 96)},
        layer(9, 64),
    ),
    Case("linear by rows", lambda w, x: ops.linear(x, (w / "l").rows(5, 21)), {"x": array(11, 64)}, layer(33, 64)),
    Case(
        "linear by rows in another order",
        lambda w, x: ops.linear(x, (w / "l").rows(np.arange(32).reshape(2, 8, 2).transpose(0, 2, 1).reshape(-1))),
        {"x": array(11, 64)},
        layer(33, 64),
    ),
    Case(
        "linear by columns", lambda w, x: ops.linear(x, (w / "l").columns(32, 96)), {"x": array(11, 64)}, layer(33, 96)
    ),
    Case(
        "linear with a pair beside it",
        lambda w, x: ops.linear(x, w / "l"),
        {"x": array(2, 11, 64)},
        layer(33, 64),
        beside=pair(33, 64, rank=40),
    ),
    Case(
        "linear with a pair, by rows and columns",
        lambda w, x: ops.linear(x, (w / "l").rows(np.arange(5, 21)[::-1].copy()).columns(32, 96)),
        {"x": array(11, 64)},
        layer(33, 96),
        beside=pair(33, 96),
    ),
    Case(
        "conv2d with a pair beside it",
        lambda w, x: ops.conv2d(x, w / "l", padding=1, stride=2),
        {"x": array(2, 5, 9, 7)},
        layer(8, 5, 3, 3),
        beside=pair(8, 5, 3, 3),
    ),
    Case(
        "embedding",
        lambda w, ids: ops.embedding(ids, w["table"]),
        {"ids": np.array([3, 0, 8, 3], np.int32)},
        {"table": array(9, 64)},
    ),
    Case(
        "embedding of a computed table",
        lambda w, ids, x: ops.embedding(ids, x * 2),
        {"ids": np.array([4], np.int32), "x": array(9, 64)},
    ),
    Case("reshape", lambda w, x: x.reshape(6, 7), {"x": array(2, 3, 7)}),
    Case("reshape of a permuted tensor", lambda w, x: x.permute(1, 0, 2).reshape(15, 7) * 1, {"x": array(3, 5, 7)}),
    Case("permute", lambda w, x: x.permute(2, 0, 3, 1), {"x": array(2, 3, 5, 7)}),
    Case("permute of three axes", lambda w, x: x.permute(1, 2, 0), {"x": array(2, 3, 5)}),
    Case("narrow", lambda w, x: x.narrow(1, 1, 2), {"x": array(2, 4, 5)}),
    Case("narrow of the last axis", lambda w, x: x.narrow(-1, 2, 3) + 1, {"x": array(2, 4, 7)}),
    Case("concat", lambda w, a, b: ops.concat([a, b], 1), {"a": array(2, 3, 7), "b": array(2, 1, 7)}),
    Case("concat of five", lambda w, a, b: ops.concat([a, b, a, b, b], -1), {"a": array(2, 3), "b": array(2, 1)}),
    unary(ops.silu),
    unary(ops.gelu),
    unary(ops.gelu_tanh),
    unary(ops.quick_gelu),
    unary(ops.relu),
    unary(ops.tanh),
    Case("leaky_relu", lambda w, x: ops.leaky_relu(x, 0.2), {"x": array(2, 3, 65)}),
    Case("leaky_relu of a narrowed input", lambda w, x: ops.leaky_relu(x.narrow(1, 1, 2), 0.1), {"x": array(3, 4, 5)}),
    Case("prelu", lambda w, x: ops.prelu(x, w["slopes"]), {"x": array(2, 6, 5, 7)}, {"slopes": array(6)}),
    Case("layer_norm", lambda w, x: ops.layer_norm(x, eps=1e-6), {"x": 5 + array(2, 3, 65)}),
    Case("layer_norm with weights", lambda w, x: ops.layer_norm(x, w / "n", eps=1e-5), {"x": array(3, 65)}, affine(65)),
    Case("rms_norm", lambda w, x: ops.rms_norm(x, w["s"], eps=1e-6), {"x": array(2, 3, 65)}, {"s": array(65)}),
    Case(
        "group_norm",
        lambda w, x: ops.group_norm(x, w / "n", groups=4, eps=1e-6),
        {"x": 2 + array(2, 12, 5, 7)},
        affine(12),
    ),
    Case("attention", attend, qkv(9, 9, 2, 64)),
    Case("attention with longer keys", attend, qkv(9, 17, 3, 64)),
    Case("attention in chunks", attend, qkv(36, 33, 3, 64), options=CHUNKED),
    Case("attention by flash", attend, qkv(37, 33, 3, 64), options=FLASH),
    Case("attention of one wide head", attend, qkv(9, 9, 1, 320)),
    Case("attention with a causal mask", attend, qkv(27, 27, 2, 64) | {"bias": CAUSAL}),
    Case(
        "attention with a causal mask in chunks",
        attend,
        qkv(27, 27, 2, 64) | {"bias": CAUSAL},
        options=CompileOptions(attention="chunked", scores_bytes=2000),
    ),
    Case("attention with a bias for each head", attend, qkv(9, 9, 2, 64) | {"bias": array(2, 9, 9)}),
    Case("attention on parts of one tensor", strided_heads, {"x": array(1, 11, 384)}, {"scale": array(64)}),
    Case("rope", lambda w, x, p: ops.rope(x, p, **ROPE_64), {"x": array(1, 11, 3, 64), "p": POSITIONS}),
    Case("rope far out", lambda w, x, p: ops.rope(x, p, **ROPE_64), {"x": array(1, 11, 3, 64), "p": FAR}),
    Case(
        "timestep_embedding", lambda w, t: ops.timestep_embedding(t, 256), {"t": np.array([0, 250.5, 1000], np.float32)}
    ),
    Case("conv2d", lambda w, x: ops.conv2d(x, w / "l", padding=1), {"x": array(1, 5, 9, 7)}, layer(8, 5, 3, 3)),
    Case(
        "conv2d of a batch", lambda w, x: ops.conv2d(x, w / "l", padding=1), {"x": array(2, 5, 9, 7)}, layer(8, 5, 3, 3)
    ),
    Case(
        "conv2d with stride",
        lambda w, x: ops.conv2d(x, w / "l", stride=2),
        {"x": array(1, 5, 9, 8)},
        layer(8, 5, 3, 3),
        options=DIRECT,
    ),
    Case(
        "conv2d by im2col",
        lambda w, x: ops.conv2d(x, w / "l", padding=1, stride=2),
        {"x": array(2, 5, 9, 7)},
        layer(12, 5, 3, 3),
        options=IM2COL,
    ),
    Case(
        "conv2d in F16",
        lambda w, x: ops.conv2d(x, w / "l", padding=1),
        {"x": array(1, 5, 9, 7)},
        layer(8, 5, 3, 3),
        "F16",
    ),
    Case("upsample_nearest", lambda w, x: ops.upsample_nearest(x), {"x": array(1, 3, 4, 5)}),
    Case("pad", lambda w, x: ops.pad(x, bottom=1, right=2), {"x": array(1, 3, 4, 5)}),
]


def recorded_graph(case: Case) -> Graph:
    nodes = [
        input_tensor(name, value.shape, "i32" if value.dtype == np.int32 else "f32")
        for name, value in case.inputs.items()
    ]
    w = Weights(case.source).with_adapters(Beside(case.beside, "F16"))
    return Graph({"y": case.build(w, *nodes)})


def run_case(executor: Executor, case: Case) -> np.ndarray:
    source, graph = case.source, recorded_graph(case)
    weights = executor.load((graph,), source)
    program = executor.compile(graph, weights, replace(case.options, precision="f32"))
    try:
        first = program.run(case.inputs)["y"]
        np.testing.assert_array_equal(program.run(case.inputs)["y"], first, "a second run differs")
        return first
    finally:
        program.close()
        weights.close()


def worst(result: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over the largest value."""
    return float(np.abs(result - expected).max() / np.abs(expected).max())


def check(name: str, case: Case, kind: str) -> None:
    executor = EXECUTORS[name]()
    expected = run_case(ReferenceExecutor(), case)
    assert worst(run_case(executor, case), expected) < COARSER[name].get(kind, TOLERANCE[name])


TESTED = [name for name in EXECUTORS if name != "reference"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
@pytest.mark.parametrize("name", TESTED)
def test_op_equals_the_reference(name: str, case: Case) -> None:
    check(name, case, case.name)


FORMATS = ["F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_0", "Q4_K", "Q4_0", "Q3_K", "Q2_K", "IQ4_NL", "IQ4_XS"]
WIDE, WIDER = layer(33, 512), layer(33, 1024)
TOKENS = array(11, 512)


def kind_of(form: str) -> str:
    return form if form in ("F16", "BF16") else "blocks"


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", TESTED)
def test_linear_in_every_format(name: str, form: str) -> None:
    """The same bytes for both sides."""
    case = Case(form, lambda w, x: ops.linear(x, w / "l"), {"x": TOKENS}, WIDE, form)
    check(name, case, kind_of(form))


@pytest.mark.parametrize("form", ["Q8_0", "Q4_K"])
@pytest.mark.parametrize("name", TESTED)
def test_a_pair_beside_quantised_weights(name: str, form: str) -> None:
    case = Case(form, lambda w, x: ops.linear(x, w / "l"), {"x": TOKENS}, WIDE, form, beside=pair(33, 512))
    check(name, case, kind_of(form))


@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("name", TESTED)
def test_linear_of_a_few_tokens(name: str, tokens: int) -> None:
    """A kernel of its own on GPUs, and what modulation runs on."""
    case = Case("few", lambda w, x: ops.linear(x, w / "l"), {"x": TOKENS[:tokens]}, WIDE, "Q4_K")
    check(name, case, "blocks")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", TESTED)
def test_embedding_in_every_format(name: str, form: str) -> None:
    """Rows are decoded, not multiplied: no executor rounds."""
    case = Case(
        form, lambda w, ids: ops.embedding(ids, w["l.weight"]), {"ids": np.array([32, 0, 7], np.int32)}, WIDE, form
    )
    check(name, case, "embedding")


@pytest.mark.parametrize("form", ["F16", "BF16", "Q8_0", "Q4_K"])
@pytest.mark.parametrize("name", TESTED)
def test_rows_and_columns_of_quantised_matrices(name: str, form: str) -> None:
    def build(w: Weights, x: Tensor) -> Tensor:
        return ops.linear(x, (w / "l").rows(np.arange(32)[::-1].copy()).columns(256, 768))

    check(name, Case(form, build, {"x": TOKENS}, WIDER, form), kind_of(form))


def test_every_op_has_a_case() -> None:
    recorded = {node.op for case in CASES for node in recorded_graph(case).nodes}
    assert set(ops.OPS) <= recorded
