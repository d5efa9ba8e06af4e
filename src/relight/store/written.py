"""Small files written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from relight.errors import StoreError


def write_whole(path: Path, text: str) -> None:
    """Replace a file by `text`; a reader sees the old or the new one. Raises StoreError when the disk refuses."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from error
