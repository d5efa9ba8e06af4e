"""From recorded operations to ggml's: one short function for each, in a table.

ggml counts axes from the innermost: a shape [B S H C] is ne = (C, H, S, B). Results may be strided views; who needs
them whole asks for `solid`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from relight.executors.base import CompileOptions
from relight.executors.choices import VIEW_ALIGNMENT, queries_a_chunk, uses_direct_convolution, uses_flash
from relight.executors.ggml.api import F16, F32, I32, PREC_F32, ROPE_MROPE, SCALE_NEAREST, ffi
from relight.executors.ggml.devices import Device
from relight.graph import Graph, Tensor

Value = Any  # ggml_tensor *
WIDE_RANGE_SCALE = 64.0


class Lowering:
    """Builds the ggml tensors of a graph in one context. `leaf` gives those of inputs and weights."""

    def __init__(self, device: Device, ctx: Any, options: CompileOptions, leaf: Callable[[Tensor], Value]) -> None:
        self.device, self.base, self.ctx, self.options, self.leaf = device, device.lib.base, ctx, options, leaf
        self.constants: list[tuple[Value, np.ndarray]] = []
        self.constant_of: dict[object, Value] = {}
        self.masks: dict[object, Value] = {}

    def lower(self, node: Tensor, inputs: Sequence[Value]) -> Value:
        return OPS[node.op](self, node, *inputs)

    def solid(self, x: Value) -> Value:
        """x with its elements in order and its start aligned, copied if need be."""
        aligned = x.view_src == ffi.NULL or x.view_offs % VIEW_ALIGNMENT == 0
        return x if aligned and self.base.ggml_is_contiguous(x) else self.base.ggml_cont(self.ctx, x)

    def shaped(self, x: Value, shape: Sequence[int]) -> Value:
        """x in another shape: as a view where strides allow it, else copied first."""
        ne = dimensions(shape)
        if list(x.ne) == ne:
            return x  # not even as a view: the allocator writes no result over one
        if self.base.ggml_is_contiguous(x):
            return self.base.ggml_reshape_4d(self.ctx, x, *ne)
        nb = split_strides(list(x.ne), list(x.nb), ne) if x.nb[0] == element_bytes(x) else None
        if nb is None:
            return self.base.ggml_reshape_4d(self.ctx, self.base.ggml_cont(self.ctx, x), *ne)
        return self.base.ggml_view_4d(self.ctx, x, *ne, *nb[1:], 0)

    def part(self, x: Value, axis: int, start: int, length: int) -> Value:
        """`length` entries of ggml axis `axis` from `start`, as a view."""
        if x.nb[0] != element_bytes(x):
            x = self.base.ggml_cont(self.ctx, x)
        ne = list(x.ne)
        ne[axis] = length
        return self.base.ggml_view_4d(self.ctx, x, *ne, x.nb[1], x.nb[2], x.nb[3], start * x.nb[axis])

    def constant(self, key: object, make: Callable[[], np.ndarray]) -> Value:
        """A small float32 array kept on the device beside the inputs."""
        if key not in self.constant_of:
            array = make().astype(np.float32)
            tensor = self.leaf(Tensor("constant", array.shape))
            self.constants.append((tensor, array))
            self.constant_of[key] = tensor
        return self.constant_of[key]


def node_bound(graph: Graph, options: CompileOptions) -> int:
    """More tensors than lowering the graph can make; ggml ends the process when a graph is full."""
    chunks = (
        math.ceil(node.shape[1] / queries_a_chunk(node, options)) for node in graph.nodes if node.op == "attention"
    )
    return 16 * (len(graph.nodes) + sum(chunks)) + 2 * sum(len(node.inputs) for node in graph.nodes)


def dimensions(shape: Iterable[int]) -> list[int]:
    """Shape, outermost first, to ggml's four, innermost first."""
    ne = list(shape)[::-1]
    return ne + [1] * (4 - len(ne))


def element_bytes(x: Value) -> int:
    return 2 if x.type == F16 else 4


def split_strides(ne: list[int], nb: list[int], new_ne: list[int]) -> list[int] | None:
    """Strides of a strided tensor seen in another shape, or None where only a copy will do."""
    runs: list[list[int]] = []  # [elements, stride] with neighbours merged where they lie together
    for n, stride in zip(ne, nb, strict=True):
        if n == 1:
            continue
        if runs and stride == runs[-1][0] * runs[-1][1]:
            runs[-1][0] *= n
        else:
            runs.append([n, stride])
    strides: list[int] = []
    for n in new_ne:
        if n == 1:
            strides.append(strides[-1] if strides else nb[0])
            continue
        if runs and runs[0][0] == 1:
            runs.pop(0)
        if not runs or runs[0][0] % n:
            return None
        strides.append(runs[0][1])
        runs[0] = [runs[0][0] // n, runs[0][1] * n]
    return strides if strides[0] == nb[0] else None


def add(lo: Lowering, node: Tensor, a: Value, b: Value | None = None) -> Value:
    if b is None:
        return lo.base.ggml_scale_bias(lo.ctx, lo.solid(a), 1.0, node.attrs["scalar"])
    return lo.base.ggml_add(lo.ctx, a, b)


def mul(lo: Lowering, node: Tensor, a: Value, b: Value | None = None) -> Value:
    if b is None:
        return lo.base.ggml_scale(lo.ctx, lo.solid(a), node.attrs["scalar"])
    return lo.base.ggml_mul(lo.ctx, a, b)


def linear(lo: Lowering, node: Tensor, x: Value, weight: Value, bias: Value | None = None) -> Value:
    inner = node.inputs[0].shape[-1]
    x = lo.shaped(lo.solid(x), (math.prod(node.inputs[0].shape) // inner, inner))
    weight = lo.shaped(weight, (node.shape[-1], inner))
    scaled = node.attrs["wide_range"] and weight.type != F32
    if scaled:
        x = lo.base.ggml_scale(lo.ctx, x, 1 / WIDE_RANGE_SCALE)
    y = lo.base.ggml_mul_mat(lo.ctx, weight, x)
    lo.base.ggml_mul_mat_set_prec(y, PREC_F32)
    if scaled:
        y = lo.base.ggml_scale(lo.ctx, y, WIDE_RANGE_SCALE)
    if bias is not None:
        y = lo.base.ggml_add(lo.ctx, y, bias)
    return lo.shaped(y, node.shape)


def permute(lo: Lowering, node: Tensor, x: Value) -> Value:
    axes = node.attrs["axes"]
    rank = len(axes)
    destination = list(range(4))  # ggml names, for each axis of the source, where it goes
    for to, source in enumerate(axes):
        destination[rank - 1 - source] = rank - 1 - to
    return lo.base.ggml_permute(lo.ctx, x, *destination)


def narrow(lo: Lowering, node: Tensor, x: Value) -> Value:
    axis = len(node.shape) - 1 - node.attrs["axis"]
    return lo.part(x, axis, node.attrs["start"], int(node.shape[node.attrs["axis"]]))


def concat(lo: Lowering, node: Tensor, *parts: Value) -> Value:
    """In pairs, so that each element is copied about log2(parts) times and not once for each later part."""
    axis = len(node.shape) - 1 - node.attrs["axis"]
    return join(lo, list(parts), axis)


def join(lo: Lowering, parts: list[Value], axis: int) -> Value:
    while len(parts) > 1:
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [lo.base.ggml_concat(lo.ctx, *pair, axis) if len(pair) == 2 else pair[0] for pair in pairs]
    return parts[0]


def unary(name: str) -> Callable[..., Value]:
    def lower(lo: Lowering, node: Tensor, x: Value) -> Value:
        return getattr(lo.base, name)(lo.ctx, x)

    return lower


def prelu(lo: Lowering, node: Tensor, x: Value, slopes: Value) -> Value:
    """ggml has one slope for a whole tensor: relu(x) + slopes * (x - relu(x))."""
    above = lo.base.ggml_relu(lo.ctx, x)
    below = lo.base.ggml_sub(lo.ctx, x, above)
    return lo.base.ggml_add(lo.ctx, lo.base.ggml_mul(lo.ctx, below, per_channel(lo, slopes)), above)


def layer_norm(lo: Lowering, node: Tensor, x: Value, *affine: Value) -> Value:
    y = lo.base.ggml_norm(lo.ctx, x, node.attrs["eps"])
    return lo.base.ggml_add(lo.ctx, lo.base.ggml_mul(lo.ctx, y, affine[0]), affine[1]) if affine else y


def rms_norm(lo: Lowering, node: Tensor, x: Value, scale: Value) -> Value:
    return lo.base.ggml_mul(lo.ctx, lo.base.ggml_rms_norm(lo.ctx, x, node.attrs["eps"]), scale)


def group_norm(lo: Lowering, node: Tensor, x: Value, weight: Value, bias: Value) -> Value:
    y = lo.base.ggml_group_norm(lo.ctx, lo.solid(x), node.attrs["groups"], node.attrs["eps"])
    return lo.base.ggml_add(lo.ctx, lo.base.ggml_mul(lo.ctx, y, per_channel(lo, weight)), per_channel(lo, bias))


def per_channel(lo: Lowering, vector: Value) -> Value:
    return lo.base.ggml_reshape_4d(lo.ctx, vector, 1, 1, vector.ne[0], 1)


def attention(lo: Lowering, node: Tensor, q: Value, k: Value, v: Value, bias: Value | None = None) -> Value:
    """q, k, v (C, H, S, B) and the result alike."""
    q, k, v = (lo.base.ggml_permute(lo.ctx, x, 0, 2, 1, 3) for x in (q, k, v))  # (C, S, H, B)
    if uses_flash(node, lo.options, gpu=lo.device.is_vulkan):
        return flash_attention(lo, node, q, k, v, bias)
    return chunked_attention(lo, node, q, k, v, bias)


def flash_attention(lo: Lowering, node: Tensor, q: Value, k: Value, v: Value, bias: Value | None) -> Value:
    k, v = (lo.base.ggml_cast(lo.ctx, x, F16) for x in (k, v))
    mask = ffi.NULL if bias is None else shared_mask(lo, node, lambda: lo.base.ggml_cast(lo.ctx, bias, F16))
    y = lo.base.ggml_flash_attn_ext(lo.ctx, q, k, v, mask, node.attrs["scale"], 0.0, 0.0)  # (C, H, S, B)
    lo.base.ggml_flash_attn_ext_set_prec(y, PREC_F32)
    return y


def chunked_attention(lo: Lowering, node: Tensor, q: Value, k: Value, v: Value, bias: Value | None) -> Value:
    """Softmax is by rows, so queries in chunks give the same numbers; a chunk's scores stay under the limit."""
    q, k = lo.base.ggml_cont(lo.ctx, q), lo.base.ggml_cont(lo.ctx, k)
    v = lo.base.ggml_cont(lo.ctx, lo.base.ggml_permute(lo.ctx, v, 1, 0, 2, 3))  # (S, C, H, B)
    bias = None if bias is None else shared_mask(lo, node, lambda: lo.solid(bias))
    queries, chunk = node.shape[1], queries_a_chunk(node, lo.options)
    parts = []
    for start in range(0, queries, chunk):
        count = min(chunk, queries - start)
        rows = q if count == queries else lo.part(q, 1, start, count)
        mask = ffi.NULL if bias is None else bias if count == queries else lo.solid(lo.part(bias, 1, start, count))
        scores = lo.base.ggml_mul_mat(lo.ctx, k, lo.solid(rows))  # (S_k, count, H, B)
        lo.base.ggml_mul_mat_set_prec(scores, PREC_F32)
        scores = lo.base.ggml_soft_max_ext(lo.ctx, scores, mask, node.attrs["scale"], 0.0)
        mixed = lo.base.ggml_mul_mat(lo.ctx, v, scores)  # (C, count, H, B)
        lo.base.ggml_mul_mat_set_prec(mixed, PREC_F32)
        parts.append(lo.base.ggml_cont(lo.ctx, lo.base.ggml_permute(lo.ctx, mixed, 0, 2, 1, 3)))
    return join(lo, parts, 2)


def shared_mask(lo: Lowering, node: Tensor, make: Callable[[], Value]) -> Value:
    """The bias as the kernel takes it, made once for all nodes that share it: T5 has one for its 24 layers."""
    key = (node.inputs[3].serial, uses_flash(node, lo.options, gpu=lo.device.is_vulkan))
    if key not in lo.masks:
        lo.masks[key] = make()
    return lo.masks[key]


def rope(lo: Lowering, node: Tensor, x: Value, positions: Value) -> Value:
    """ggml's multi-axis rope takes four positions a token and one base; its frequency factors make up the difference
    between theta^(-i / all pairs) and theta^(-j / pairs of the section)."""
    sections, theta = node.attrs["sections"], node.attrs["theta"]
    pairs = sum(sections)

    def factors() -> np.ndarray:
        wanted = np.concatenate([theta ** (-np.arange(n) / n) for n in sections if n])
        return np.asarray(theta ** (-np.arange(pairs) / pairs) / wanted)

    four = positions
    if (missing := 4 - len(sections)) > 0:
        flat = lo.base.ggml_reshape_4d(lo.ctx, positions, node.shape[1] * len(sections), 1, 1, 1)
        four = lo.base.ggml_concat(lo.ctx, flat, lo.part(flat, 0, 0, missing * node.shape[1]), 0)
    counts = ffi.new("int[4]", [*sections, *[0] * missing])
    table = lo.constant(("rope", sections, theta), factors)
    return lo.base.ggml_rope_multi(
        lo.ctx, x, four, table, 2 * pairs, counts, ROPE_MROPE, 0, theta, 1.0, 0.0, 1.0, 0.0, 0.0
    )


def timestep_embedding(lo: Lowering, node: Tensor, t: Value) -> Value:
    return lo.base.ggml_timestep_embedding(lo.ctx, t, node.attrs["dim"], int(node.attrs["max_period"]))


def conv2d(lo: Lowering, node: Tensor, x: Value, kernel: Value, bias: Value | None = None) -> Value:
    s, p = node.attrs["stride"], node.attrs["padding"]
    x = lo.solid(x)
    device = lo.device
    if uses_direct_convolution(node, lo.options, gpu=device.is_vulkan, cores=device.cores):
        y = lo.base.ggml_conv_2d_direct(lo.ctx, kernel, x, s, s, p, p, 1, 1)
    else:
        y = im2col_convolution(lo, node, x, kernel)
    return y if bias is None else lo.base.ggml_add(lo.ctx, y, per_channel(lo, bias))


def im2col_convolution(lo: Lowering, node: Tensor, x: Value, kernel: Value) -> Value:
    s, p = node.attrs["stride"], node.attrs["padding"]
    batch, out_channels, height, width = node.shape
    columns = lo.base.ggml_im2col(lo.ctx, kernel, x, s, s, p, p, 1, 1, True, kernel.type)  # (K, width, height, batch)
    inner = int(columns.ne[0])
    columns = lo.base.ggml_reshape_4d(lo.ctx, columns, inner, batch * height * width, 1, 1)
    matrix = lo.base.ggml_reshape_4d(lo.ctx, kernel, inner, out_channels, 1, 1)
    y = lo.base.ggml_mul_mat(lo.ctx, columns, matrix)  # (batch * height * width, out)
    lo.base.ggml_mul_mat_set_prec(y, PREC_F32)
    y = lo.base.ggml_reshape_4d(lo.ctx, y, width * height, batch, out_channels, 1)
    y = lo.base.ggml_cont(lo.ctx, lo.base.ggml_permute(lo.ctx, y, 0, 2, 1, 3))
    return lo.base.ggml_reshape_4d(lo.ctx, y, width, height, out_channels, batch)


OPS: dict[str, Callable[..., Value]] = {
    "add": add,
    "mul": mul,
    "linear": linear,
    "embedding": lambda lo, node, ids, table: lo.base.ggml_get_rows(lo.ctx, table, ids),
    "reshape": lambda lo, node, x: lo.shaped(x, node.shape),
    "permute": permute,
    "narrow": narrow,
    "concat": concat,
    "silu": unary("ggml_silu"),
    "gelu": unary("ggml_gelu_erf"),
    "gelu_tanh": unary("ggml_gelu"),
    "quick_gelu": unary("ggml_gelu_quick"),
    "relu": unary("ggml_relu"),
    "tanh": unary("ggml_tanh"),
    "leaky_relu": lambda lo, node, x: lo.base.ggml_leaky_relu(lo.ctx, lo.solid(x), node.attrs["slope"], False),
    "prelu": prelu,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "attention": attention,
    "rope": rope,
    "timestep_embedding": timestep_embedding,
    "conv2d": conv2d,
    "upsample_nearest": lambda lo, node, x: lo.base.ggml_upscale(
        lo.ctx, lo.solid(x), node.attrs["factor"], SCALE_NEAREST
    ),
    "pad": lambda lo, node, x: lo.base.ggml_pad(lo.ctx, x, node.attrs["right"], node.attrs["bottom"], 0, 0),
}

DTYPES = {"f32": F32, "i32": I32}
