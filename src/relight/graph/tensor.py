"""A recorded tensor: which operation makes it, from what, and its shape. Nothing is computed here.

Shapes are written outermost axis first, as NumPy and PyTorch do, and have at most four axes, which is what every
executor can hold.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

Shape = tuple[int, ...]
MAX_AXES = 4

_serial = itertools.count()


class ShapeError(ValueError):
    """Shapes that do not go together; raised while a model is recorded, on every executor alike."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """One node of the graph.

    `dtype` is `f32` or `i32`, and for weights the format in the file (`Q4_K`, `F16`, ...). `attrs` holds what the
    operation needs besides its inputs. `serial` is the order of recording, which executors keep.
    """

    op: str
    shape: Shape
    dtype: str = "f32"
    inputs: tuple[Tensor, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    name: str = ""
    serial: int = field(default_factory=lambda: next(_serial))

    def __post_init__(self) -> None:
        if len(self.shape) > MAX_AXES or any(n < 1 for n in self.shape):
            raise ShapeError(f"{self.op}: shape {self.shape} needs 1 to {MAX_AXES} axes of at least 1")

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __repr__(self) -> str:
        return f"{self.op}{' ' + self.name if self.name else ''} {self.shape}"

    def __add__(self, other: Tensor | float) -> Tensor:
        return _elementwise("add", self, other)

    def __mul__(self, other: Tensor | float) -> Tensor:
        return _elementwise("mul", self, other)

    def reshape(self, *shape: int) -> Tensor:
        if math.prod(shape) != self.size:
            raise ShapeError(f"reshape: {self.shape} has {self.size} elements, {shape} has {math.prod(shape)}")
        return Tensor("reshape", shape, self.dtype, (self,))

    def permute(self, *axes: int) -> Tensor:
        """Axis i of the result is axis `axes[i]` of this tensor."""
        if sorted(axes) != list(range(len(self.shape))):
            raise ShapeError(f"permute: {axes} is no order of the axes of {self.shape}")
        return Tensor("permute", tuple(self.shape[a] for a in axes), self.dtype, (self,), {"axes": axes})

    def narrow(self, axis: int, start: int, length: int) -> Tensor:
        axis %= len(self.shape)
        if start < 0 or length < 1 or start + length > self.shape[axis]:
            raise ShapeError(f"narrow: {start}..{start + length} is outside axis {axis} of {self.shape}")
        shape = (*self.shape[:axis], length, *self.shape[axis + 1 :])
        return Tensor("narrow", shape, self.dtype, (self,), {"axis": axis, "start": start})

    def split(self, sizes: Sequence[int], axis: int = -1) -> list[Tensor]:
        if sum(sizes) != self.shape[axis]:
            raise ShapeError(f"split: {list(sizes)} does not add up to axis {axis} of {self.shape}")
        starts = itertools.accumulate(sizes, initial=0)
        return [self.narrow(axis, start, length) for start, length in zip(starts, sizes, strict=False)]


def input_tensor(name: str, shape: Sequence[int], dtype: str = "f32") -> Tensor:
    """A value given at each run. `dtype` is `f32` or `i32`."""
    return Tensor("input", tuple(shape), dtype, name=name)


def _elementwise(op: str, a: Tensor, b: Tensor | float) -> Tensor:
    """`b` is a number, or a tensor whose axes, aligned at the last, are 1 or those of `a` (or the other way round)."""
    if not isinstance(b, Tensor):
        return Tensor(op, a.shape, "f32", (a,), {"scalar": float(b)})
    if not broadcasts(b.shape, a.shape):
        a, b = b, a
    if not broadcasts(b.shape, a.shape):
        raise ShapeError(f"{op}: neither of {b.shape} and {a.shape} broadcasts to the other")
    return Tensor(op, a.shape, "f32", (a, b))


def broadcasts(small: Shape, large: Shape) -> bool:
    padded = (1,) * (len(large) - len(small)) + small
    return len(padded) == len(large) and all(s in (1, n) for s, n in zip(padded, large, strict=True))


@dataclass(frozen=True)
class Graph:
    """What an executor compiles: named outputs and, found from them, inputs, weights and nodes in recorded order."""

    outputs: Mapping[str, Tensor]

    @cached_property
    def nodes(self) -> tuple[Tensor, ...]:
        """Every tensor the outputs need, leaves included, in the order they were recorded."""
        found: dict[int, Tensor] = {}
        pending = list(self.outputs.values())
        while pending:
            node = pending.pop()
            if node.serial not in found:
                found[node.serial] = node
                pending.extend(node.inputs)
        return tuple(found[serial] for serial in sorted(found))

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        found = {node.name: node for node in self.nodes if node.op == "input"}
        if len(found) != sum(node.op == "input" for node in self.nodes):
            raise ShapeError("two inputs of one graph have the same name")
        return found

    @cached_property
    def weights(self) -> tuple[Tensor, ...]:
        return tuple(node for node in self.nodes if node.op == "weight")

    @cached_property
    def last_use(self) -> dict[int, int]:
        """Serial of a node -> serial of the last node that reads it (outputs: the last node of all)."""
        uses = {source.serial: node.serial for node in self.nodes for source in node.inputs}
        return uses | {node.serial: self.nodes[-1].serial for node in self.outputs.values()}


def same_shape(op: str, tensors: Iterable[Tensor], except_axis: int | None = None) -> None:
    """Raise unless the shapes agree (but for one axis)."""
    shapes = [list(t.shape) for t in tensors]
    if except_axis is not None:
        for shape in shapes:
            shape[except_axis] = 0
    if any(shape != shapes[0] for shape in shapes):
        raise ShapeError(f"{op}: shapes {[t.shape for t in tensors]} do not agree")
