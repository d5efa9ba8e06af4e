"""A weights file opened once and again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from relight.weights import container
from relight.weights.container import open_container
from relight.weights.write import write_safetensors


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files whose headers were read."""
    found: list[Path] = []
    original = container.read_safetensors

    def reading(file):
        found.append(file.path)
        return original(file)

    monkeypatch.setattr(container, "read_safetensors", reading)
    return found


def written(path: Path, count: int) -> Path:
    write_safetensors(path, [(f"t{i}", (3, 2), "F32", np.full(6, i, np.float32).tobytes) for i in range(count)])
    return path


def test_a_header_is_read_once(tmp_path: Path, read: list[Path]) -> None:
    path = written(tmp_path / "a.safetensors", 2)
    first = open_container(path)
    first.close()
    second = open_container(path)
    assert read == [path]
    assert second.bytes_of(second.entries["t1"]).view(np.float32).tolist() == [1.0] * 6


def test_a_file_that_was_replaced_or_written_anew_is_read_again(tmp_path: Path, read: list[Path]) -> None:
    path = written(tmp_path / "a.safetensors", 2)
    assert len(open_container(path).entries) == 2
    os.replace(written(tmp_path / "b.safetensors", 3), path)
    assert len(open_container(path).entries) == 3
    content = path.read_bytes()
    path.write_bytes(content.replace(b"t2", b"tX"))
    os.utime(path, ns=(1, 1))
    assert "tX" in open_container(path).entries and len(read) == 3
