"""Processor, memory and error correction of the host, from Linux' proc and sysfs, elsewhere from psutil and NumPy."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import psutil

from relight.doctor.facts.system import System

EDAC = "/sys/devices/system/edac/mc"
NUMPY_NAMES = {"AVX2": "avx2", "FMA3": "fma", "F16C": "f16c", "AVX512F": "avx512f"}
NO_MODES = ("", "None", "Unknown")


@dataclass(frozen=True)
class Processor:
    """`flags` in the kernel's spelling; `usable` logical processors of this process."""

    model: str
    flags: frozenset[str]
    cores: int
    usable: int


@dataclass(frozen=True)
class Memory:
    """Bytes. `limit` is what the control group of this process allows, None where it does not say."""

    total: int
    available: int
    swap_total: int
    swap_used: int
    limit: int | None = None

    @property
    def usable(self) -> int:
        return min(self.total, self.limit or self.total)


@dataclass(frozen=True)
class MemoryController:
    """One of EDAC's. `modes` are those of its modules, such as SECDED; counts are since the driver was loaded."""

    name: str
    kind: str
    modes: tuple[str, ...]
    corrected: int
    uncorrected: int

    @property
    def corrects(self) -> bool:
        return any(mode not in NO_MODES for mode in self.modes)


def processor(system: System) -> Processor:
    text = system.text("/proc/cpuinfo")
    if not text:
        return _processor_of_this_process()
    fields = re.findall(r"^(model name|flags|physical id|core id|processor)\s*: *(.*)$", text, re.MULTILINE)
    first = dict(reversed(fields))
    cores, package = set(), "0"
    for key, value in fields:
        if key == "physical id":
            package = value
        elif key == "core id":
            cores.add((package, value))
    logical = sum(key == "processor" for key, _ in fields)
    return Processor(
        first.get("model name", "?"), frozenset(first.get("flags", "").split()), len(cores) or logical, logical
    )


def _processor_of_this_process() -> Processor:
    known = np._core._multiarray_umath.__cpu_features__  # type: ignore[attr-defined]
    flags = frozenset(flag for name, flag in NUMPY_NAMES.items() if known.get(name))
    logical = os.cpu_count() or 1
    model = os.environ.get("PROCESSOR_IDENTIFIER", "?")
    return Processor(model, flags, psutil.cpu_count(logical=False) or logical, logical)


def memory(system: System) -> Memory:
    text = system.text("/proc/meminfo")
    if not text:
        ram, swap = psutil.virtual_memory(), psutil.swap_memory()
        return Memory(ram.total, ram.available, swap.total, swap.used)
    kib = {name: int(number) << 10 for name, number in re.findall(r"^(\w+): *(\d+) kB", text, re.MULTILINE)}
    swap_total = kib.get("SwapTotal", 0)
    available = kib.get("MemAvailable", kib.get("MemFree", 0))
    return Memory(kib.get("MemTotal", 0), available, swap_total, swap_total - kib.get("SwapFree", 0), _limit(system))


def _limit(system: System) -> int | None:
    """The least of the group's and its parents' memory.max, or that of control groups of version 1."""
    own = re.search(r"^0::(/.*)$", system.text("/proc/self/cgroup") or "", re.MULTILINE)
    group = PurePosixPath("/sys/fs/cgroup" + (own[1] if own else "/"))
    folders = [folder for folder in (group, *group.parents) if folder.is_relative_to("/sys/fs/cgroup")]
    files = [f"{folder}/memory.max" for folder in folders] + ["/sys/fs/cgroup/memory/memory.limit_in_bytes"]
    limits = [limit for limit in map(system.number, files) if limit is not None and limit < 1 << 60]
    return min(limits, default=None)


def memory_controllers(system: System) -> tuple[MemoryController, ...]:
    found = []
    for name in system.names(EDAC):
        folder = f"{EDAC}/{name}"
        if re.fullmatch(r"mc\d+", name):
            inner = [part for part in system.names(folder) if re.fullmatch(r"(dimm|rank)\d+", part)]
            modes = tuple(dict.fromkeys(system.text(f"{folder}/{part}/dimm_edac_mode") or "" for part in inner))
            counts = [system.number(f"{folder}/{count}") or 0 for count in ("ce_count", "ue_count")]
            found.append(MemoryController(name, system.text(f"{folder}/mc_name") or "?", modes, *counts))
    return tuple(found)
