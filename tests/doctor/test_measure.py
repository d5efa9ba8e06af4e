"""The short measurements."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relight.doctor import measure


def ticking(step: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += step


def test_memory_bandwidth_counts_what_is_read_and_written() -> None:
    clock = ticking(measure.BANDWIDTH_S / 3.5)
    rate = measure.memory_bandwidth(1, lambda: next(clock))
    # Looks at 0 (start), 1 step (copy), 2 (copy), 3 (copy), 4 (over), 5 (end): three copies in five steps.
    assert rate == pytest.approx(2 * 3 * measure.BLOCK_BYTES / (5 * measure.BANDWIDTH_S / 3.5))


def test_memory_bandwidth_of_this_machine_is_measured_at_once() -> None:
    started = time.perf_counter()
    assert 1e8 < measure.memory_bandwidth(1) < 1e13
    assert time.perf_counter() - started < 10


def test_a_cold_read_takes_a_part_of_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "READ_BYTES", 1 << 20)
    monkeypatch.setattr(measure, "PIECE_BYTES", 1 << 16)
    file = tmp_path / "model.gguf"
    file.write_bytes(bytes(3 << 20))
    clock = ticking(0.001)
    found = measure.read_cold(file, lambda: next(clock))
    assert found.bytes == 1 << 20 and found.rate == pytest.approx((1 << 20) / found.seconds)


def test_a_read_ends_after_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "PIECE_BYTES", 4096)
    file = tmp_path / "model.gguf"
    file.write_bytes(bytes(1 << 20))
    clock = ticking(1.0)
    found = measure.read_cold(file, lambda: next(clock))
    assert 0 < found.bytes < 10 * 4096 and found.seconds >= measure.READ_S


def test_a_small_file_is_read_whole_and_a_missing_one_raises(tmp_path: Path) -> None:
    file = tmp_path / "small.gguf"
    file.write_bytes(b"GGUF" * 100)
    assert measure.read_cold(file).bytes == 400
    with pytest.raises(FileNotFoundError):
        measure.read_cold(tmp_path / "none.gguf")
