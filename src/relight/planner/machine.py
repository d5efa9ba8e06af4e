"""What a plan is for: a GPU with its bytes and rates, real or by profile, and the CPU of this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from relight.executors.choices import UNKNOWN_CORES
from relight.executors.cores import has_openvino, physical_cores
from relight.planner import rates
from relight.planner.amounts import GIB
from relight.planner.profiles import PROFILES, Profile
from relight.planner.rates import Rates

HEADROOM_BYTES = GIB // 4
"""Left to the driver and the desktop of what a device says is free."""
NVIDIA_DRIVER_BYTES = 74_000_000
"""Taken beside what is allocated, whatever the picture (docs/measurements.md, Memory)."""
H100_CORES = 132
UNKNOWN_CARD = replace(rates.of_card(PROFILES["rx580-8g"]), source="those of an RX 580, since this card is not known")
DISK_BYTES_S = {"ssd": 1.5e9, "disk": 0.13e9}
"""Cold reads of large files: an NVMe drive in an old slot, a spinning disk."""


@dataclass(frozen=True)
class Gpu:
    """`budget` is what relight may allocate, `used` what others hold of `total`. `driver_bytes` are the driver's
    own."""

    name: str
    description: str
    total: int
    budget: int
    used: int
    max_allocation: int | None
    rates: Rates
    driver_bytes: int = 0
    cores: int = UNKNOWN_CORES
    origin: str = "profile"


@dataclass(frozen=True)
class Cpu:
    """`available` RAM counts the page cache as free; `disk` is bytes a second of a cold read; `openvino`: whether its
    package is installed."""

    name: str
    cores: int
    available: int
    total: int
    avx512: bool = False
    bf16: bool = False
    amx: bool = False
    disk: float = DISK_BYTES_S["ssd"]
    openvino: bool = True

    @cached_property
    def _rates(self) -> dict[str, Rates]:
        return {}

    def rates(self, executor: str) -> Rates:
        if executor not in self._rates:
            found = rates.of_cpu(executor, self.cores, avx512=self.avx512, bf16=self.bf16, amx=self.amx)
            self._rates[executor] = found
        return self._rates[executor]


@dataclass(frozen=True)
class Machine:
    cpu: Cpu
    gpu: Gpu | None = None

    def rates(self, executor: str) -> Rates:
        if self.gpu is not None and executor == self.gpu.name:
            return self.gpu.rates
        return self.cpu.rates(executor)


def this_cpu(threads: int | None = None) -> Cpu:
    memory = psutil.virtual_memory()
    flags, name = _cpuinfo(Path("/proc/cpuinfo"))
    return Cpu(
        name=name,
        cores=threads or physical_cores(),
        available=memory.available,
        total=memory.total,
        avx512="avx512f" in flags,
        bf16="avx512_bf16" in flags or "amx_bf16" in flags,
        amx="amx_bf16" in flags,
        openvino=has_openvino(),
    )


def disk_rate(path: Path) -> float:
    """Of the disk a file lies on, by whether the kernel says that it turns."""
    try:
        device = os.stat(path).st_dev
        queue = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
        turns = next(f.read_text().strip() for f in (queue / "queue/rotational", queue / "../queue/rotational"))
    except (OSError, StopIteration):
        return DISK_BYTES_S["ssd"]
    return DISK_BYTES_S["disk" if turns == "1" else "ssd"]


def _cpuinfo(file: Path) -> tuple[frozenset[str], str]:
    """Flags and name of the processor; nothing where the system does not say."""
    if not file.exists():
        return frozenset(), os.environ.get("PROCESSOR_IDENTIFIER", sys.platform)
    lines = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
    found = {key.strip(): value.strip() for key, value in lines.items()}
    return frozenset(found.get("flags", "").split()), found.get("model name", "CPU")


def of_profile(profile: Profile, max_vram: int | None = None) -> Gpu:
    budget = profile.limit_bytes if max_vram is None else min(max_vram, profile.limit_bytes)
    return Gpu(
        name="vulkan0",
        description=profile.name,
        total=profile.memory_bytes,
        budget=budget,
        used=profile.reserved_bytes,
        max_allocation=profile.max_allocation_bytes,
        rates=rates.of_card(profile),
        cores=profile.cores,
    )


def allowed(
    device: Mapping[str, Any], profile: Profile | None, max_vram: int | None = None, share: float | None = None
) -> int:
    """Bytes of a device, as a worker describes it, that relight may take: what is free less a margin, within the
    pretended card's bytes, the user's `max_vram`, and the `share` of its memory that may be filled."""
    bounds = [max(0, int(device["memory_free"]) - HEADROOM_BYTES)]
    if max_vram is not None:
        bounds.append(max_vram)
    if profile is not None:
        bounds.append(profile.limit_bytes)
    if share is not None:
        bounds.append(int(share * (profile.memory_bytes if profile else int(device["memory_total"]))))
    return min(bounds)


def of_device(
    found: Mapping[str, Any],
    budget: int,
    profile: Profile | None = None,
    *,
    origin: str = "this machine",
    largest: int | None = None,
) -> Gpu:
    """A device as a worker describes it, whose driver allocates at most `largest` bytes at once. Its rates: calibrated,
    or of the card of that name, else of an RX 580."""
    description = str(found["description"])
    known = rates.known(description)
    named = rates.card_named(description)
    total, free = int(found["memory_total"]), int(found["memory_free"])
    nvidia = "nvidia" in description.lower() or known is not None
    return Gpu(
        name=str(found["name"]),
        description=description,
        total=total,
        budget=budget,
        used=total - free,
        max_allocation=profile.max_allocation_bytes if profile else largest,
        rates=known or (rates.of_card(PROFILES[named]) if named in PROFILES else UNKNOWN_CARD),
        driver_bytes=NVIDIA_DRIVER_BYTES if nvidia else 0,
        cores=H100_CORES if known else PROFILES[named].cores if named in PROFILES else UNKNOWN_CORES,
        origin=origin,
    )
