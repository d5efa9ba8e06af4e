"""Machines as people have them, put together from what such ones show."""

from __future__ import annotations

from pathlib import Path

from doctor.boxes import IVY_BRIDGE, LAVAPIPE, SANDY_BRIDGE, Box, gpu, vulkan_device
from relight.doctor.facts.vulkan import ProbeAnswer
from relight.doctor.finding import GIB, MIB
from relight.doctor.machine import Engine

NO_AVX2 = Engine(error="this processor has no AVX2, FMA, which the ggml libraries were built for.")


def rx470_rebar(root: Path) -> Box:
    """RX 470 4 GB with Resizable BAR on a Ryzen board, models on NVMe: as it should be."""
    box = Box(root)
    box.host()
    box.card(vram=4 * GIB, used=300 * MIB)
    box.driver("radeon")
    box.driver("lvp")
    box.devices = [
        vulkan_device("AMD Radeon RX 470 Graphics (RADV POLARIS10)", vram=4 * GIB, pci="0000:03:00.0"),
        LAVAPIPE,
    ]
    box.disk()
    box.folder("/users/anna/.cache/mesa_shader_cache_db")
    box.file("/users/anna/.cache/mesa_shader_cache_db/mesa_cache.db", "x" * 1000)
    return box


def rx580_on_x79(root: Path) -> Box:
    """RX 580 8 GB in a Xeon E5-2670 board of 2012: PCIe 2.0 x8, a window of 256 MiB, no AVX2, models on a hard disk."""
    box = Box(root)
    box.host("Intel(R) Xeon(R) CPU E5-2670 0 @ 2.60GHz", SANDY_BRIDGE, cores=8)
    link = ("5.0 GT/s PCIe", 8, "8.0 GT/s PCIe", 16)
    box.card(visible=256 * MIB, link=link, slot=("5.0 GT/s PCIe", 16))
    box.driver("radeon")
    box.devices = [vulkan_device("AMD Radeon RX 580 Series (RADV POLARIS10)", pci="0000:03:00.0")]
    box.engine = NO_AVX2
    hdd = {"scheduler": "[mq-deadline] none", "rotational": 1, "number": "8:1"}
    box.disk("sda", bus="pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block", **hdd)  # type: ignore[arg-type]
    box.rate = 90e6
    for i in range(4):
        box.files(f"/sys/devices/system/edac/mc/mc0/dimm{i}", {"dimm_edac_mode": "S4ECD4ED"})
    box.files("/sys/devices/system/edac/mc/mc0", {"mc_name": "Sandy Bridge SrcID#0", "ce_count": 0, "ue_count": 0})
    return box


def wsl2_dzn(root: Path) -> Box:
    """WSL2 on Windows 10 with an RX 580: only /dev/dxg, Mesa's dzn, models on /mnt/c."""
    box = Box(root)
    box.host(memory=12 * GIB, kernel="5.15.153.1-microsoft-standard-WSL2")
    box.file("/dev/dxg")
    box.driver("dzn")
    box.driver("lvp")
    dzn = {"api_version": "1.2.289", "vendor_id": 0x1002, "storage_16bit": False, "subgroup_size": 1}
    box.devices = [
        vulkan_device("Microsoft Direct3D12 (Radeon RX 580 Series)", 23, driver_name="Dozen", **dzn),
        LAVAPIPE,
    ]
    box.engine = Engine((gpu("ggml-cpu", "AMD Ryzen 5 3600", 12 * GIB, kind="cpu"),))
    box.disk("sdc", bus="virtual/block", number="8:32")
    box.files("/sys/devices/virtual/block/sdc/device", {"model": "Virtual Disk"})
    box.mount("/models", "9p", "C:\\134models", options="rw,dirsync,aname=drvfs")
    box.rate = 60e6
    return box


def two_icds(root: Path) -> Box:
    """RADV and AMDVLK for one RX 570, with AMD's layer for switchable graphics."""
    box = rx470_rebar(root)
    box.driver("amd")
    box.layer("VK_LAYER_AMD_switchable_graphics_64", disable="DISABLE_LAYER_AMD_SWITCHABLE_GRAPHICS_1")
    name, pci = "AMD Radeon RX 570 Series", "0000:03:00.0"
    amdvlk = {"shared_memory_bytes": 32768, "max_allocation_bytes": 2 * GIB, "max_buffer_bytes": 2 * GIB}
    box.devices = [
        vulkan_device(f"{name} (RADV POLARIS10)", pci=pci, vram=4 * GIB),
        vulkan_device(name, 2, pci=pci, vram=4 * GIB, driver_info="2023.Q3.3", **amdvlk),
    ]
    return box


def lavapipe_only(root: Path) -> Box:
    """An RX 580 in a distribution without its driver, and ggml pointed at the only device there is."""
    box = rx470_rebar(root)
    (root / "usr/share/vulkan/icd.d/radeon_icd.x86_64.json").unlink()
    box.devices = [LAVAPIPE]
    box.environ["GGML_VK_VISIBLE_DEVICES"] = "0"
    box.engine = Engine((gpu("vulkan0", LAVAPIPE["name"], kind="software"), gpu("ggml-cpu", "Ryzen", kind="cpu")))
    return box


def no_swap_16_gb(root: Path) -> Box:
    """16 GB of memory, no swap, a card as it should be."""
    box = rx470_rebar(root)
    box.host(memory=16 * GIB, available=12 * GIB, swap=0)
    return box


def ivy_bridge(root: Path) -> Box:
    """Core i7-3770: no AVX2 and no FMA."""
    box = rx470_rebar(root)
    box.host("Intel(R) Core(TM) i7-3770 CPU @ 3.40GHz", IVY_BRIDGE, cores=4)
    box.engine = NO_AVX2
    return box


def laptop(root: Path) -> Box:
    """Integrated graphics first, a discrete card second."""
    box = Box(root)
    box.host()
    box.card("0000:00:02.0", 0x9A49, 0x8086, "i915", node="renderD128", boot_vga=1)
    box.card("0000:01:00.0", 0x7340, 0x1002, vram=4 * GIB, node="renderD129", boot_vga=0)
    box.driver("intel")
    box.driver("radeon")
    integrated = {"type": "integrated", "vendor_id": 0x8086, "device_id": 0x9A49, "subgroup_size": 32}
    box.devices = [
        vulkan_device("Intel(R) Xe Graphics (TGL GT2)", 6, pci="0000:00:02.0", vram=12 * GIB, **integrated),
        vulkan_device("AMD Radeon RX 5500M (RADV NAVI14)", pci="0000:01:00.0", device_id=0x7340, vram=4 * GIB),
    ]
    box.disk()
    return box


def gtx1070(root: Path) -> Box:
    """NVIDIA's driver, which has no files of memory in sysfs and no render node that matters."""
    box = Box(root)
    box.host()
    box.card("0000:01:00.0", 0x1B81, 0x10DE, "nvidia", visible=256 * MIB, node=None)
    box.driver("nvidia")
    nvidia = {"vendor_id": 0x10DE, "device_id": 0x1B81, "subgroup_size": 32, "shared_memory_bytes": 49152}
    box.devices = [
        vulkan_device("NVIDIA GeForce GTX 1070", 4, pci="0000:01:00.0", driver_info="550.120", **nvidia),
    ]
    box.disk()
    return box


def headless_container(root: Path) -> Box:
    """Docker on a machine with an RX 580, started without --device."""
    box = Box(root)
    box.host()
    box.card(node=None)
    box.file("/.dockerenv")
    box.driver("radeon")
    box.driver("lvp")
    box.devices = [LAVAPIPE]
    box.engine = Engine((gpu("ggml-cpu", "Ryzen", kind="cpu"),))
    box.mount("/", "overlay", "overlay")
    return box


def windows(root: Path) -> Box:
    """Windows 10, Adrenalin, RX 580 2048SP: nothing of sysfs or proc."""
    key = r"SOFTWARE\Khronos\Vulkan"
    box = Box(root, platform="win32")
    box.environ["LOCALAPPDATA"] = "/AppData/Local"
    box.registry = {
        rf"{key}\Drivers": {r"C:\Windows\System32\DriverStore\amd-vulkan64.json": 0},
        rf"{key}\ImplicitLayers": {r"C:\Program Files\RTSS\Vulkan\RTSSVkLayer64.json": 1},
    }
    adrenalin = {"shared_memory_bytes": 32768, "max_allocation_bytes": 2 * GIB, "max_buffer_bytes": 2 * GIB}
    box.answer = ProbeAnswer({"loader": "vulkan-1.dll", "version": "1.3.275"})
    box.devices = [vulkan_device("Radeon RX 580 2048SP", 1, driver_info="23.Q4", **adrenalin)]
    return box
