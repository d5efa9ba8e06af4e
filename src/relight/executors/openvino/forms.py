"""Forms that weights are held in: as stored, or packed into 8 or 4 bits with a scale for each 32 columns.

`int8` is Q8_0's arithmetic (w = scale * code) and `int4` Q4_1's (w = scale * code + low), but with codes and scales
in arrays of their own, which a graph can take as inputs and unpack while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import numpy as np

from relight.executors.leaves import leaf_nbytes, leaf_pieces
from relight.executors.openvino import tables
from relight.graph import Graph, Tensor
from relight.weights.quants import read_float32
from relight.weights.stored import StoredTensor

Role = Literal["matrix", "constant", "value"]
"""What an operation does with a weight: multiplies by it, has it compiled in, or adds it and the like."""

Form = Literal["F32", "F16", "BF16", "int8", "int4"]
Precision = Literal["f32", "bf16", "int8", "int4", "auto"]

PLAIN: tuple[Form, ...] = ("F32", "F16", "BF16")
GROUP = 32
CHUNK_ELEMENTS = 1 << 18  # a chunk and its copies stay in the cache: half the time of larger ones

NUMPY: dict[str, type[np.generic]] = {
    "f32": np.float32,
    "f16": np.float16,
    "bf16": np.uint16,
    "i8": np.int8,
    "u8": np.uint8,
}
ELEMENT_BYTES = {"i32": 4} | {element: np.dtype(kind).itemsize for element, kind in NUMPY.items()}
"""Of the elements that arrays have, by OpenVINO's names; BF16 is held as uint16."""

ROLES: dict[tuple[str, int], Role] = {
    ("linear", 1): "matrix",
    ("conv2d", 1): "constant",
    ("conv2d", 2): "constant",
    ("prelu", 1): "constant",
    ("group_norm", 1): "constant",
    ("group_norm", 2): "constant",
}
"""By operation and place among its inputs; everywhere else a weight is a value."""


@dataclass(frozen=True)
class Use:
    """A weight in one role and form; equal uses share memory."""

    leaf: Tensor
    role: Role
    form: Form

    @property
    def key(self) -> tuple[object, ...]:
        return self.leaf.attrs["key"], self.form

    @property
    def nbytes(self) -> int:
        match self.form:
            case "int8":
                return self.leaf.size + 2 * self.leaf.size // GROUP
            case "int4":
                return self.leaf.size // 2 + 4 * self.leaf.size // GROUP
            case plain:
                return leaf_nbytes(self.leaf, plain)


def uses(graph: Graph, precision: Precision) -> Iterator[tuple[Tensor, int, Use]]:
    """Every (node, input number, use of a weight) of a graph, but for tables that are read on the host."""
    for node in graph.nodes:
        on_host = tables.replaced_inputs(node)
        for number, source in enumerate(node.inputs):
            if source.op == "weight" and number not in on_host:
                role = ROLES.get((node.op, number), "value")
                yield node, number, Use(source, role, form_of(source, role, precision))


def form_of(leaf: Tensor, role: Role, precision: Precision) -> Form:
    """Files' own floating point formats stay as they are unless 8 or 4 bits are asked for.

    `auto` keeps quantised matrices in 8 bits: what that adds to their error is small, and they keep about their size.
    """
    if role in ("constant", "value"):
        return "F32"
    stored = next((form for form in PLAIN if form == leaf.dtype), None)
    columns = prod(leaf.shape[1:])
    if precision == "int4" and columns % (2 * GROUP) == 0:
        return "int4"
    if (precision in ("int4", "int8") or (precision == "auto" and stored is None)) and columns % GROUP == 0:
        return "int8"
    return stored or ("BF16" if precision == "bf16" else "F32")


def pack(use: Use, stored: StoredTensor, threads: int) -> list[np.ndarray]:
    """The arrays of a use: one for the plain forms; codes and scales [rows groups 1] for int8; codes, scales and lows
    [rows 2 groups/2 1] for int4, whose bytes hold a column of the left half of a row low, of the right half high.

    A plain form that the file has is a view of the memory map where the rows lie together, and nothing is copied.
    """
    if use.form in PLAIN and use.form == stored.format and stored.scale == 1.0:
        pieces = list(leaf_pieces(use.leaf, stored, 1 << 62))
        whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return [whole.view(NUMPY[use.form.lower()]).reshape(use.leaf.shape)]
    if len(use.leaf.shape) < 2:
        return [read_float32(stored, _rows(use.leaf))]
    return _packed(use, stored, threads)


def _packed(use: Use, stored: StoredTensor, threads: int) -> list[np.ndarray]:
    rows, columns = use.leaf.shape[0], prod(use.leaf.shape[1:])
    out = [np.empty(shape, NUMPY[element]) for element, shape in layout(use)]
    chosen = _rows(use.leaf)
    step = max(1, CHUNK_ELEMENTS // columns)
    stored = replace(stored, parts=tuple(stored.parts))  # what is made when it is asked for is made once

    def fill(first: int) -> None:
        some = slice(first, min(first + step, rows))
        values = read_float32(stored, some if chosen is None else chosen[some])
        if use.leaf.attrs["columns"] is not None:
            values = values[:, slice(*use.leaf.attrs["columns"])]
        for array, part in zip(out, ENCODERS[use.form](values.reshape(len(values), columns)), strict=True):
            array[some] = part.reshape(len(values), *array.shape[1:])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(0, rows, step)))
    return out


def _rows(leaf: Tensor) -> np.ndarray | None:
    selected = leaf.attrs["rows"]
    return None if selected is None else np.asarray(selected.index)


def layout(use: Use) -> list[tuple[str, tuple[int, ...]]]:
    """Element types and shapes of the arrays that `pack` gives."""
    rows, groups = use.leaf.shape[0], prod(use.leaf.shape[1:]) // GROUP
    match use.form:
        case "int8":
            return [("i8", (rows, groups, GROUP)), ("f16", (rows, groups, 1))]
        case "int4":
            scales = (rows, 2, groups // 2, 1)
            return [("u8", (rows, groups // 2, GROUP)), ("f16", scales), ("f16", scales)]
        case plain:
            return [(plain.lower(), use.leaf.shape)]


def to_int8(values: np.ndarray) -> list[np.ndarray]:
    grouped = values.reshape(len(values), -1, GROUP)
    scale = (np.abs(grouped).max(-1, keepdims=True) / 127).astype(np.float16)
    codes = np.rint(grouped * _inverse(scale)).clip(-127, 127)
    return [codes.astype(np.int8), scale]


def to_int4(values: np.ndarray) -> list[np.ndarray]:
    grouped = values.reshape(len(values), -1, GROUP)
    low = grouped.min(-1, keepdims=True).astype(np.float16)
    scale = ((grouped.max(-1, keepdims=True) - low) / 15).astype(np.float16)
    codes = np.rint((grouped - low) * _inverse(scale)).clip(0, 15).astype(np.uint8)
    left, right = np.split(codes.reshape(len(values), 2, -1), 2, axis=1)
    return [left | right << 4, scale, low]


def _inverse(scale: np.ndarray) -> np.ndarray:
    wide = scale.astype(np.float32)
    return np.divide(1, wide, out=np.zeros_like(wide), where=wide != 0)


def to_bf16(values: np.ndarray) -> list[np.ndarray]:
    """Rounded to nearest, ties to even; as uint16."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return [((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)]


ENCODERS: dict[Form, Callable[[np.ndarray], list[np.ndarray]]] = {
    "F32": lambda values: [values],
    "F16": lambda values: [values.astype(np.float16)],
    "BF16": to_bf16,
    "int8": to_int8,
    "int4": to_int4,
}
