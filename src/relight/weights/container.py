"""One weights file, opened: its kind found from the first bytes, its header read by the bounded readers."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from relight.weights.gguf import looks_like_gguf, read_gguf
from relight.weights.mapped import Entry, Header, MappedFile, refuse_other_content
from relight.weights.safetensors import looks_like_safetensors, read_safetensors

FILES_KNOWN = 16


@dataclass(frozen=True)
class Container:
    """A mapped file and what its header says. Arrays given out stay valid for as long as they are held."""

    file: MappedFile
    container: str
    entries: dict[str, Entry]
    metadata: dict[str, Any]

    @property
    def path(self) -> Path:
        return self.file.path

    def bytes_of(self, entry: Entry) -> np.ndarray:
        return self.file.view(entry.offset, entry.nbytes)

    def close(self) -> None:
        self.file.close()


def open_container(path: Path) -> Container:
    """Raises ModelFileError for what is neither safetensors nor GGUF, and for broken headers."""
    file = MappedFile(path)
    try:
        if looks_like_gguf(file):
            header = read_gguf(file)  # its texts are decoded when they are asked for, from this map
        elif looks_like_safetensors(file):
            there = path.stat()
            header = _safetensors(path, there.st_ino, there.st_size, there.st_mtime_ns)
        else:
            refuse_other_content(file)
    except BaseException:
        file.close()
        raise
    return Container(file, header.container, header.entries, header.metadata)


@lru_cache(maxsize=FILES_KNOWN)
def _safetensors(path: Path, inode: int, size: int, changed_ns: int) -> Header:
    """Read once as long as the file is the same: every component of an all-in-one file asks for it."""
    with closing(MappedFile(path)) as file:
        return read_safetensors(file)
