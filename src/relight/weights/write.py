"""Writers of GGUF and safetensors files, streaming: a tensor's bytes are asked for when its turn comes.

For conversion, benchmarks and tests. The file appears under its name when it is whole.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from relight.errors import ModelFileError
from relight.weights.formats import STORED, nbytes
from relight.weights.gguf import ARRAY, BOOL, DEFAULT_ALIGNMENT, MAGIC, NUMBERS, STRING
from relight.weights.safetensors import DTYPES

Bytes = bytes | bytearray | memoryview | np.ndarray
GGUF_KINDS = {dtype: kind for kind, dtype in NUMBERS.items() if kind != BOOL}


class TensorSource(NamedTuple):
    """A tensor to be written: shape in torch order; `produce` gives its bytes, whole or in consecutive pieces."""

    name: str
    shape: tuple[int, ...]
    format: str
    produce: Callable[[], Bytes | Iterable[Bytes]]

    @property
    def nbytes(self) -> int:
        return nbytes(self.format, self.shape)


Source = TensorSource | tuple[str, tuple[int, ...], str, Callable[[], Bytes | Iterable[Bytes]]]


def write_gguf(
    path: Path,
    tensors: Iterable[Source],
    metadata: Mapping[str, Any] | None = None,
    alignment: int = DEFAULT_ALIGNMENT,
) -> int:
    """Write GGUF version 3 and return its bytes. Metadata: str, bool, int, float, NumPy arrays, lists of those.

    Raises ModelFileError for a format ggml has not, for a tensor whose bytes do not add up, or when the disk refuses.
    """
    sources = [TensorSource(*source) for source in tensors]
    keys = dict(metadata or {})
    if alignment != DEFAULT_ALIGNMENT:
        keys["general.alignment"] = np.uint32(alignment)
    header = [MAGIC, struct.pack("<IQQ", 3, len(sources), len(keys))]
    header += [_string(key) + _typed(value) for key, value in keys.items()]
    offset = 0
    for source in sources:
        header.append(_gguf_tensor(source, offset))
        offset += source.nbytes + -source.nbytes % alignment
    head = b"".join(header)
    return _write(path, head + bytes(-len(head) % alignment), sources, alignment)


def write_safetensors(path: Path, tensors: Iterable[Source], metadata: Mapping[str, str] | None = None) -> int:
    """Write safetensors and return its bytes. Raises ModelFileError as `write_gguf` does."""
    names = {name: dtype for dtype, name in DTYPES.items()}
    sources = [TensorSource(*source) for source in tensors]
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for source in sources:
        if source.format not in names:
            raise ModelFileError(f"safetensors has no format {source.format} (tensor {source.name}); write GGUF")
        span = [offset, offset + source.nbytes]
        header[source.name] = {"dtype": names[source.format], "shape": list(source.shape), "data_offsets": span}
        offset = span[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return _write(path, struct.pack("<Q", len(text)) + text, sources, 1)


def _gguf_tensor(source: TensorSource, offset: int) -> bytes:
    kind = STORED[source.format].ggml_type
    if kind is None:
        raise ModelFileError(f"GGUF has no format {source.format} (tensor {source.name}); write safetensors")
    sizes = source.shape[::-1]
    return _string(source.name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _typed(value: Any) -> bytes:
    """A metadata value with its type before it."""
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _string(value)
    if isinstance(value, (bool, np.bool_)):
        return struct.pack("<IB", BOOL, value)
    if isinstance(value, (np.ndarray, list, tuple)):
        return struct.pack("<I", ARRAY) + _array(value)
    number = _number(value)
    return struct.pack("<I", GGUF_KINDS[number.dtype]) + number.tobytes()


def _number(value: Any) -> np.ndarray:
    """One number in the narrowest type that files use for it: 32 bits where it fits."""
    if isinstance(value, np.generic):
        return np.asarray(value)
    if isinstance(value, float):
        return np.asarray(value, "<f4")
    return np.asarray(value, "<u4" if 0 <= value < 2**32 else "<i8")


def _array(values: np.ndarray | Sequence[Any]) -> bytes:
    if len(values) and isinstance(values[0], str):
        return struct.pack("<IQ", STRING, len(values)) + b"".join(_string(text) for text in values)
    array = np.asarray(values)
    if not isinstance(values, np.ndarray) and array.dtype == np.float64:
        array = array.astype("<f4")
    if array.dtype == np.bool_:
        return struct.pack("<IQ", BOOL, array.size) + array.tobytes()
    return struct.pack("<IQ", GGUF_KINDS[array.dtype], array.size) + array.tobytes()


def _write(path: Path, head: bytes, sources: Sequence[TensorSource], alignment: int) -> int:
    with _whole_or_not_at_all(path) as out:
        out.write(head)
        for source in sources:
            written = sum(out.write(memoryview(piece).cast("B")) for piece in _pieces(source.produce()))
            if written != source.nbytes:
                raise ModelFileError(
                    f"{path}: tensor {source.name} takes {source.nbytes} bytes, and {written} were produced"
                )
            out.write(bytes(-written % alignment))
        return out.tell()


def _pieces(produced: Bytes | Iterable[Bytes]) -> Iterator[Bytes]:
    if isinstance(produced, (bytes, bytearray, memoryview)):
        yield produced
    elif isinstance(produced, np.ndarray):
        yield np.ascontiguousarray(produced).reshape(-1).view(np.uint8)
    else:
        for piece in produced:
            yield from _pieces(piece)


@contextmanager
def _whole_or_not_at_all(path: Path) -> Iterator[BinaryIO]:
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as out:
            yield out
        partial.replace(path)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
