"""Vulkan on this machine: the drivers and implicit layers that are installed, and what the drivers say of devices."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from relight.doctor.facts.system import System

PROBE_COMMAND = (sys.executable, "-P", "-m", "relight.doctor.probe")
PROBE_DEADLINE_S = 20.0
WITHOUT_LAYERS = {"VK_LOADER_LAYERS_DISABLE": "~implicit~"}

DRIVERS_BY_LIBRARY = (
    (r"vulkan_radeon", "RADV"),
    (r"amdvlkpro", "AMDGPU-PRO"),
    (r"amdvlk", "AMDVLK"),
    (r"nvidia|GLX_nv", "NVIDIA"),
    (r"nouveau", "NVK"),
    (r"intel|igvk", "Intel"),
    (r"lvp", "lavapipe"),
    (r"vk_swiftshader", "SwiftShader"),
    (r"dzn", "dzn"),
    (r"virtio|gfxstream", "virtual"),
)
DRIVERS_BY_ID = {
    1: "Adrenalin",
    2: "AMDVLK",
    3: "RADV",
    4: "NVIDIA",
    5: "Intel",
    6: "Intel",
    10: "SwiftShader",
    13: "lavapipe",
    22: "virtual",
    23: "dzn",
    24: "NVK",
}
"""VkDriverId. 1 is AMD's proprietary driver: Adrenalin on Windows, AMDGPU-PRO on Linux."""


@dataclass(frozen=True)
class Icd:
    """An installed driver. `library_missing`: its manifest names a file that is not there."""

    manifest: str
    driver: str
    library: str
    library_missing: bool = False


@dataclass(frozen=True)
class Layer:
    """An implicit layer. `active`: the loader puts it into every program with this environment."""

    name: str
    manifest: str
    active: bool
    off_switch: str | None


@dataclass(frozen=True)
class Heap:
    """`free_bytes` is what the driver leaves this process, None where it does not say."""

    bytes: int
    device_local: bool
    free_bytes: int | None


@dataclass(frozen=True)
class VulkanDevice:
    """As its driver describes it. `type`: discrete, integrated, virtual, cpu or other; `pci` its address."""

    name: str
    type: str
    driver: str
    driver_info: str
    api_version: tuple[int, ...]
    vendor_id: int
    device_id: int
    pci: str | None
    subgroup_size: int
    shared_memory_bytes: int
    max_allocation_bytes: int
    max_buffer_bytes: int | None
    storage_16bit: bool
    float16: bool
    extensions: frozenset[str]
    heaps: tuple[Heap, ...]

    @property
    def is_software(self) -> bool:
        return self.type == "cpu"

    @property
    def memory_bytes(self) -> int:
        return sum(heap.bytes for heap in self.heaps if heap.device_local)


@dataclass(frozen=True)
class Vulkan:
    """`crash` is how asking the drivers ended, where it did not end well; `crash_without_layers` likewise with all
    implicit layers switched off."""

    loader: str | None = None
    version: str | None = None
    devices: tuple[VulkanDevice, ...] = ()
    error: str | None = None
    crash: str | None = None
    crash_without_layers: str | None = None
    icds: tuple[Icd, ...] = ()
    layers: tuple[Layer, ...] = ()

    @property
    def real_devices(self) -> tuple[VulkanDevice, ...]:
        return tuple(device for device in self.devices if not device.is_software)


@dataclass(frozen=True)
class ProbeAnswer:
    """What a process of relight.doctor.probe printed, or how it ended."""

    values: Mapping[str, Any] = field(default_factory=dict)
    crash: str | None = None


def ask(environment: Mapping[str, str]) -> ProbeAnswer:
    """Run the probe with these variables over this process's own."""
    from relight.workers.endings import how_it_ended

    environ = {**os.environ, **environment}
    try:
        done = subprocess.run(PROBE_COMMAND, env=environ, capture_output=True, timeout=PROBE_DEADLINE_S, check=False)
    except subprocess.TimeoutExpired:
        return ProbeAnswer(crash=f"no answer within {PROBE_DEADLINE_S:.0f} s")
    if done.returncode:
        return ProbeAnswer(crash=f"the process that asked ended {how_it_ended(done.returncode).partition(':')[0]}")
    try:
        return ProbeAnswer(json.loads(done.stdout))
    except ValueError:
        return ProbeAnswer(crash="the process that asked printed no answer")


def devices_of(answer: Mapping[str, Any]) -> tuple[VulkanDevice, ...]:
    return tuple(_device(values) for values in answer.get("devices", ()))


def _device(values: Mapping[str, Any]) -> VulkanDevice:
    heaps = tuple(
        Heap(
            heap["bytes"],
            heap["device_local"],
            None if heap["budget_bytes"] is None else max(0, heap["budget_bytes"] - heap["usage_bytes"]),
        )
        for heap in values["heaps"]
    )
    taken = ("name", "type", "driver_info", "vendor_id", "device_id", "pci", "subgroup_size", "shared_memory_bytes")
    limits = ("max_allocation_bytes", "max_buffer_bytes", "storage_16bit", "float16")
    return VulkanDevice(
        driver=DRIVERS_BY_ID.get(values["driver_id"], values["driver_name"] or "unknown driver"),
        api_version=tuple(int(part) for part in values["api_version"].split(".")),
        extensions=frozenset(values["extensions"]),
        heaps=heaps,
        **{name: values[name] for name in (*taken, *limits)},
    )


def icds(system: System) -> tuple[Icd, ...]:
    """The drivers the loader would load, in its order of search."""
    environ = system.environ
    named = environ.get("VK_DRIVER_FILES") or environ.get("VK_ICD_FILENAMES")
    if named:
        return tuple(_icd(system, path) for path in _expanded(system, named))
    added = list(_expanded(system, environ.get("VK_ADD_DRIVER_FILES", "")))
    found = [*added, *_manifests(system, "icd.d"), *_in_registry(system, r"SOFTWARE\Khronos\Vulkan\Drivers")]
    return tuple(icd for icd in (_icd(system, path) for path in dict.fromkeys(found)) if icd.library)


def layers(system: System) -> tuple[Layer, ...]:
    """Implicit layers by name; explicit ones are loaded only by programs that ask for them."""
    in_registry = _in_registry(system, r"SOFTWARE\Khronos\Vulkan\ImplicitLayers")
    paths = dict.fromkeys([*_manifests(system, "implicit_layer.d"), *in_registry])
    found = (layer for path in paths for layer in _layers_of(system, path))
    return tuple({layer.name: layer for layer in found}.values())


def _layers_of(system: System, path: str) -> Iterator[Layer]:
    manifest = _json(system, path)
    described = manifest.get("layers") or [manifest.get("layer")]
    for layer in described if isinstance(described, list) else ():
        if isinstance(layer, dict) and layer.get("name"):
            yield Layer(
                str(layer["name"]),
                path,
                _is_active(system, layer),
                next((f"{name}={value}" for name, value in _pairs(layer, "disable_environment")), None),
            )


def _is_active(system: System, layer: Mapping[str, Any]) -> bool:
    off = system.environ.get("VK_LOADER_LAYERS_DISABLE", "")
    if re.search(r"~(implicit|all)~", off) or layer["name"] in re.split(r"[,:;]", off):
        return False
    if any(name in system.environ for name, _ in _pairs(layer, "disable_environment")):
        return False
    needs = list(_pairs(layer, "enable_environment"))
    return not needs or any(system.environ.get(name) == value for name, value in needs)


def _pairs(layer: Mapping[str, Any], key: str) -> Iterator[tuple[str, str]]:
    pairs = layer.get(key)
    yield from ((str(name), str(value)) for name, value in (pairs.items() if isinstance(pairs, dict) else ()))


def _icd(system: System, path: str) -> Icd:
    described = _json(system, path).get("ICD")
    library = str(described.get("library_path", "")) if isinstance(described, dict) else ""
    pattern = next((d for p, d in DRIVERS_BY_LIBRARY if re.search(p, library, re.IGNORECASE)), None)
    if pattern is None and system.is_windows and re.search(r"amd.*vlk|amd-vulkan", f"{path} {library}", re.IGNORECASE):
        pattern = "Adrenalin"
    elif pattern == "AMDVLK" and system.is_windows:
        pattern = "Adrenalin"
    missing = "/" in library and not system.is_windows and not system.exists(_beside(path, library))
    return Icd(path, pattern or PurePosixPath(path).stem, library, missing)


def _beside(manifest: str, library: str) -> str:
    """A path with a folder in it is taken from the manifest's folder, unless it is absolute."""
    return str(PurePosixPath(manifest).parent / library)


def _json(system: System, path: str) -> Mapping[str, Any]:
    try:
        found = json.loads(system.text(path) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _manifests(system: System, kind: str) -> list[str]:
    """Of `kind` (icd.d, implicit_layer.d), in the loader's order of search on Linux."""
    environ, home = system.environ, system.home
    if system.is_windows:
        return []
    folders = [
        environ.get("XDG_CONFIG_HOME") or f"{home}/.config",
        *(environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":"),
        "/etc",
        environ.get("XDG_DATA_HOME") or f"{home}/.local/share",
        *(environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":"),
    ]
    places = [f"{folder.rstrip('/')}/vulkan/{kind}" for folder in dict.fromkeys(folders) if folder]
    return [f"{place}/{name}" for place in places for name in system.names(place) if name.endswith(".json")]


def _in_registry(system: System, key: str) -> list[str]:
    """Manifests whose value is 0; anything else switches them off."""
    return [str(PureWindowsPath(name)) for name, value in system.registry(key).items() if value == 0]


def _expanded(system: System, paths: str) -> Iterator[str]:
    """Files of a variable, folders among them replaced by the manifests in them."""
    for path in filter(None, paths.split(";" if system.is_windows else ":")):
        names = [name for name in system.names(path) if name.endswith(".json")]
        yield from ([f"{path}/{name}" for name in names] if names else [path])
