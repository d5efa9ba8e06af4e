"""What is computed on the host before a run: angles of rotary and timestep embeddings, and rows of embedding tables.

Angles are made in float64, since bfloat16 cannot hold them. Rows are read from the memory map as they are asked for, so
that a table never takes memory. All depend on inputs of the graph alone, through operations that the reference
executor carries out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from relight.executors import reference
from relight.graph import Tensor
from relight.weights.quants import read_float32
from relight.weights.stored import StoredTensor

StoredLeaves = Mapping[object, tuple[Tensor, StoredTensor]]
"""Leaves by key."""

REPLACED: dict[str, tuple[int, ...]] = {"rope": (1,), "timestep_embedding": (0,), "embedding": (0, 1)}
"""By operation, the inputs that a table takes the place of; the first of them is what it is computed from."""


def replaced_inputs(t: Tensor) -> tuple[int, ...]:
    """Numbers of the inputs of this operation that one table replaces; none where it is computed in the graph."""
    if t.op == "embedding" and (t.inputs[1].op != "weight" or why_not(t)):
        return ()
    return REPLACED.get(t.op, ())


def key(t: Tensor) -> tuple[object, ...]:
    """Equal for operations that share their table."""
    source, *others = (t.inputs[number] for number in REPLACED[t.op])
    return t.op, source.serial, *sorted(t.attrs.items()), *(other.attrs["key"] for other in others)


def why_not(t: Tensor) -> str | None:
    """Why the table of this operation cannot be made on the host; None when it can."""
    pending = [t.inputs[REPLACED[t.op][0]]]
    while pending:
        node = pending.pop()
        if node.op == "weight":
            return f"what it is computed from must depend on inputs alone, and depends on {node.name}"
        pending.extend(node.inputs)
    return None


def shapes(t: Tensor) -> list[tuple[int, ...]]:
    """Of the arrays that `make` gives."""
    return [(t.shape[1], t.shape[3] // 2)] * 2 if t.op == "rope" else [t.shape]


def make(t: Tensor, inputs: Mapping[str, np.ndarray], stored: StoredLeaves) -> tuple[np.ndarray, ...]:
    """cos and sin [S C/2] of a `rope`, or the whole result of the other operations."""
    source = _evaluate(t.inputs[REPLACED[t.op][0]], inputs)
    match t.op:
        case "rope":
            return reference.rope_tables(t, source)
        case "timestep_embedding":
            return (reference.timestep_embedding(t, source),)
        case _:
            return (_rows(source, *stored[t.inputs[1].attrs["key"]]),)


def _rows(ids: np.ndarray, leaf: Tensor, stored: StoredTensor) -> np.ndarray:
    """Each row that occurs is read once."""
    rows, columns = leaf.attrs["rows"], leaf.attrs["columns"]
    wanted, places = np.unique(ids, return_inverse=True)
    read = read_float32(stored, wanted if rows is None else rows.index[wanted])
    return np.ascontiguousarray((read if columns is None else read[:, slice(*columns)])[places])


def _evaluate(node: Tensor, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    if node.op == "input":
        return inputs[node.name]
    return np.asarray(reference.OPS[node.op](node, *(_evaluate(source, inputs) for source in node.inputs)))
