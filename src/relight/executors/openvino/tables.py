"""Angles of rotary and timestep embeddings, made on the host in float64: bfloat16 cannot hold them.

They depend on inputs of the graph alone, through a few operations at most, which the reference executor carries out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from relight.executors import reference
from relight.graph import Tensor

TABLE_OPS = {"rope": 1, "timestep_embedding": 0}
"""Operations that take a table, and which of their inputs it is made from."""

TableKey = tuple[object, ...]


def makes_table(t: Tensor, number: int) -> bool:
    """Whether a table takes the place of this input."""
    return TABLE_OPS.get(t.op) == number


def table_key(t: Tensor) -> TableKey:
    """Equal for operations that share their table."""
    source = t.inputs[TABLE_OPS[t.op]]
    return t.op, source.serial, *sorted(t.attrs.items())


def why_not(t: Tensor) -> str | None:
    """Why the table of this operation cannot be made on the host; None when it can."""
    pending = [t.inputs[TABLE_OPS[t.op]]]
    while pending:
        node = pending.pop()
        if node.op == "weight" or node.op in TABLE_OPS:
            return f"{t.op} must depend on inputs alone, and {node} is among what it is computed from"
        pending.extend(node.inputs)
    return None


def shapes(t: Tensor) -> list[tuple[int, ...]]:
    """Of the arrays that `make` gives."""
    return [(t.shape[1], t.shape[3] // 2)] * 2 if t.op == "rope" else [t.shape]


def make(t: Tensor, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    """cos and sin [S C/2] of a `rope`, or the whole result [B dim] of a `timestep_embedding`."""
    source = _evaluate(t.inputs[TABLE_OPS[t.op]], inputs)
    return reference.rope_tables(t, source) if t.op == "rope" else (reference.timestep_embedding(t, source),)


def _evaluate(node: Tensor, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    if node.op == "input":
        return inputs[node.name]
    return np.asarray(reference.OPS[node.op](node, *(_evaluate(source, inputs) for source in node.inputs)))
