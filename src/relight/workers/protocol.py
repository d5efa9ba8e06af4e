"""Messages between relight and its workers, over a pipe.

One message is a length (8 bytes, little-endian), a JSON object, and the bytes of the arrays the object names in
`arrays`: what is sent is data, never code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

MAX_HEADER_BYTES = 16 << 20
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


def send(stream: IO[bytes], message: Message) -> None:
    write(stream, packed(message))


def packed(message: Message) -> list[bytes | memoryview]:
    """A message's bytes, those of its arrays where they lie. Raises TypeError or ValueError for what is no JSON."""
    arrays = {name: np.ascontiguousarray(array) for name, array in message.arrays.items()}
    layout = [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()]
    header = json.dumps(
        {"kind": message.kind, "call": message.call, "values": message.values, "arrays": layout}
    ).encode()
    return [_LENGTH.pack(len(header)) + header, *(array.reshape(-1).view(np.uint8).data for array in arrays.values())]


def write(stream: IO[bytes], pieces: Sequence[bytes | memoryview]) -> None:
    for piece in pieces:
        stream.write(piece)
    stream.flush()


def receive(stream: IO[bytes]) -> Message | None:
    """The next message, or None when the other side has gone."""
    prefix = stream.read(_LENGTH.size)
    if len(prefix) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(prefix)
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"a message header of {length} bytes")
    header = json.loads(stream.read(length))
    arrays = {}
    for name, dtype, shape in header["arrays"]:
        array = np.empty(shape, _DTYPES[dtype])
        view = memoryview(array.reshape(-1).view(np.uint8))
        while view:
            count = stream.readinto(view)  # type: ignore[attr-defined]
            if not count:
                return None
            view = view[count:]
        arrays[name] = array
    return Message(header["kind"], header["call"], header["values"], arrays)
