"""Headers built byte by byte, valid or not."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

F32 = 0


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def tensor(name: str | bytes = "t", sizes: tuple[int, ...] = (4,), kind: int = F32, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def gguf(
    tensors: list[bytes],
    keys: list[bytes] | None = None,
    body: bytes = bytes(64),
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    """A whole file; counts are those of the lists."""
    keys = keys or []
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys + tensors)
    return head + bytes(-len(head) % alignment) + body


def safetensors(header: Any, body: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + body


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
