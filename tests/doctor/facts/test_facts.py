"""What is read of a machine's files, as kernels and drivers write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doctor import machines
from doctor.boxes import HOME, Box
from relight.doctor.facts import caches, cards, disks, host, vulkan
from relight.doctor.finding import GIB, MIB

RX580_RESOURCE = """0x00000000e0000000 0x00000000efffffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x00000000f0000000 0x00000000f01fffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x000000000000e000 0x000000000000e0ff 0x0000000000040101
0x00000000fea00000 0x00000000fea3ffff 0x0000000000040200
0x00000000fea40000 0x00000000fea5ffff 0x0000000000046200"""


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_the_largest_prefetchable_window_of_a_resource_file() -> None:
    assert cards.largest_bar(RX580_RESOURCE) == 256 * MIB
    assert cards.largest_bar("") == 0 == cards.largest_bar("no numbers here")


def test_a_switch_inside_the_card_does_not_hide_the_slot(box: Box) -> None:
    """Vega and newer: the card's own link is always x16 at 8 GT/s, that of its upstream port is the slot's."""
    bridges = "/sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:00.0"
    for folder, speed, width, most in (
        ("/sys/devices/pci0000:00/0000:00:01.0", "8.0 GT/s PCIe", 4, 4),
        ("/sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0", "8.0 GT/s PCIe", 4, 16),
        (bridges, "8.0 GT/s PCIe", 16, 16),
        (f"{bridges}/0000:03:00.0", "8.0 GT/s PCIe", 16, 16),
    ):
        link = {
            "current_link_speed": speed,
            "max_link_speed": speed,
            "current_link_width": width,
            "max_link_width": most,
        }
        box.files(folder, link)
    box.files(f"{bridges}/0000:03:00.0", {"class": "0x030000", "vendor": "0x1002", "device": "0x687f"})
    box.link("/sys/bus/pci/devices/0000:03:00.0", f"{bridges}/0000:03:00.0")
    (card,) = cards.cards(box.system())
    assert card.link is not None
    assert (card.link.address, card.link.width, card.link.possible_width) == ("0000:01:00.0", 4, 4)


def test_display_controllers_of_servers_are_no_cards(box: Box) -> None:
    box.card("0000:05:00.0", 0x2000, 0x1A03, "ast", node=None)
    assert cards.cards(box.system()) == ()


def test_clocks_and_power_of_amdgpu(box: Box) -> None:
    box.card()
    (card,) = cards.cards(box.system())
    assert (card.shader_clocks, card.shader_clock, card.memory_clocks) == ((300, 608, 1366), 300, (300, 2000))
    assert (card.temperature, card.critical_temperature, card.power, card.power_cap) == (45.0, 94.0, 33.0, 145.0)


def test_nothing_is_made_up_where_files_are_missing(box: Box) -> None:
    box.card(driver=None, node=None)
    (card,) = cards.cards(box.system())
    assert (card.driver, card.vram_bytes, card.temperature, card.shader_clocks, card.power) == (
        None,
        None,
        None,
        (),
        None,
    )


def test_the_processor_by_its_cores_not_its_threads(box: Box) -> None:
    box.host(cores=6)
    processor = host.processor(box.system())
    assert (processor.cores, processor.usable) == (6, 12) and "avx2" in processor.flags


def test_without_proc_the_processor_is_this_ones(box: Box) -> None:
    assert host.processor(box.system()).cores >= 1
    assert host.memory(box.system()).total > 0


def test_memory_and_the_least_limit_above_a_control_group(box: Box) -> None:
    box.host(memory=64 * GIB, swap=8 * GIB, swap_used=GIB)
    box.file("/proc/self/cgroup", "0::/system.slice/relight.service")
    box.file("/sys/fs/cgroup/system.slice/relight.service/memory.max", "max")
    box.file("/sys/fs/cgroup/system.slice/memory.max", 24 * GIB)
    memory = host.memory(box.system())
    assert (memory.total, memory.swap_used, memory.limit, memory.usable) == (64 * GIB, GIB, 24 * GIB, 24 * GIB)


def test_a_limit_of_the_first_version_of_control_groups(box: Box) -> None:
    box.host()
    file = "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    box.file(file, 9223372036854771712)
    assert host.memory(box.system()).limit is None
    box.file(file, 4 * GIB)
    assert host.memory(box.system()).limit == 4 * GIB


def test_memory_controllers_of_edac(box: Box) -> None:
    mc0 = "/sys/devices/system/edac/mc/mc0"
    box.files(mc0, {"mc_name": "Haswell SrcID#0_Ha#0", "ce_count": 2, "ue_count": 0, "dimm0/dimm_edac_mode": "SECDED"})
    box.folder("/sys/devices/system/edac/mc/power")
    (found,) = host.memory_controllers(box.system())
    assert (found.modes, found.corrected, found.corrects) == (("SECDED",), 2, True)


def test_the_deepest_mount_counts_and_of_two_at_one_point_the_last(box: Box) -> None:
    box.mount("/", "ext4", "/dev/sda1")
    box.mount("/mnt/big disk".replace(" ", "\\040"), "nfs4", "nas:/models")
    box.mount("/data", "ext4", "/dev/sdb1")
    box.mount("/data", "xfs", "/dev/sdc1")
    mounts = disks.mounts(box.system())
    types = [disks.mount_of(path, mounts) for path in ("/home/x", "/mnt/big disk/m", "/data", "/database")]
    assert [mount.type for mount in types if mount] == ["ext4", "nfs4", "xfs", "ext4"]


def test_a_disk_behind_encryption(box: Box) -> None:
    box.disk("nvme0n1", at="/boot")
    box.files("/sys/devices/virtual/block/dm-0", {"dm/uuid": "CRYPT-LUKS2-abc", "queue/scheduler": ""})
    box.link("/sys/dev/block/254:0", "/sys/devices/virtual/block/dm-0")
    box.link("/sys/devices/virtual/block/dm-0/slaves/nvme0n1p1", "/sys/class/block/nvme0n1p1")
    box.mount("/", "ext4", "/dev/mapper/root", "254:0")
    place = disks.place(box.system(), "/models/none/yet", disks.mounts(box.system()))
    assert place.disk is not None
    assert (place.disk.name, place.disk.kind, place.disk.encrypted, place.disk.scheduler) == (
        "nvme0n1",
        "nvme",
        True,
        "none",
    )


def test_a_file_system_with_a_number_of_its_own_is_found_by_source(box: Box) -> None:
    box.disk("sda", bus="pci0000:00/ata1/block", rotational=0, number="8:1", scheduler="[mq-deadline] none")
    box.file("/dev/sdap1")
    box.mount("/models", "btrfs", "/dev/sdap1", "0:42")
    place = disks.place(box.system(), "/models", disks.mounts(box.system()))
    assert place.disk is not None and (place.disk.name, place.disk.kind) == ("sda", "ssd")


def test_a_usb_disk_has_the_speed_of_its_port(box: Box) -> None:
    port = "pci0000:00/0000:00:14.0/usb2/2-1"
    box.file(f"/sys/devices/{port}/speed", 480)
    box.disk("sdb", bus=f"{port}/2-1:1.0/host6/block", rotational=1)
    place = disks.place(box.system(), "/", disks.mounts(box.system()))
    assert place.disk is not None and (place.disk.kind, place.disk.usb_speed) == ("usb", 480)


def test_drivers_that_the_environment_names_are_all_there_is(box: Box) -> None:
    radv, lvp = box.driver("radeon"), box.driver("lvp")
    assert [icd.driver for icd in vulkan.icds(box.system())] == ["lavapipe", "RADV"]
    box.environ["VK_DRIVER_FILES"] = radv
    assert [icd.manifest for icd in vulkan.icds(box.system())] == [radv]
    box.environ = {"VK_ICD_FILENAMES": f"{lvp}:{radv}"}
    assert [icd.driver for icd in vulkan.icds(box.system())] == ["lavapipe", "RADV"]


def test_a_users_own_driver_comes_first_and_a_broken_manifest_is_passed_over(box: Box) -> None:
    box.driver("radeon")
    own = f"{HOME}/.local/share/vulkan/icd.d/own.json"
    box.file(own, json.dumps({"ICD": {"library_path": "./libvulkan_radeon.so"}}))
    box.file("/usr/share/vulkan/icd.d/broken.json", "{")
    found = vulkan.icds(box.system())
    assert [(icd.driver, icd.library_missing) for icd in found] == [("RADV", True), ("RADV", False)]


@pytest.mark.parametrize(
    ("environ", "active"),
    [
        ({}, False),
        ({"MANGOHUD": "1"}, True),
        ({"MANGOHUD": "0"}, False),
        ({"MANGOHUD": "1", "DISABLE_MANGOHUD": "1"}, False),
        ({"MANGOHUD": "1", "VK_LOADER_LAYERS_DISABLE": "~implicit~"}, False),
    ],
)
def test_when_the_loader_puts_a_layer_in(box: Box, environ: dict[str, str], active: bool) -> None:
    box.layer("VK_LAYER_MANGOHUD_overlay_x86_64", enable={"MANGOHUD": "1"}, disable="DISABLE_MANGOHUD")
    box.environ = environ
    (layer,) = vulkan.layers(box.system())
    assert (layer.active, layer.off_switch) == (active, "DISABLE_MANGOHUD=1")


def test_windows_names_drivers_in_its_registry(box: Box) -> None:
    box = machines.windows(box.root)
    path = r"C:\Windows\System32\DriverStore\amd-vulkan64.json"
    box.file(path, json.dumps({"ICD": {"library_path": r".\amdvlk64.dll"}}))
    assert [icd.driver for icd in vulkan.icds(box.system())] == ["Adrenalin"]


@pytest.mark.parametrize(
    ("driver", "environ", "path", "off"),
    [
        ("RADV", {}, f"{HOME}/.cache", None),
        ("RADV", {"MESA_SHADER_CACHE_DIR": "/fast"}, "/fast", None),
        ("RADV", {"MESA_SHADER_CACHE_DISABLE": "true"}, f"{HOME}/.cache", "MESA_SHADER_CACHE_DISABLE"),
        ("RADV", {"RADV_DEBUG": "nocache,info"}, f"{HOME}/.cache", "RADV_DEBUG"),
        ("NVIDIA", {}, f"{HOME}/.cache/nvidia/GLCache", None),
        ("NVIDIA", {"__GL_SHADER_DISK_CACHE": "0"}, f"{HOME}/.cache/nvidia/GLCache", "__GL_SHADER_DISK_CACHE"),
        ("NVIDIA", {"__GL_SHADER_DISK_CACHE_PATH": "/fast"}, "/fast", None),
        ("AMDVLK", {"XDG_CACHE_HOME": "/cache"}, "/cache/AMD/VkCache", None),
        ("AMDVLK", {"AMD_VK_PIPELINE_CACHE_PATH": "/fast"}, "/fast", None),
        ("Adrenalin", {"LOCALAPPDATA": "/Local"}, "/Local/AMD/VkCache", None),
    ],
)
def test_each_driver_has_its_own_cache(
    box: Box, driver: str, environ: dict[str, str], path: str, off: str | None
) -> None:
    box.environ = environ
    found = caches.pipeline_cache(box.system(), driver)
    assert found is not None and (found.path, found.off, found.bytes) == (path, off, 0)


def test_what_mesa_has_cached_is_counted_and_nothing_beside_it(box: Box) -> None:
    box.file(f"{HOME}/.cache/mesa_shader_cache/ab/c", "1234")
    box.file(f"{HOME}/.cache/mesa_shader_cache_db/mesa_cache.db", "1234567")
    box.file(f"{HOME}/.cache/thumbnails/large", "x" * 9000)
    box.environ = {"MESA_SHADER_CACHE_MAX_SIZE": "512M"}
    found = caches.pipeline_cache(box.system(), "RADV")
    assert found is not None and (found.bytes, found.files, found.max_bytes) == (13, 2, 512 * MIB)
    assert caches.pipeline_cache(box.system(), "some driver") is None


def test_a_container_is_known_by_what_it_leaves(box: Box) -> None:
    box = machines.rx470_rebar(box.root)
    assert box.machine().container is None
    box.file("/run/.containerenv")
    assert box.machine().container == "Podman"
