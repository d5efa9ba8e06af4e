"""The part of a stored weight that a graph's leaf asks for: rows and columns, in whole blocks of the file's format."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from relight.errors import UnsupportedOp
from relight.graph import Tensor
from relight.weights.checkpoint import StoredTensor
from relight.weights.formats import FORMATS
from relight.weights.quants import read_float32

PIECE_BYTES = 32 << 20


def leaf_float32(leaf: Tensor, stored: StoredTensor) -> np.ndarray:
    """The leaf as float32, in its recorded shape."""
    array = read_float32(stored)
    if leaf.attrs["rows"] is not None:
        array = array[leaf.attrs["rows"].index]
    if leaf.attrs["columns"] is not None:
        start, stop = leaf.attrs["columns"]
        array = array[:, start:stop]
    return np.ascontiguousarray(array)


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
    start, stop = leaf.attrs["columns"]
    if start % form.block_elements or stop % form.block_elements:
        raise UnsupportedOp(
            f"{leaf.name}: columns {start} to {stop} cut a {stored.format} block of {form.block_elements}"
        )
    return start // form.block_elements * form.block_bytes, stop // form.block_elements * form.block_bytes
