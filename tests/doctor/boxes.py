"""Machines for the doctor, written compactly into a folder: sysfs, proc, /dev, drivers, and what they answer."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from relight.doctor.facts.system import System
from relight.doctor.facts.vulkan import ProbeAnswer
from relight.doctor.finding import GIB, MIB
from relight.doctor.machine import Asked, Engine, Machine, Outside, snapshot
from relight.doctor.measure import ColdRead
from relight.doctor.models import ModelFile, ModelSet

HOME = "/users/anna"
RENDER_GROUP = 105
MODELS = "/models"

HASWELL = "fpu sse4_2 avx avx2 fma f16c bmi2"
IVY_BRIDGE = "fpu sse4_2 avx f16c"
SANDY_BRIDGE = "fpu sse4_2 avx"

LIBRARIES = {
    "radeon": "libvulkan_radeon.so",
    "amd": "/usr/lib/amdvlk64.so",
    "nvidia": "libGLX_nvidia.so.0",
    "intel": "libvulkan_intel.so",
    "lvp": "libvulkan_lvp.so",
    "dzn": "libvulkan_dzn.so",
}


def vulkan_device(name: str, driver_id: int = 3, **more: Any) -> dict[str, Any]:
    """As the probe prints it: a Polaris card under RADV where nothing else is said."""
    vram = more.pop("vram", 8 * GIB)
    used = more.pop("used", GIB // 4)
    heap = {"bytes": vram, "device_local": True, "budget_bytes": vram, "usage_bytes": used}
    return {
        "name": name,
        "type": "discrete",
        "api_version": "1.3.278",
        "vendor_id": 0x1002,
        "device_id": 0x67DF,
        "driver_id": driver_id,
        "driver_name": "radv",
        "driver_info": "Mesa 24.2.8",
        "pci": None,
        "subgroup_size": 64,
        "shared_memory_bytes": 65536,
        "max_allocation_bytes": 4 * GIB - 4,
        "max_buffer_bytes": 4 * GIB - 4,
        "storage_16bit": True,
        "float16": False,
        "extensions": [
            "VK_AMD_shader_core_properties",
            "VK_KHR_shader_integer_dot_product",
            "VK_EXT_subgroup_size_control",
            "VK_EXT_memory_budget",
        ],
        "heaps": [heap],
    } | more


LAVAPIPE = vulkan_device(
    "llvmpipe (LLVM 17.0.6, 256 bits)", 13, type="cpu", vendor_id=0x10005, device_id=0, subgroup_size=8
)


def gpu(
    name: str, description: str, total: int = 8 * GIB, free: int | None = None, kind: str = "gpu"
) -> dict[str, Any]:
    """As the engine's worker answers."""
    left = total - GIB // 4 if free is None else free
    return {"name": name, "description": description, "type": kind, "memory_total": total, "memory_free": left}


def flux(t5_bytes: int = 5_061_584_064, path: str = f"{MODELS}/flux") -> ModelSet:
    """FLUX.1 schnell in Q4_K as it is pulled."""
    sizes = {"diffusion": 6_783_943_712, "clip_l": 246_144_152, "t5xxl": t5_bytes, "vae": 335_304_388}
    return ModelSet(
        "flux-schnell-q4", tuple(ModelFile(role, Path(path, f"{role}.gguf"), size) for role, size in sizes.items())
    )


@dataclass
class Box:
    """A machine under `root`. Paths are the machine's own."""

    root: Path
    platform: str = "linux"
    environ: dict[str, str] = field(default_factory=dict)
    answer: ProbeAnswer = field(default_factory=lambda: ProbeAnswer({"loader": "libvulkan.so.1", "version": "1.3.280"}))
    without_layers: ProbeAnswer | None = None
    devices: list[dict[str, Any]] = field(default_factory=list)
    engine: Engine | None = None
    forbidden: set[str] = field(default_factory=set)
    registry: dict[str, dict[str, object]] = field(default_factory=dict)
    free: int = 100 * GIB
    bandwidth: float = 25e9
    rate: float = 2e9
    cached: bool = False
    sqlite: tuple[int, ...] = (3, 46, 1)
    mounts: list[str] = field(default_factory=list)
    asked: Asked = Asked()
    folders: tuple[str, ...] = ()

    def file(self, path: str, text: object = "") -> None:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{text}\n")

    def files(self, folder: str, texts: Mapping[str, object]) -> None:
        for name, text in texts.items():
            self.file(f"{folder}/{name}", text)

    def folder(self, path: str) -> None:
        (self.root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def link(self, path: str, to: str) -> None:
        """A relative link, as sysfs has them."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(os.path.relpath(self.root / to.lstrip("/"), target.parent))

    def host(
        self,
        model: str = "AMD Ryzen 5 3600 6-Core Processor",
        flags: str = HASWELL,
        cores: int = 6,
        memory: int = 32 * GIB,
        available: int | None = None,
        swap: int = 8 * GIB,
        swap_used: int = 0,
        kernel: str = "6.8.0-45-generic",
    ) -> None:
        rows = [
            f"processor\t: {i}\nmodel name\t: {model}\nphysical id\t: 0\ncore id\t\t: {i % cores}\nflags\t\t: {flags}\n"
            for i in range(2 * cores)
        ]
        self.file("/proc/cpuinfo", "\n".join(rows))
        left = memory - 3 * GIB if available is None else available
        sizes = {"MemTotal": memory, "MemAvailable": left, "SwapTotal": swap, "SwapFree": swap - swap_used}
        self.file("/proc/meminfo", "\n".join(f"{name}:   {size >> 10} kB" for name, size in sizes.items()))
        self.file("/proc/sys/kernel/osrelease", kernel)
        self.file("/etc/group", f"root:x:0:\nvideo:x:44:\nrender:x:{RENDER_GROUP}:\n")

    def card(
        self,
        address: str = "0000:03:00.0",
        device: int = 0x67DF,
        vendor: int = 0x1002,
        driver: str | None = "amdgpu",
        vram: int = 8 * GIB,
        used: int = GIB // 4,
        visible: int | None = None,
        gtt: int = 16 * GIB,
        gtt_used: int = 32 * MIB,
        link: tuple[str, int, str, int] = ("8.0 GT/s PCIe", 16, "8.0 GT/s PCIe", 16),
        slot: tuple[str, int] = ("8.0 GT/s PCIe", 16),
        node: str | None = "renderD128",
        boot_vga: int = 1,
    ) -> str:
        """A card below a root port; returns its folder. amdgpu's files only with that driver."""
        port = "/sys/devices/pci0000:00/0000:00:03.1"
        folder = f"{port}/{address}"
        window = visible or vram
        self.files(
            port,
            {
                "current_link_speed": slot[0],
                "current_link_width": link[1],
                "max_link_speed": slot[0],
                "max_link_width": slot[1],
            },
        )
        flags = 0x14220C
        start = 0x7000000000
        self.files(
            folder,
            {
                "class": "0x030000",
                "vendor": f"{vendor:#06x}",
                "device": f"{device:#06x}",
                "boot_vga": boot_vga,
                "resource": f"{start:#018x} {start + window - 1:#018x} {flags:#018x}\n"
                f"0x00000000fe000000 0x00000000fe03ffff {0x40200:#018x}",
                "current_link_speed": link[0],
                "current_link_width": link[1],
                "max_link_speed": link[2],
                "max_link_width": link[3],
            },
        )
        if driver == "amdgpu":
            self.files(
                folder,
                {
                    "mem_info_vram_total": vram,
                    "mem_info_vram_used": used,
                    "mem_info_vis_vram_total": window,
                    "mem_info_gtt_total": gtt,
                    "mem_info_gtt_used": gtt_used,
                    "power_dpm_force_performance_level": "auto",
                    "pp_dpm_sclk": "0: 300Mhz *\n1: 608Mhz\n7: 1366Mhz",
                    "pp_dpm_mclk": "0: 300Mhz *\n2: 2000Mhz",
                    "hwmon/hwmon3/temp1_input": 45000,
                    "hwmon/hwmon3/temp1_crit": 94000,
                    "hwmon/hwmon3/power1_average": 33_000_000,
                    "hwmon/hwmon3/power1_cap": 145_000_000,
                    "hwmon/hwmon3/power1_cap_default": 145_000_000,
                },
            )
            self.file("/sys/module/amdgpu/parameters/lockup_timeout", "")
        if driver:
            self.folder(f"/sys/bus/pci/drivers/{driver}")
            self.link(f"{folder}/driver", f"/sys/bus/pci/drivers/{driver}")
        self.link(f"/sys/bus/pci/devices/{address}", folder)
        if node:
            self.folder(f"{folder}/drm/{node}")
            self.file(f"/dev/dri/{node}")
        return folder

    def driver(self, name: str) -> str:
        """Install a Vulkan driver; its manifest."""
        manifest = f"/usr/share/vulkan/icd.d/{name}_icd.x86_64.json"
        described = {"ICD": {"library_path": LIBRARIES[name], "api_version": "1.3.0"}}
        self.file(manifest, json.dumps(described))
        if LIBRARIES[name].startswith("/"):
            self.file(LIBRARIES[name])
        return manifest

    def layer(self, name: str, enable: Mapping[str, str] | None = None, disable: str = "NO_LAYER") -> None:
        described: dict[str, Any] = {"name": name, "library_path": "lib.so", "disable_environment": {disable: "1"}}
        if enable:
            described["enable_environment"] = dict(enable)
        self.file(f"/usr/share/vulkan/implicit_layer.d/{name}.json", json.dumps({"layer": described}))

    def disk(
        self,
        name: str = "nvme0n1",
        at: str = "/",
        type: str = "ext4",
        source: str | None = None,
        scheduler: str = "[none] mq-deadline",
        read_ahead: int = 128,
        rotational: int = 0,
        bus: str = "pci0000:00/0000:00:01.1",
        options: str = "rw",
        number: str = "259:0",
    ) -> None:
        """A disk with one partition, and a mount of it."""
        parent = f"/sys/devices/{bus}/{name}"
        self.files(
            f"{parent}/queue",
            {"scheduler": scheduler, "read_ahead_kb": read_ahead, "rotational": rotational, "nr_requests": 1023},
        )
        self.folder(f"{parent}/{name}p1")
        self.link(f"/sys/dev/block/{number}", f"{parent}/{name}p1")
        self.link(f"/sys/class/block/{name}p1", f"{parent}/{name}p1")
        self.mount(at, type, source or f"/dev/{name}p1", number, options)

    def mount(self, at: str, type: str, source: str, number: str = "0:99", options: str = "rw") -> None:
        self.folder(at)
        self.mounts.append(
            f"{30 + len(self.mounts)} 1 {number} / {at} rw,relatime shared:1 - {type} {source} {options}"
        )
        self.file("/proc/self/mountinfo", "\n".join(self.mounts))

    def holder(self, pid: int, name: str, address: str, kib: int, number: int = 7) -> None:
        """A process that has a card open and holds video memory."""
        self.file(f"/proc/{pid}/comm", name)
        self.folder(f"/proc/{pid}/fd")
        (self.root / f"proc/{pid}/fd/{number}").symlink_to("/dev/dri/renderD128")
        self.file(
            f"/proc/{pid}/fdinfo/{number}",
            f"pos:\t0\ndrm-driver:\tamdgpu\ndrm-client-id:\t{pid}\ndrm-pdev:\t{address}\ndrm-memory-vram:\t{kib} KiB",
        )

    def system(self) -> System:
        return System(
            root=self.root,
            platform=self.platform,
            environ=self.environ,
            home=HOME,
            may=lambda path, mode: "/" + path.relative_to(self.root).as_posix() not in self.forbidden,
            owner=lambda path: RENDER_GROUP,
            room=lambda path: (self.free, 500 * GIB),
            registry=lambda key: self.registry.get(key, {}),
        )

    def probe(self, environment: Mapping[str, str]) -> ProbeAnswer:
        answer = self.without_layers if environment and self.without_layers else self.answer
        return replace(answer, values=dict(answer.values) | {"devices": self.devices}) if answer.values else answer

    def outside(self) -> Outside:
        real = [device for device in self.devices if device["type"] != "cpu"]
        found = [gpu(f"vulkan{i}", device["name"], device["heaps"][0]["bytes"]) for i, device in enumerate(real)]
        return Outside(
            probe=self.probe,
            engine=lambda: self.engine or Engine(tuple(found)),
            bandwidth=lambda threads: self.bandwidth,
            read_cold=lambda path: ColdRead(str(path), 256 * MIB, 256 * MIB / self.rate, self.cached),
            sqlite=self.sqlite,
            release=lambda: "10",
        )

    def machine(self, *models: ModelSet) -> Machine:
        return snapshot(
            self.system(),
            self.outside(),
            models,
            model_folder=MODELS,
            other_folders=self.folders,
            asked=self.asked,
        )
