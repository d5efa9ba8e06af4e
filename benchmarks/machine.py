"""What a measurement ran on, and how much video and host memory a side takes, seen from outside."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import psutil

MIB = 1 << 20
SAMPLE_MS = 50
REPOSITORY = Path(__file__).parent.parent


def describe() -> dict[str, Any]:
    memory = round(psutil.virtual_memory().total / 2**30)
    cores = psutil.cpu_count(logical=False) or os.cpu_count()
    return {"cpu": cpu_name(), "cores": cores, "memory_gib": memory, "gpu": gpu_name(), "commit": commit()}


def cpu_name() -> str:
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def gpu_name() -> str | None:
    return _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") if shutil.which("nvidia-smi") else None


def commit() -> str | None:
    return _output("git", "-C", str(REPOSITORY), "describe", "--always", "--dirty") if shutil.which("git") else None


def _output(*command: str) -> str | None:
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or None if done.returncode == 0 else None


class VideoMemory:
    """Bytes in use on the first GPU, sampled by nvidia-smi, with the highest value since the last `restart`.

    Sides take turns, so what the idle ones hold is constant and `taken_by` can tell them apart. Always 0 where there is
    no nvidia-smi.
    """

    def __init__(self) -> None:
        self.now = self.peak = 0
        self.held: dict[str, int] = {}
        self._sampled = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        if shutil.which("nvidia-smi"):
            command = ["nvidia-smi", "-i", "0", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms"]
            self._process = subprocess.Popen([*command, str(SAMPLE_MS)], stdout=subprocess.PIPE, text=True)
            threading.Thread(target=self._sample, args=[self._process], daemon=True).start()
            self._sampled.wait(10)
        self.before = self.now

    def _sample(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        for line in process.stdout:
            if line.strip().isdigit():
                self.now = int(line) * MIB
                self.peak = max(self.peak, self.now)
                self._sampled.set()

    def restart(self) -> None:
        self.peak = self.now

    def taken_by(self, side: str) -> dict[str, int]:
        """Peak since `restart` and present bytes of a side, to be called when it has finished its turn."""
        self._sampled.clear()
        if self._process:
            self._sampled.wait(1)
        others = self.before + sum(size for name, size in self.held.items() if name != side)
        self.held[side] = self.now - others
        return {"peak_bytes": self.peak - others, "held_bytes": self.held[side]}

    def close(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait()


def host_bytes(pid: int) -> int:
    """Bytes a process and its children hold for themselves: without mapped files, which are the page cache's."""
    parent = psutil.Process(pid)
    total = 0
    for process in [parent, *parent.children(recursive=True)]:
        memory = process.memory_info()
        total += memory.rss - getattr(memory, "shared", 0)
    return total
