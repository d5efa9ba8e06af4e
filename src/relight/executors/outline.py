"""ggml's lowering in outline, with no library: what each operation makes, and where it would lie in memory.

It follows `ggml/lowering.py`: which results are views, which take the place of an input that dies there, which copies
an operation makes, and in what order. A change there is a change here; the tests compare the bytes of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from relight.executors.arena import Arena, Spot
from relight.executors.base import CompileOptions
from relight.executors.choices import (
    UNKNOWN_CORES,
    VIEW_ALIGNMENT,
    chunk_bytes,
    queries_a_chunk,
    uses_direct_convolution,
    uses_flash,
)
from relight.graph import Graph, Tensor

NOWHERE = np.empty(1, np.float32)


@dataclass(eq=False)
class Block:
    """Memory that a value and its views share. Those of inputs and weights are `fixed`: counted apart, never reused."""

    nbytes: int
    fixed: bool = False


@dataclass(frozen=True)
class Value:
    """A tensor on the device that is not there. `layout` has its shape and strides, and no memory behind it."""

    block: Block
    layout: np.ndarray
    is_view: bool = False

    def itself(self) -> Value:
        return self

    def seen_as(self, layout: np.ndarray) -> Value:
        return Value(self.block, layout, is_view=True)

    @property
    def is_solid(self) -> bool:
        return self.layout.flags.c_contiguous and self.offset % VIEW_ALIGNMENT == 0

    @property
    def offset(self) -> int:
        return self.layout.ctypes.data - NOWHERE.ctypes.data


@dataclass(frozen=True)
class Step:
    """`made` is written while `read` are held; it may take the place of one of `replaceable` that dies here."""

    made: Block
    read: tuple[Block, ...]
    replaceable: tuple[Block, ...]


def unbacked(shape: Sequence[int], element_bytes: int) -> np.ndarray:
    """An array in order that must never be read: NumPy keeps count of its strides through views."""
    strides = [element_bytes * math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    dtype = np.float32 if element_bytes == 4 else np.float16
    return np.lib.stride_tricks.as_strided(NOWHERE.view(dtype), shape, strides, writeable=False)


def core(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without the outer axes of 1, which ggml does not tell apart."""
    first = next((axis for axis, n in enumerate(shape) if n != 1), len(shape))
    return tuple(shape[first:])


class Outline:
    """The steps of a graph on ggml: what each writes and what it reads."""

    def __init__(self, graph: Graph, options: CompileOptions, *, gpu: bool, cores: int = UNKNOWN_CORES) -> None:
        self.options, self.gpu, self.cores = options, gpu, cores
        self.steps: list[Step] = []
        self.masks: dict[object, Value] = {}
        self.fixed_bytes = 0
        values: dict[int, Value] = {}
        for node in graph.nodes:
            if node.op in ("input", "weight"):
                values[node.serial] = self.fixed(node)
            else:
                values[node.serial] = OPS[node.op](self, node, *(values[source.serial] for source in node.inputs))
        self.outputs = {self.solid(values[node.serial]).block for node in graph.outputs.values()}

    def fixed(self, node: Tensor) -> Value:
        if node.op == "input":
            self.fixed_bytes += 4 * node.size
        return Value(Block(0, fixed=True), unbacked(node.shape, 4))

    def new(self, shape: Sequence[int], *read: Value, in_place: bool = False, element_bytes: int = 4) -> Value:
        layout = unbacked(shape, element_bytes)
        alike = (x for x in read if in_place and not x.is_view and core(x.layout.shape) == core(shape))
        made = Value(Block(layout.nbytes), layout)
        self.steps.append(Step(made.block, tuple(x.block for x in read), tuple(x.block for x in alike)))
        return made

    def copy(self, x: Value, element_bytes: int = 4) -> Value:
        return self.new(x.layout.shape, x, element_bytes=element_bytes)

    def solid(self, x: Value) -> Value:
        return x if x.is_solid else self.copy(x)

    def shaped(self, x: Value, shape: Sequence[int]) -> Value:
        try:
            layout = np.reshape(x.layout, tuple(shape), copy=False)
        except ValueError:  # only a copy has this shape
            return self.shaped(self.copy(x), shape)
        return Value(x.block, layout, x.is_view or core(shape) != core(x.layout.shape))

    def peak_bytes(self) -> int:
        """What is in use at most when blocks are placed as ggml's allocator places them."""
        last = {block: i for i, step in enumerate(self.steps) for block in step.read}
        last |= dict.fromkeys(self.outputs, len(self.steps))
        arena, places = Arena(chunk_bytes(gpu=self.gpu)), dict[Block, Spot]()
        for i, step in enumerate(self.steps):
            dying = dict.fromkeys(block for block in step.read if last[block] == i and not block.fixed)
            replaced = next((block for block in step.replaceable if block in dying), None)
            if replaced is None:
                places[step.made] = arena.take(step.made.nbytes)
            else:
                places[step.made] = places.pop(replaced)
                del dying[replaced]
            for block in dying:
                arena.give_back(places.pop(block), block.nbytes)
        return arena.peak


def elementwise(outline: Outline, node: Tensor, *inputs: Value) -> Value:
    return outline.new(node.shape, *inputs, in_place=True)


def scaled(outline: Outline, node: Tensor, *inputs: Value) -> Value:
    """A sum or product with a number needs its input in order."""
    return elementwise(outline, node, *(inputs if len(inputs) > 1 else map(outline.solid, inputs)))


def linear(outline: Outline, node: Tensor, x: Value, weight: Value, bias: Value | None = None) -> Value:
    inner = node.inputs[0].shape[-1]
    x = outline.shaped(outline.solid(x), (x.layout.size // inner, inner))
    if node.attrs["wide_range"] and node.inputs[1].dtype != "F32":
        x = outline.new(x.layout.shape, x, in_place=True)
    y = outline.new((x.layout.shape[0], node.shape[-1]), x)
    if bias is not None:
        y = outline.new(y.layout.shape, y, in_place=True)
    return outline.shaped(y, node.shape)


def reshape(outline: Outline, node: Tensor, x: Value) -> Value:
    return outline.shaped(x, node.shape)


def permute(outline: Outline, node: Tensor, x: Value) -> Value:
    return x.seen_as(x.layout.transpose(node.attrs["axes"]))


def narrow(outline: Outline, node: Tensor, x: Value) -> Value:
    axis, start = node.attrs["axis"], node.attrs["start"]
    return part(outline, x, axis, start, node.shape[axis])


def part(outline: Outline, x: Value, axis: int, start: int, length: int) -> Value:
    if x.layout.strides[-1] != x.layout.itemsize:
        x = outline.copy(x)
    return x.seen_as(x.layout[(slice(None),) * axis + (slice(start, start + length),)])


def concat(outline: Outline, node: Tensor, *parts: Value) -> Value:
    return join(outline, [partial(Value.itself, x) for x in parts], node.attrs["axis"])


def join(outline: Outline, parts: list[Callable[[], Value]], axis: int) -> Value:
    """In pairs of pairs, each part made just before it is needed, which is the order of ggml's graphs."""
    while len(parts) > 1:
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [partial(joined, outline, pair, axis) if len(pair) == 2 else pair[0] for pair in pairs]
    return parts[0]()


def joined(outline: Outline, pair: list[Callable[[], Value]], axis: int) -> Value:
    first, second = pair[0](), pair[1]()
    shape = list(first.layout.shape)
    shape[axis] += second.layout.shape[axis]
    return outline.new(shape, first, second)


def prelu(outline: Outline, node: Tensor, x: Value, slopes: Value) -> Value:
    above = elementwise(outline, node, x)
    return elementwise(outline, node, elementwise(outline, node, x, above), above)


def rms_norm(outline: Outline, node: Tensor, x: Value, scale: Value) -> Value:
    return elementwise(outline, node, elementwise(outline, node, x))


def layer_norm(outline: Outline, node: Tensor, x: Value, *affine: Value) -> Value:
    return outline.new(node.shape, x)  # product and sum take its place


def group_norm(outline: Outline, node: Tensor, x: Value, *affine: Value) -> Value:
    return outline.new(node.shape, outline.solid(x))


def attention(outline: Outline, node: Tensor, q: Value, k: Value, v: Value, bias: Value | None = None) -> Value:
    q, k, v = (x.seen_as(x.layout.transpose(0, 2, 1, 3)) for x in (q, k, v))  # [B H S C]
    if uses_flash(node, outline.options, gpu=outline.gpu):
        halves = [outline.copy(x, element_bytes=2) for x in (k, v)]
        if bias is not None:
            halves.append(shared_mask(outline, node, lambda: outline.copy(bias, element_bytes=2)))
        return outline.new(node.shape, q, *halves)
    return chunked_attention(outline, node, q, k, v, bias)


def chunked_attention(outline: Outline, node: Tensor, q: Value, k: Value, v: Value, bias: Value | None) -> Value:
    v = outline.copy(v.seen_as(v.layout.transpose(0, 1, 3, 2)))
    k, q = outline.copy(k), outline.copy(q)
    (batch, queries, heads, size), keys = node.shape, k.layout.shape[2]
    chunk = queries_a_chunk(node, outline.options)

    def attended(start: int) -> Value:
        count = min(chunk, queries - start)
        scores = outline.new((batch, heads, count, keys), k, outline.solid(part(outline, q, 2, start, count)))
        masks = []
        if bias is not None:
            mask = shared_mask(outline, node, lambda: outline.solid(bias))
            masks.append(outline.solid(part(outline, mask, mask.layout.ndim - 2, start, count)))
        scores = outline.new(scores.layout.shape, scores, *masks, in_place=True)
        mixed = outline.new((batch, heads, count, size), v, scores)
        return outline.copy(mixed.seen_as(mixed.layout.transpose(0, 2, 1, 3)))

    return join(outline, [partial(attended, start) for start in range(0, queries, chunk)], 1)


def shared_mask(outline: Outline, node: Tensor, make: Callable[[], Value]) -> Value:
    key = node.inputs[3].serial, uses_flash(node, outline.options, gpu=outline.gpu)
    if key not in outline.masks:
        outline.masks[key] = make()
    return outline.masks[key]


def rope(outline: Outline, node: Tensor, x: Value, positions: Value) -> Value:
    four = outline.new((4 * node.shape[1],), positions)
    return outline.new(node.shape, x, four, in_place=True)


def conv2d(outline: Outline, node: Tensor, x: Value, kernel: Value, bias: Value | None = None) -> Value:
    x = outline.solid(x)
    if uses_direct_convolution(node, outline.options, gpu=outline.gpu, cores=outline.cores):
        return outline.new(node.shape, x)  # the bias is added in place
    batch, _, height, width = node.shape
    inner = math.prod(node.inputs[1].shape[1:])
    kernel_bytes = 4 if node.inputs[1].dtype == "F32" else 2
    columns = outline.new((batch, height, width, inner), x, element_bytes=kernel_bytes)
    y = outline.copy(outline.new(node.shape, columns)).seen_as(unbacked(node.shape, 4))
    return y if bias is None else outline.new(node.shape, y)  # nothing is written over a view


def whole(outline: Outline, node: Tensor, *inputs: Value) -> Value:
    """A result of its own, from inputs in order."""
    return outline.new(node.shape, *map(outline.solid, inputs))


OPS: dict[str, Callable[..., Value]] = {
    "add": scaled,
    "mul": scaled,
    "linear": linear,
    "embedding": lambda outline, node, ids, table: outline.new(node.shape, ids, table),
    "reshape": reshape,
    "permute": permute,
    "narrow": narrow,
    "concat": concat,
    "silu": elementwise,
    "gelu": elementwise,
    "gelu_tanh": elementwise,
    "quick_gelu": elementwise,
    "relu": elementwise,
    "tanh": elementwise,
    "leaky_relu": whole,
    "prelu": prelu,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "attention": attention,
    "rope": rope,
    "timestep_embedding": whole,
    "conv2d": conv2d,
    "upsample_nearest": whole,
    "pad": whole,
}
