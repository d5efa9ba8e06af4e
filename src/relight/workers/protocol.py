"""Messages between relight and its workers, over a pipe.

One message is a length (8 bytes, little-endian), a JSON object, and the bytes of the arrays the object names in
`arrays`: what is sent is data, never code. Many bytes of a call or a result lie in shared memory instead, and `shared`
says so: of each there is one at a time, so the one before was read.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from relight.workers.shared import Layout, Shared

MAX_HEADER_BYTES = 16 << 20
WORTH_SHARING = 1 << 20
_LENGTH = struct.Struct("<Q")
_DTYPES = {"float32": np.float32, "int32": np.int32, "uint8": np.uint8}


@dataclass(frozen=True)
class Message:
    """`kind`: `call`, `cancel` to the worker; `ready`, `event`, `result`, `error` from it, and `sign` of a language
    model's that it goes on. `call` numbers the call."""

    kind: str
    call: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def send(stream: IO[bytes], message: Message, shared: Shared | None = None) -> None:
    write(stream, packed(message, shared))


def packed(message: Message, shared: Shared | None = None) -> list[bytes | memoryview]:
    """A message's bytes, those of its arrays where they lie, or without those that are in `shared` now. Raises
    TypeError or ValueError for what is no JSON."""
    arrays = {name: np.ascontiguousarray(array) for name, array in message.arrays.items()}
    layout = [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()]
    values = {"kind": message.kind, "call": message.call, "values": message.values, "arrays": layout}
    many = sum(array.nbytes for array in arrays.values()) >= WORTH_SHARING
    apart = shared if many and message.kind in ("call", "result") else None
    header = json.dumps(values | {"shared": apart is not None}).encode()
    begin = _LENGTH.pack(len(header)) + header
    if apart is not None:
        apart.put(list(arrays.values()))
        return [begin]
    return [begin, *(array.reshape(-1).view(np.uint8).data for array in arrays.values())]


def write(stream: IO[bytes], pieces: Sequence[bytes | memoryview]) -> None:
    for piece in pieces:
        stream.write(piece)
    stream.flush()


def receive(stream: IO[bytes], shared: Shared | None = None) -> Message | None:
    """The next message, or None when the other side has gone. A call's arrays in `shared` are there until the next."""
    prefix = stream.read(_LENGTH.size)
    if len(prefix) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(prefix)
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"a message header of {length} bytes")
    header = json.loads(stream.read(length))
    names = [name for name, _, _ in header["arrays"]]
    layout = [(np.dtype(_DTYPES[dtype]), shape) for _, dtype, shape in header["arrays"]]
    arrays = _where_they_lie(shared, layout) if header["shared"] else _read(stream, layout)
    if arrays is None:
        return None
    if header["kind"] == "result":
        arrays = [array if array.flags.owndata else array.copy() for array in arrays]
    return Message(header["kind"], header["call"], header["values"], dict(zip(names, arrays, strict=True)))


def _where_they_lie(shared: Shared | None, layout: Layout) -> list[np.ndarray]:
    if shared is None:
        raise ValueError("a message in memory that is not shared")
    return shared.find(layout)


def _read(stream: IO[bytes], layout: Layout) -> list[np.ndarray] | None:
    """None where the stream ends before they do."""
    arrays = [np.empty(shape, dtype) for dtype, shape in layout]
    for array in arrays:
        view = memoryview(array.reshape(-1).view(np.uint8))
        while view:
            count = stream.readinto(view)  # type: ignore[attr-defined]
            if not count:
                return None
            view = view[count:]
    return arrays
