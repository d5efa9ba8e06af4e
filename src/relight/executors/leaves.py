"""What a graph's leaf asks of a stored weight: which rows and columns, and the format an executor holds them in.

Rows and columns are taken in whole blocks of the file's format.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from relight.errors import UnsupportedOp, WeightMissing
from relight.graph import Graph, Tensor
from relight.weights.formats import FORMATS
from relight.weights.quants import read_float32
from relight.weights.stored import StoredTensor

PIECE_BYTES = 32 << 20
CONVERTED = {"F32": np.float32, "F16": np.float16}


MATRIX, KERNEL, VECTOR = "matrix", "kernel", "vector"
SLOTS = {"linear": {1: MATRIX}, "embedding": {1: MATRIX}, "conv2d": {1: KERNEL}}
"""What a leaf is used for, by operation and place among its inputs; VECTOR where nothing is said."""


def roles(graphs: tuple[Graph, ...]) -> dict[object, tuple[Tensor, str]]:
    """Leaf and role of every weight the graphs use, by key. Raises UnsupportedOp for one with two roles."""
    found: dict[object, tuple[Tensor, str]] = {}
    for graph in graphs:
        for node in graph.nodes:
            for slot, source in enumerate(node.inputs):
                if source.op != "weight":
                    continue
                role = SLOTS.get(node.op, {}).get(slot, VECTOR)
                known = found.setdefault(source.attrs["key"], (source, role))[1]
                if known != role:
                    raise UnsupportedOp(f"{source.name} is used both as {known} and as {role}")
    return found


def wanted(graphs: tuple[Graph, ...], source: Mapping[str, StoredTensor]) -> dict[object, tuple[Tensor, str]]:
    """Of `roles`, those whose weights the source has."""
    return {key: (leaf, role) for key, (leaf, role) in roles(graphs).items() if leaf.name in source}


def joined[T](graph: Graph, sets: Sequence[Mapping[object, T]]) -> dict[object, T]:
    """What the graph's leaves were loaded as, by key, from several sets by key. Raises WeightMissing."""
    found = {key: held for loaded in reversed(sets) for key, held in loaded.items()}
    for leaf in graph.weights:
        if leaf.attrs["key"] not in found:
            raise WeightMissing(
                f"{leaf.name}, as this graph uses it, is in none of the {len(sets)} sets of weights loaded"
            )
    return {leaf.attrs["key"]: found[leaf.attrs["key"]] for leaf in graph.weights}


def held_format(leaf: Tensor, role: str) -> str:
    """Matrices stay as they are in the file; kernels are F16 or F32; what is added or multiplied is F32."""
    if role == VECTOR:
        return "F32"
    if role == KERNEL:
        return "F32" if leaf.dtype == "F32" else "F16"
    return "F16" if leaf.dtype == "F8_E4M3" else leaf.dtype


def leaf_float32(leaf: Tensor, stored: StoredTensor) -> np.ndarray:
    """The leaf as float32, in its recorded shape, with its fp8 scale applied."""
    rows = leaf.attrs["rows"]
    return _chosen_columns(leaf, read_float32(stored, None if rows is None else rows.index))


def _chosen_columns(leaf: Tensor, array: np.ndarray) -> np.ndarray:
    columns = leaf.attrs["columns"]
    return np.ascontiguousarray(array if columns is None else array[:, slice(*columns)])


def held_pieces(leaf: Tensor, stored: StoredTensor, form: str, piece_bytes: int = PIECE_BYTES) -> Iterator[np.ndarray]:
    """The leaf's bytes in the format it is held in, as 1-D uint8 pieces; converted only where the file has another.

    Conversion holds about `piece_bytes` of float32 at a time, whatever the size of the leaf.
    """
    if stored.format == form and stored.scale == 1.0:
        yield from leaf_pieces(leaf, stored, piece_bytes)
        return
    if form not in CONVERTED:
        raise UnsupportedOp(f"{leaf.name}: {stored.format} with scale {stored.scale} cannot be made {form} at load")
    rows = leaf.attrs["rows"]
    index = rows.index if rows is not None else np.arange(stored.shape[0] if stored.shape else 1)
    step = max(1, piece_bytes // (4 * math.prod(stored.shape[1:])))
    for start in range(0, len(index), step):
        values = _chosen_columns(leaf, read_float32(stored, index[start : start + step]))
        yield values.astype(CONVERTED[form]).reshape(-1).view(np.uint8)


def leaf_nbytes(leaf: Tensor, format_name: str) -> int:
    """Bytes of the leaf in a format."""
    form = FORMATS[format_name]
    return leaf.size // form.block_elements * form.block_bytes


def leaf_pieces(leaf: Tensor, stored: StoredTensor, piece_bytes: int = PIECE_BYTES) -> Iterator[np.ndarray]:
    """The leaf's bytes in the file's format, in order, as 1-D uint8 pieces of about `piece_bytes`.

    Pieces are views of the memory map wherever the rows lie together and whole; else small copies.
    """
    row_bytes = stored.nbytes // stored.shape[0] if stored.shape else stored.nbytes
    columns = _column_bytes(leaf, stored)
    rows_a_piece = max(1, piece_bytes // row_bytes)
    for part in _selected_parts(leaf, stored, row_bytes, rows_a_piece):
        for start in range(0, len(part), rows_a_piece):
            piece = part[start : start + rows_a_piece]
            if columns is not None:
                piece = np.ascontiguousarray(piece[:, columns[0] : columns[1]])
            yield piece.reshape(-1)


def _selected_parts(leaf: Tensor, stored: StoredTensor, row_bytes: int, rows_a_piece: int) -> Iterator[np.ndarray]:
    parts = [part.reshape(-1, row_bytes) for part in stored.parts]
    rows = leaf.attrs["rows"]
    if rows is None:
        yield from parts
        return
    if len(parts) == 1 and rows.span is not None:
        yield parts[0][slice(*rows.span)]
        return
    starts = np.cumsum([0, *(len(part) for part in parts)])
    for first in range(0, len(rows.index), rows_a_piece):
        wanted = rows.index[first : first + rows_a_piece]
        owner = np.searchsorted(starts, wanted, side="right") - 1
        if (owner == owner[0]).all():
            yield parts[owner[0]][wanted - starts[owner[0]]]
        else:
            yield np.stack([parts[o][row - starts[o]] for o, row in zip(owner, wanted, strict=True)])


def _column_bytes(leaf: Tensor, stored: StoredTensor) -> tuple[int, int] | None:
    if leaf.attrs["columns"] is None:
        return None
    form = FORMATS[stored.format]
    width = math.prod(stored.shape[2:])  # elements of a column: more than one in kernels
    start, stop = (width * column for column in leaf.attrs["columns"])
    if start % form.block_elements or stop % form.block_elements:
        raise UnsupportedOp(
            f"{leaf.name}: columns {start} to {stop} cut a {stored.format} block of {form.block_elements}"
        )
    return start // form.block_elements * form.block_bytes, stop // form.block_elements * form.block_bytes
