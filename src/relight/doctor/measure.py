"""Two short measurements: how fast memory is copied, and how fast a model file comes from its disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BLOCK_BYTES = 32 << 20
"""Of each thread's two arrays: more than a last-level cache's share."""
BANDWIDTH_S = 0.12
MOST_THREADS = 4
READ_BYTES, PIECE_BYTES = 256 << 20, 4 << 20
READ_S = 4.0
SAMPLES = 16


@dataclass(frozen=True)
class ColdRead:
    """Bytes and seconds of a timed read of one file. `cached`: the kernel kept the file in memory all the same, so the
    disk was not measured."""

    path: str
    bytes: int
    seconds: float
    cached: bool

    @property
    def rate(self) -> float:
        return self.bytes / max(self.seconds, 1e-6)


def memory_bandwidth(threads: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Bytes read and written a second by copies on a few threads at once, within 0.3 s."""
    count = max(1, min(threads, MOST_THREADS))
    pairs = [(np.ones(BLOCK_BYTES // 8), np.ones(BLOCK_BYTES // 8)) for _ in range(count)]

    def copy(pair: tuple[np.ndarray, np.ndarray], until: float) -> int:
        copied = 0
        while clock() < until:
            np.copyto(pair[1], pair[0])
            copied += 1
        return copied

    with ThreadPoolExecutor(count) as pool:
        started = clock()
        copies = sum(pool.map(copy, pairs, [started + BANDWIDTH_S] * count))
        seconds = clock() - started
    return 2 * copies * BLOCK_BYTES / seconds


def read_cold(path: Path, clock: Callable[[], float] = time.perf_counter) -> ColdRead:
    """Read up to 256 MiB from the middle of a file, for four seconds at most, after the kernel was told to forget that
    part. Pages another program has mapped stay in memory. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        length = min(READ_BYTES, size)
        start = (size - length) // 2 // PIECE_BYTES * PIECE_BYTES
        _forget(file.fileno(), start, length)
        cached = _is_cached(file.fileno(), start, length)
        piece = memoryview(bytearray(PIECE_BYTES))
        file.seek(start)
        done, began = 0, clock()
        while done < length and clock() - began < READ_S:
            count = file.readinto(piece[: min(PIECE_BYTES, length - done)])
            if not count:
                break
            done += count
        return ColdRead(str(path), done, clock() - began, cached)


def _forget(file: int, start: int, length: int) -> None:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, start, length, os.POSIX_FADV_DONTNEED)


def _is_cached(file: int, start: int, length: int) -> bool:
    """Whether most of it is in memory, by reads that give up rather than wait. Where the system has no such reads the
    answer is no: the rate then tells."""
    if not hasattr(os, "RWF_NOWAIT") or length < SAMPLES * 4096:
        return False
    hits = 0
    for i in range(SAMPLES):
        try:
            hits += os.preadv(file, [bytearray(1)], start + length * i // SAMPLES, os.RWF_NOWAIT) == 1
        except BlockingIOError:
            continue
        except OSError:
            return False
    return hits > SAMPLES // 2
