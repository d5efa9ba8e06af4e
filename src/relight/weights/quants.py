"""Stored bytes to float32, for the reference executor, for conversion and for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from relight.errors import ModelFileError
from relight.weights.formats import FORMATS, nbytes

if TYPE_CHECKING:
    from relight.weights.checkpoint import StoredTensor

CHUNK_ELEMENTS = 1 << 22

Rows = slice | Sequence[int] | np.ndarray
"""Rows along axis 0: a slice, or indices in any order, repeats allowed."""


def to_float32(format: str, raw: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Whole rows of uint8 as float32 of `shape` (torch order). Raises ModelFileError when the sizes do not agree."""
    if format not in FORMATS:
        raise ModelFileError(f"format {format} cannot be computed with; relight has {', '.join(FORMATS)}")
    expected = nbytes(format, shape)
    if raw.size != expected:
        raise ModelFileError(f"{format} of shape {list(shape)} takes {expected} bytes, and {raw.size} are given")
    if not expected:
        return np.zeros(shape, np.float32)
    return DECODERS.get(format, _blocks(format))(np.ascontiguousarray(raw)).reshape(shape)


def read_float32(tensor: StoredTensor, rows: Rows | None = None) -> np.ndarray:
    """A stored tensor, or some of its rows, as float32 with its fp8 scale applied.

    It is decoded a few million values at a time: beside the result only one chunk is in memory.
    """
    if len(tensor.shape) < 2:
        whole = to_float32(tensor.format, _joined(tensor.parts), tensor.shape) * np.float32(tensor.scale)
        return whole if rows is None else np.atleast_1d(whole)[_index(rows)]
    chosen = np.arange(tensor.shape[0])[slice(None) if rows is None else _index(rows)]
    out = np.empty((len(chosen), *tensor.shape[1:]), np.float32)
    step = max(1, CHUNK_ELEMENTS // max(1, prod(tensor.shape[1:])))
    for start in range(0, len(chosen), step):
        some = chosen[start : start + step]
        out[start : start + len(some)] = to_float32(
            tensor.format, row_bytes(tensor, some), (len(some), *tensor.shape[1:])
        )
    if tensor.scale != 1.0:
        out *= np.float32(tensor.scale)
    return out


def row_bytes(tensor: StoredTensor, rows: np.ndarray) -> np.ndarray:
    """The stored bytes of the given rows, in that order, on one axis: a view where they lie together, else a copy."""
    size = nbytes(tensor.format, tensor.shape[1:])
    pieces = [part.reshape(-1, size) for part in tensor.parts] if size else []
    first = 0
    for piece in pieces:
        if len(rows) and first <= rows[0] and rows[0] + len(rows) <= first + len(piece) and _consecutive(rows):
            return piece[rows[0] - first : rows[0] - first + len(rows)].reshape(-1)
        first += len(piece)
    out = np.empty((len(rows), size), np.uint8)
    first = 0
    for piece in pieces:
        here = (rows >= first) & (rows < first + len(piece))
        out[here] = piece[rows[here] - first]
        first += len(piece)
    return out.reshape(-1)


def _consecutive(rows: np.ndarray) -> bool:
    return bool(rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all())


def _index(rows: Rows) -> slice | np.ndarray:
    return rows if isinstance(rows, slice) else np.asarray(rows, dtype=np.int64)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _bf16(raw: np.ndarray) -> np.ndarray:
    return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _f8_e4m3_table() -> np.ndarray:
    """The 256 values of float8 e4m3fn: bias 7, subnormals, no infinity, NaN where all bits but the sign are set."""
    code = np.arange(256)
    exponent, mantissa = (code >> 3) & 15, code & 7
    size = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))
    size[(code & 127) == 127] = np.nan
    return np.where(code & 128, -size, size).astype(np.float32)


F8_E4M3 = _f8_e4m3_table()

DECODERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "F32": lambda raw: raw.view("<f4").copy(),
    "F16": lambda raw: raw.view("<f2").astype(np.float32),
    "BF16": _bf16,
    "F8_E4M3": lambda raw: F8_E4M3[raw],
    "I32": lambda raw: raw.view("<i4").astype(np.float32),
}


def _blocks(format: str) -> Callable[[np.ndarray], np.ndarray]:
    def decode(raw: np.ndarray) -> np.ndarray:
        from gguf import GGMLQuantizationType, quants  # 0.1 s to import, and most runs decode no block on the host

        with np.errstate(all="ignore"):  # blocks of zero weights carry any scale, Inf included
            values: Any = quants.dequantize(raw.reshape(-1, FORMATS[format].block_bytes), GGMLQuantizationType[format])
        return np.asarray(values, np.float32)

    return decode
