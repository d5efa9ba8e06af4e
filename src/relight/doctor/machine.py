"""One snapshot of a machine: everything the checks look at, read once from roots that tests replace."""

from __future__ import annotations

import platform as this_platform
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relight.doctor import measure
from relight.doctor.facts import caches, cards, disks, host, traces, vulkan
from relight.doctor.facts.caches import PipelineCache
from relight.doctor.facts.cards import Card
from relight.doctor.facts.disks import Place
from relight.doctor.facts.host import Memory, MemoryController, Processor
from relight.doctor.facts.system import System
from relight.doctor.facts.traces import Trace
from relight.doctor.facts.vulkan import ProbeAnswer, Vulkan, VulkanDevice
from relight.doctor.measure import ColdRead
from relight.doctor.models import ModelSet
from relight.errors import RelightError

AMDGPU = "/sys/module/amdgpu/parameters"
GRAPHICS_DRIVERS = r"SYSTEM\CurrentControlSet\Control\GraphicsDrivers"


@dataclass(frozen=True)
class Engine:
    """What ggml answers when it is asked for its devices, or why it does not."""

    devices: tuple[Mapping[str, Any], ...] = ()
    error: str | None = None

    @property
    def gpus(self) -> tuple[Mapping[str, Any], ...]:
        """Those relight takes of its own accord, the first before all others."""
        return tuple(device for device in self.devices if device["type"] == "gpu")


def ask_engine() -> Engine:
    """In a worker of its own, as for `relight devices`."""
    from relight.workers.process import Worker

    try:
        worker = Worker("devices")
        try:
            return Engine(tuple(worker.call("devices").values["devices"]))
        finally:
            worker.close()
    except RelightError as error:
        return Engine(error=str(error))


@dataclass(frozen=True)
class Outside:
    """What is asked of drivers and measured rather than read. Each may be replaced."""

    probe: Callable[[Mapping[str, str]], ProbeAnswer] = vulkan.ask
    engine: Callable[[], Engine] = ask_engine
    bandwidth: Callable[[int], float] = measure.memory_bandwidth
    read_cold: Callable[[Path], ColdRead] = measure.read_cold
    sqlite: tuple[int, ...] = sqlite3.sqlite_version_info
    release: Callable[[], str] = this_platform.release


@dataclass(frozen=True)
class Asked:
    """What relight.yaml asks of the system: its file, or why it cannot be read; its keys for storage."""

    file: str | None = None
    error: str | None = None
    scheduler: str | None = None
    queue_depth: int | None = None


@dataclass(frozen=True)
class RenderNode:
    """A device file of the card. `group` owns it, by name where it has one."""

    path: str
    group: str
    allowed: bool


@dataclass(frozen=True)
class Machine:
    """`kernel` is Linux' release or Windows'; `lockup_timeout` amdgpu's parameter as it stands; `tdr_delay` Windows'
    seconds until it resets a card."""

    platform: str
    environ: Mapping[str, str]
    kernel: str
    container: str | None
    vulkan: Vulkan
    engine: Engine
    cards: tuple[Card, ...]
    render_nodes: tuple[RenderNode, ...]
    has_dri: bool
    has_dxg: bool
    lockup_timeout: str | None
    tdr_delay: int | None
    processor: Processor
    memory: Memory
    controllers: tuple[MemoryController, ...]
    bandwidth: float
    models: tuple[ModelSet, ...]
    model_place: Place
    result_place: Place
    cold_reads: tuple[ColdRead | str, ...]
    caches: tuple[PipelineCache, ...]
    cache_places: tuple[Place, ...]
    rocm: tuple[Trace, ...] = ()
    zluda: tuple[Trace, ...] = ()
    directml: tuple[Trace, ...] = ()
    queue_settings: tuple[Trace, ...] = ()
    sqlite: tuple[int, ...] = ()
    asked: Asked = Asked()
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_windows(self) -> bool:
        return self.platform == "win32"

    @property
    def is_wsl(self) -> bool:
        return "microsoft" in self.kernel.lower()

    @property
    def has_gpu(self) -> bool:
        return bool(self.engine.gpus)

    @property
    def compute_cards(self) -> tuple[Card, ...]:
        """Cards that a driver offers as discrete ones, or all that are there where no driver says anything of them."""
        return tuple(card for card in self.cards if (d := self.device_of(card)) is None or d.type == "discrete")

    def device_of(self, card: Card) -> VulkanDevice | None:
        """The Vulkan device of a card: by address, else by its ids where that is the only one."""
        real = self.vulkan.real_devices
        at_address = [device for device in real if device.pci == card.address]
        alike = [d for d in real if d.pci is None and (d.vendor_id, d.device_id) == (card.vendor_id, card.device_id)]
        return next(iter(at_address or alike), None)

    def name_of(self, card: Card) -> str:
        device = self.device_of(card)
        return re.sub(r" \((RADV|ACO).*?\)$", "", device.name) if device else self.names.get(card.address, card.address)

    def vram_of(self, card: Card) -> int | None:
        device = self.device_of(card)
        return card.vram_bytes or (device.memory_bytes if device else None) or None


def snapshot(
    system: System,
    outside: Outside,
    models: Sequence[ModelSet] = (),
    *,
    model_folder: str,
    other_folders: Sequence[str] = (),
    asked: Asked = Asked(),
) -> Machine:
    """Look at everything once. `models` are those asked about, `other_folders` of other programs that were named."""
    mounts = disks.mounts(system)
    found_cards = cards.cards(system)
    found_vulkan = ask_drivers(system, outside.probe)
    drivers = dict.fromkeys(device.driver for device in found_vulkan.real_devices)
    found_caches = tuple(cache for name in drivers if (cache := caches.pipeline_cache(system, name)))
    around = [*other_folders, *(parent for folder in other_folders for parent in system.parents(folder)[:1])]
    processor = host.processor(system)
    return Machine(
        platform=system.platform,
        environ=system.environ,
        kernel=system.text("/proc/sys/kernel/osrelease") or outside.release(),
        container=_container(system),
        vulkan=found_vulkan,
        engine=outside.engine(),
        cards=found_cards,
        render_nodes=tuple(_nodes(system)),
        has_dri=system.exists("/dev/dri"),
        has_dxg=system.exists("/dev/dxg"),
        lockup_timeout=system.text(f"{AMDGPU}/lockup_timeout"),
        tdr_delay=_tdr_delay(system),
        processor=processor,
        memory=host.memory(system),
        controllers=host.memory_controllers(system),
        bandwidth=outside.bandwidth(processor.cores),
        models=tuple(models),
        model_place=disks.place(system, str(models[0].largest.path) if models else model_folder, mounts),
        result_place=disks.place(system, model_folder, mounts),
        cold_reads=tuple(_read(system, outside, each) for each in models[:1]),
        caches=found_caches,
        cache_places=tuple(disks.place(system, cache.path, mounts) for cache in found_caches),
        rocm=tuple(traces.rocm(system)),
        zluda=tuple(traces.zluda(system, around)),
        directml=tuple(traces.directml(system, around)),
        queue_settings=tuple(traces.queue_settings(system)),
        sqlite=outside.sqlite,
        asked=asked,
        names={card.address: f"card {card.vendor_id:04x}:{card.device_id:04x}" for card in found_cards},
    )


def ask_drivers(system: System, probe: Callable[[Mapping[str, str]], ProbeAnswer]) -> Vulkan:
    """The drivers' own words; asked again without implicit layers where the first answer is a crash."""
    answer = probe({})
    again = probe(vulkan.WITHOUT_LAYERS) if answer.crash else None
    values = answer.values or (again.values if again else {})
    return Vulkan(
        loader=values.get("loader"),
        version=values.get("version"),
        devices=vulkan.devices_of(values),
        error=values.get("error"),
        crash=answer.crash,
        crash_without_layers=again.crash if again else None,
        icds=vulkan.icds(system),
        layers=vulkan.layers(system),
    )


def _read(system: System, outside: Outside, models: ModelSet) -> ColdRead | str:
    """Of the set's largest file; why not, where it cannot be read."""
    try:
        return outside.read_cold(system.path(models.largest.path))
    except OSError as error:
        return f"{models.largest.path}: {error.strerror or error}"


def _container(system: System) -> str | None:
    """What this process is inside of, by the files that container programs leave there."""
    for path, name in (("/.dockerenv", "Docker"), ("/run/.containerenv", "Podman")):
        if system.exists(path):
            return name
    if system.environ.get("container"):
        return system.environ["container"]
    cgroup = system.text("/proc/1/cgroup") or ""
    found = re.search(r"docker|containerd|kubepods|lxc", cgroup)
    return found[0] if found else None


def _nodes(system: System) -> list[RenderNode]:
    groups = {
        int(parts[2]): parts[0]
        for parts in (line.split(":") for line in (system.text("/etc/group") or "").splitlines())
        if len(parts) > 2 and parts[2].isdigit()
    }
    found = []
    for name in system.names("/dev/dri"):
        if name.startswith("renderD"):
            path = system.path(f"/dev/dri/{name}")
            owner = system.owner(path)
            allowed = system.may(path, 6)
            found.append(RenderNode(f"/dev/dri/{name}", groups.get(owner, str(owner)), allowed))
    return found


def _tdr_delay(system: System) -> int | None:
    delay = system.registry(GRAPHICS_DRIVERS).get("TdrDelay")
    return delay if isinstance(delay, int) else None
