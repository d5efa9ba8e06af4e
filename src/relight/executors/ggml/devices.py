"""ggml's devices under the names users type."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import psutil

from relight.errors import ConfigError
from relight.executors.choices import UNKNOWN_CORES
from relight.executors.ggml.api import DEVICE_CPU, ffi, text
from relight.executors.ggml.library import Library, load

CORES = tuple(
    (re.compile(name, re.IGNORECASE), cores)
    for name, cores in (
        (r"RX ?[45]70\b", 32),
        (r"RX ?(480|580|590)\b|POLARIS10", 36),
        (r"RX ?[45]60\b|POLARIS11", 16),
        (r"RX ?550\b|POLARIS12", 8),
        (r"VEGA ?56\b", 56),
        (r"VEGA ?64\b|VEGA10", 64),
        (r"VEGA20|RADEON VII", 60),
        (r"R9 ?390\b", 40),
        (r"R9 ?290\b", 40),
        (r"FIJI|FURY", 64),
        (r"GTX 1060", 10),
        (r"GTX 1070 TI", 19),
        (r"GTX 1070", 15),
        (r"GTX 1080 TI", 28),
        (r"GTX 1080", 20),
        (r"H[12]00", 132),
    )
)
"""By the names that drivers give; ggml asks the driver itself."""


@dataclass
class Device:
    """One device of ggml. `name` is `ggml-cpu` or `vulkan0`; sizes in bytes."""

    name: str
    description: str
    is_vulkan: bool
    is_software: bool
    handle: Any
    lib: Library
    features: dict[str, str] = field(default_factory=dict)

    @property
    def cores(self) -> int:
        """Shader cores (compute units, streaming multiprocessors), by which ggml chooses kernels."""
        return next((cores for name, cores in CORES if name.search(self.description)), UNKNOWN_CORES)

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes now. Where the driver does not say what is free, free equals total."""
        if not self.is_vulkan:
            memory = psutil.virtual_memory()
            return memory.available, memory.total
        free, total = ffi.new("size_t *"), ffi.new("size_t *")
        self.lib.base.ggml_backend_dev_memory(self.handle, free, total)
        return int(free[0]), int(total[0])

    @property
    def buffer_type(self) -> Any:
        return self.lib.base.ggml_backend_dev_buffer_type(self.handle)

    @property
    def alignment(self) -> int:
        return int(self.lib.base.ggml_backend_buft_get_alignment(self.buffer_type))

    @property
    def max_buffer_bytes(self) -> int:
        """Largest block ggml allocates at once."""
        return int(self.lib.base.ggml_backend_buft_get_max_size(self.buffer_type))


def list_devices() -> list[Device]:
    """All devices ggml offers, CPU last. Raises EngineMismatch."""
    lib = load()
    handles = [lib.registry.ggml_backend_dev_get(i) for i in range(lib.registry.ggml_backend_dev_count())]
    devices = [_device(lib, handle) for handle in handles]
    return sorted(devices, key=lambda device: not device.is_vulkan)


def _device(lib: Library, handle: Any) -> Device:
    ggml_name = text(lib.base.ggml_backend_dev_name(handle))
    description = text(lib.base.ggml_backend_dev_description(handle))
    vulkan = re.fullmatch(r"Vulkan(\d+)", ggml_name)
    if vulkan is None:
        return Device("ggml-cpu", description, False, True, handle, lib)
    features = parse_features(lib.device_line(int(vulkan[1])) or "")
    software = lib.base.ggml_backend_dev_type(handle) == DEVICE_CPU or bool(
        re.search("llvmpipe|SwiftShader", description)
    )
    return Device(f"vulkan{vulkan[1]}", description, True, software, handle, lib, features)


def parse_features(line: str) -> dict[str, str]:
    """`... | uma: 0 | fp16: 0 | ...` -> {"uma": "0", "fp16": "0"}; for people to read, not to decide by."""
    return {key.strip(): value.strip() for key, _, value in (part.partition(":") for part in line.split("|")[1:])}


def find_device(name: str) -> Device:
    """Raises ConfigError, with the names there are, for an unknown one."""
    devices = list_devices()
    for device in devices:
        if device.name == name:
            return device
    there = ", ".join(device.name for device in devices)
    hint = (
        "; no Vulkan driver was found (relight devices says more)"
        if name.startswith("vulkan") and "vulkan" not in there
        else ""
    )
    raise ConfigError(f"no device {name}: this machine has {there}{hint}")
