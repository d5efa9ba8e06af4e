"""Writers: what they write is read back, and nothing half-written stays."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from checkpoints import random_blocks
from relight.errors import ModelFileError
from relight.weights.container import open_container
from relight.weights.formats import FORMATS
from relight.weights.write import TensorSource, write_gguf, write_safetensors


@pytest.mark.parametrize("writer", [write_gguf, write_safetensors])
def test_every_format_is_read_back(writer, tmp_path: Path) -> None:
    fits = {"GGUF": lambda f: f.ggml_type is not None, "safetensors": lambda f: f.block_elements == 1}
    kind = "GGUF" if writer is write_gguf else "safetensors"
    formats = [stored.name for stored in FORMATS.values() if fits[kind](stored)]
    made = {name: random_blocks(name, (3, 512), np.random.default_rng(0)) for name in formats}
    size = writer(tmp_path / "x", [(name, (3, 512), name, lambda name=name: made[name]) for name in formats])
    container = open_container(tmp_path / "x")
    assert size == (tmp_path / "x").stat().st_size
    assert container.container.startswith(kind)
    for name, raw in made.items():
        entry = container.entries[name]
        assert (entry.shape, entry.format) == ((3, 512), name)
        np.testing.assert_array_equal(container.bytes_of(entry), raw)


def test_metadata_is_read_back(tmp_path: Path) -> None:
    metadata = {
        "text": "ü",
        "yes": True,
        "small": 7,
        "large": 2**40,
        "negative": -3,
        "half": 0.5,
        "exact": np.float64(0.1),
        "list": ["a", "", "▁b"],
        "numbers": [1.5, 2.5],
        "flags": np.array([True, False]),
        "bytes": np.arange(5, dtype=np.uint8),
    }
    write_gguf(tmp_path / "x", [], metadata, alignment=64)
    read = open_container(tmp_path / "x").metadata
    assert read.pop("general.alignment") == 64
    assert {key: list(v) if hasattr(v, "__len__") and not isinstance(v, str) else v for key, v in read.items()} == {
        key: list(v) if isinstance(v, np.ndarray) else v for key, v in metadata.items()
    }


def test_pieces_are_asked_for_one_at_a_time(tmp_path: Path) -> None:
    """64 MiB in pieces of one: the writer never holds more than a few."""

    def pieces() -> Iterator[np.ndarray]:
        for i in range(64):
            yield np.full(1 << 18, i, np.float32)

    tracemalloc.start()
    write_gguf(tmp_path / "x", [TensorSource("a", (64, 1 << 18), "F32", pieces)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    container = open_container(tmp_path / "x")
    values = container.bytes_of(container.entries["a"]).view("<f4")
    assert values[:: 1 << 18].tolist() == list(range(64))
    assert peak < 8 << 20


def test_wrong_number_of_bytes_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="tensor a takes 16 bytes, and 12 were produced"):
        write_safetensors(tmp_path / "x", [("a", (4,), "F32", lambda: bytes(12))])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("writer", "format_name"), [(write_gguf, "F8_E4M3"), (write_safetensors, "Q8_0")], ids=["gguf", "safetensors"]
)
def test_format_the_container_has_not_is_refused(writer, format_name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=f"no format {format_name}"):
        writer(tmp_path / "x", [("a", (32,), format_name, lambda: b"")])


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="cannot be written: No such file or directory"):
        write_gguf(tmp_path / "absent" / "x.gguf", [])
