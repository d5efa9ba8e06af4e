"""Every operation in OpenVINO's terms.

Two element types are chosen per program: `products` for matrix products and attention, `values` for what flows
between operations. Bfloat16 products over float32 values cost transformers nothing and keep their residual sums exact;
convolutional networks hold large pictures, so their values are bfloat16 too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset15 as op

from relight.executors.base import CompileOptions
from relight.executors.openvino.forms import GROUP, Form
from relight.graph import Tensor

Node = Any  # OpenVINO's nodes, or one of a node's outputs; the package has no types for mypy

CHUNK_SCORES_BYTES = 64 << 20
FUSED_KEY_BYTES = 4 << 20
"""The fused kernel packs all bfloat16 keys of a head again for each block of queries; past this size it is slower than
chunks of plain products (8192 keys of 512: 1.0 s against 0.41 s; float32 has no such packing)."""


@dataclass(frozen=True)
class Elements:
    products: ov.Type
    values: ov.Type
    options: CompileOptions


@dataclass(frozen=True)
class Matrix:
    """A weight that is an input of the model, in its form: `parts` as `forms.pack` gives them."""

    form: Form
    parts: tuple[Node, ...]
    rows: int
    columns: int

    def unpacked(self, element: ov.Type) -> Node:
        """[rows columns]. Fused by OpenVINO into one pass over the codes, so its float32 never reaches memory."""
        match self.form:
            case "int8":
                codes, scales = (convert(part, ov.Type.f32) for part in self.parts)
                whole = convert(op.multiply(codes, scales), element)
            case "int4":
                whole = self._unpacked_int4(element)
            case _:
                whole = convert(self.parts[0], element)
        return reshape(whole, (self.rows, self.columns))

    def _unpacked_int4(self, element: ov.Type) -> Node:
        codes = convert(self.parts[0], ov.Type.f32)
        # By floating point arithmetic: OpenVINO's bitwise operations on bytes take eight times as long.
        high = op.floor(op.multiply(codes, constant(1 / 16)))
        low = op.subtract(codes, op.multiply(high, constant(16)))
        scales, offsets = (self._halves(part) for part in self.parts[1:])
        sides = [
            convert(op.add(op.multiply(half, scale), offset), element)
            for half, scale, offset in zip((low, high), scales, offsets, strict=True)
        ]
        return op.concat(sides, 1)

    def _halves(self, part: Node) -> list[Node]:
        """[rows 2 groups 1] -> two of [rows groups 1], for the left and right half of each row."""
        both = op.split(part, constant(1, ov.Type.i32), 2).outputs()
        shape = (self.rows, self.columns // (2 * GROUP), 1)
        return [convert(reshape(half, shape), ov.Type.f32) for half in both]


def constant(value: float | Sequence[int] | np.ndarray, element: ov.Type = ov.Type.f32) -> Node:
    if element == ov.Type.bf16:
        return op.convert(op.constant(np.asarray(value, np.float32)), element)
    return op.constant(np.asarray(value), element)


def convert(x: Node, element: ov.Type) -> Node:
    return x if x.get_element_type() == element else op.convert(x, element)


def reshape(x: Node, shape: Sequence[int]) -> Node:
    return op.reshape(x, constant(shape, ov.Type.i64), False)


def permute(x: Node, axes: Sequence[int]) -> Node:
    return op.transpose(x, constant(axes, ov.Type.i64))


def narrow(x: Node, axis: int, start: int, length: int) -> Node:
    ends = ([start], [start + length], [1], [axis])
    return op.slice(x, *(constant(end, ov.Type.i64) for end in ends))


def elementwise(combine: Callable[[Node, Node], Node]) -> Callable[..., Node]:
    def lower(e: Elements, t: Tensor, a: Node, b: Node | None = None) -> Node:
        return combine(a, constant(t.attrs["scalar"], e.values) if b is None else b)

    return lower


def linear(e: Elements, t: Tensor, x: Node, weight: Matrix, bias: Node | None = None) -> Node:
    y = convert(op.matmul(convert(x, e.products), weight.unpacked(e.products), False, True), e.values)
    return y if bias is None else op.add(y, bias)


def embedding(e: Elements, t: Tensor, *inputs: Node) -> Node:
    """From the rows, looked up on the host; or from numbers and a computed table."""
    if len(inputs) == 1:
        return convert(inputs[0], e.values)
    return op.gather(inputs[1], inputs[0], constant(0, ov.Type.i32))


def layer_norm(e: Elements, t: Tensor, x: Node, *affine: Node) -> Node:
    y = op.mvn(x, constant([-1], ov.Type.i64), True, t.attrs["eps"], "inside_sqrt")
    return op.add(op.multiply(y, affine[0]), affine[1]) if affine else y


def rms_norm(e: Elements, t: Tensor, x: Node, scale: Node) -> Node:
    wide = convert(x, ov.Type.f32)
    mean = op.reduce_mean(op.multiply(wide, wide), constant([-1], ov.Type.i64), True)
    y = op.divide(wide, op.sqrt(op.add(mean, constant(t.attrs["eps"]))))
    return op.multiply(convert(y, e.values), scale)


def group_norm(e: Elements, t: Tensor, x: Node, weight: Node, bias: Node) -> Node:
    # In F32: OpenVINO has none in bfloat16 unless it chooses the types itself. The conversions are fused.
    x, weight, bias = (convert(value, ov.Type.f32) for value in (x, weight, bias))
    return convert(op.group_normalization(x, weight, bias, t.attrs["groups"], t.attrs["eps"]), e.values)


def attention(e: Elements, t: Tensor, q: Node, k: Node, v: Node, bias: Node | None = None) -> Node:
    q, k, v = (permute(convert(x, e.products), (0, 2, 1, 3)) for x in (q, k, v))  # [B H S C]
    if bias is not None:
        shape = t.inputs[3].shape
        bias = reshape(bias, (*(1,) * (4 - len(shape)), *shape))
    attend = _chunked if _in_chunks(e, t) else _fused
    return permute(convert(attend(e, t, q, k, v, bias), e.values), (0, 2, 1, 3))


def _in_chunks(e: Elements, t: Tensor) -> bool:
    if e.options.attention != "auto":
        return e.options.attention == "chunked"
    keys, size = t.inputs[1].shape[1], t.shape[3]
    return bool(e.products == ov.Type.bf16) and 2 * keys * size > FUSED_KEY_BYTES


def _fused(e: Elements, t: Tensor, q: Node, k: Node, v: Node, bias: Node | None) -> Node:
    mask = constant(np.zeros((1, 1, 1, 1)), e.products) if bias is None else convert(bias, e.products)
    return op.scaled_dot_product_attention(q, k, v, mask, constant(t.attrs["scale"], e.products))


def _chunked(e: Elements, t: Tensor, q: Node, k: Node, v: Node, bias: Node | None) -> Node:
    """Some queries at a time, in a loop, so that the scores of one chunk alone are in memory; the rest after it."""
    q = op.multiply(q, constant(t.attrs["scale"], e.products))
    queries, rows = t.shape[1], _chunk_rows(e, t)
    looped = queries - queries % rows
    sliced = [q] if bias is None else [q, convert(bias, e.products)]
    parts = []
    if looped > rows:
        parts.append(_loop(e, rows, [narrow(x, 2, 0, looped) for x in sliced], (k, v)))
    for start in range(0 if looped <= rows else looped, queries, rows):
        some = [narrow(x, 2, start, min(rows, queries - start)) for x in sliced]
        parts.append(_attend(e, k, v, *some))
    return parts[0] if len(parts) == 1 else op.concat(parts, 2)


def _loop(e: Elements, rows: int, sliced: Sequence[Node], whole: Sequence[Node]) -> Node:
    """`_attend` for runs of `rows` queries of the sliced inputs."""
    shapes = [list(x.output(0).get_shape()) for x in (*sliced, *whole)]
    for shape in shapes[: len(sliced)]:
        shape[2] = rows
    parameters = [op.parameter(shape, e.products) for shape in shapes]
    some, (k, v) = parameters[: len(sliced)], parameters[len(sliced) :]
    result = op.result(_attend(e, k, v, *some))
    loop = op.tensor_iterator()
    loop.set_body(ov.Model([result], parameters, "chunk"))
    for parameter, x in zip(some, sliced, strict=True):
        loop.set_sliced_input(parameter, x.output(0), 0, rows, rows, -1, 2)
    for parameter, x in zip((k, v), whole, strict=True):
        loop.set_invariant_input(parameter, x.output(0))
    return loop.get_concatenated_slices(result.output(0), 0, rows, rows, -1, 2)


def _attend(e: Elements, k: Node, v: Node, q: Node, bias: Node | None = None) -> Node:
    """The softmax is spelled out: with its own, OpenVINO fuses the kernel that chunks avoid. q is scaled already."""
    last = constant([-1], ov.Type.i64)
    scores = convert(op.matmul(q, k, False, True), ov.Type.f32)
    if bias is not None:
        scores = op.add(scores, convert(bias, ov.Type.f32))
    powers = op.exp(op.subtract(scores, op.reduce_max(scores, last, True)))
    y = op.matmul(convert(powers, e.products), v, False, False)
    return op.divide(convert(y, ov.Type.f32), op.reduce_sum(powers, last, True))


def _chunk_rows(e: Elements, t: Tensor) -> int:
    """Queries whose float32 scores, over all heads, stay under the limit."""
    row_bytes = 4 * t.shape[0] * t.shape[2] * t.inputs[1].shape[1]
    return min(t.shape[1], max(1, min(e.options.scores_bytes, CHUNK_SCORES_BYTES) // row_bytes))


def chunk_bytes(e: Elements, t: Tensor) -> int:
    """Of the scores and powers of one chunk of an attention, 0 where the fused kernel runs."""
    if not _in_chunks(e, t):
        return 0
    return 3 * 4 * _chunk_rows(e, t) * t.shape[0] * t.shape[2] * t.inputs[1].shape[1]


def rope(e: Elements, t: Tensor, x: Node, cos: Node, sin: Node) -> Node:
    _, tokens, _, size = t.shape
    half = size // 2
    cos, sin = (reshape(convert(table, e.values), (1, tokens, 1, half)) for table in (cos, sin))
    first, second = narrow(x, 3, 0, half), narrow(x, 3, half, half)
    turned = (
        op.subtract(op.multiply(first, cos), op.multiply(second, sin)),
        op.add(op.multiply(first, sin), op.multiply(second, cos)),
    )
    return op.concat(list(turned), 3)


def conv2d(e: Elements, t: Tensor, x: Node, weight: Node, bias: Node | None = None) -> Node:
    stride, padding = [t.attrs["stride"]] * 2, [t.attrs["padding"]] * 2
    kernel = convert(weight, e.products)
    y = convert(op.convolution(convert(x, e.products), kernel, stride, padding, padding, [1, 1]), e.values)
    return y if bias is None else op.add(y, reshape(bias, (1, t.shape[1], 1, 1)))


def upsample_nearest(e: Elements, t: Tensor, x: Node) -> Node:
    size, axes = constant(t.shape[2:], ov.Type.i64), constant([2, 3], ov.Type.i64)
    return op.interpolate(
        x, size, "nearest", "sizes", axes=axes, coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )


def pad(e: Elements, t: Tensor, x: Node) -> Node:
    ends = [0, 0, t.attrs["bottom"], t.attrs["right"]]
    zero = constant(0, x.get_element_type())
    return op.pad(x, constant([0] * 4, ov.Type.i64), constant(ends, ov.Type.i64), "constant", zero)


OPS: dict[str, Callable[..., Node]] = {
    "add": elementwise(op.add),
    "mul": elementwise(op.multiply),
    "linear": linear,
    "embedding": embedding,
    "reshape": lambda e, t, x: reshape(x, t.shape),
    "permute": lambda e, t, x: permute(x, t.attrs["axes"]),
    "narrow": lambda e, t, x: narrow(x, t.attrs["axis"], t.attrs["start"], t.shape[t.attrs["axis"]]),
    "concat": lambda e, t, *xs: op.concat(list(xs), t.attrs["axis"]),
    "silu": lambda e, t, x: op.swish(x, constant(1, e.values)),
    "gelu": lambda e, t, x: op.gelu(x, "ERF"),
    "gelu_tanh": lambda e, t, x: op.gelu(x, "TANH"),
    "quick_gelu": lambda e, t, x: op.swish(x, constant(1.702, e.values)),
    "relu": lambda e, t, x: op.relu(x),
    "tanh": lambda e, t, x: op.tanh(x),
    "leaky_relu": lambda e, t, x: op.prelu(x, constant([t.attrs["slope"]], e.values)),
    "prelu": lambda e, t, x, slopes: op.prelu(x, slopes),
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "attention": attention,
    "rope": rope,
    "timestep_embedding": lambda e, t, table: convert(table, e.values),
    "conv2d": conv2d,
    "upsample_nearest": upsample_nearest,
    "pad": pad,
}
"""`rope`, `timestep_embedding` and `embedding` take the tables of `tables.py` in place of what those are made from."""
