"""Loader, drivers, layers, and what the engine makes of devices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from doctor import machines
from doctor.boxes import Box, gpu, vulkan_device
from doctor.healthy import device, environ, healthy, level, only, the_device
from relight.doctor.checks import access, driver, engine, layers, watchdog
from relight.doctor.facts.vulkan import Icd, Layer, ProbeAnswer, Vulkan, devices_of
from relight.doctor.finding import GIB, Level
from relight.doctor.machine import Engine, Machine, RenderNode

OK, WARN, FAIL = Level


def vulkan(**changes: Any) -> Machine:
    return replace(healthy(), vulkan=replace(healthy().vulkan, **changes))


def test_the_loader_is_named_with_its_version() -> None:
    assert only(driver.loader, healthy()).seen == "Vulkan loader 1.3.280 (libvulkan.so.1)"
    assert level(driver.loader, vulkan(loader=None, error="no such file")) is FAIL
    assert level(driver.loader, vulkan(devices=(), error="the loader answers -9")) is FAIL


def test_a_crash_without_layers_is_the_drivers() -> None:
    machine = vulkan(crash="ended (SIGSEGV)", crash_without_layers="ended (SIGSEGV)")
    found = only(driver.loader, machine)
    assert found.level is FAIL and "VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp" in found.remedies[0].do
    assert level(layers.implicit, machine) is OK


def test_a_crash_only_with_layers_is_the_layers(tmp_path: Path) -> None:
    box = machines.rx470_rebar(tmp_path)
    box.answer, box.without_layers = ProbeAnswer(crash="ended (SIGSEGV)"), box.answer
    box.layer("VK_LAYER_MANGOHUD_overlay_x86_64", enable={"MANGOHUD": "1"})
    box.environ["MANGOHUD"] = "1"
    machine = box.machine()
    assert [device.name for device in machine.vulkan.real_devices] == ["AMD Radeon RX 470 Graphics (RADV POLARIS10)"]
    found = only(layers.implicit, machine)
    assert found.level is FAIL and "MANGOHUD" in found.seen
    assert found.remedies[0].do == "export VK_LOADER_LAYERS_DISABLE=~implicit~"
    assert level(driver.loader, machine) is OK


@pytest.mark.parametrize(
    "name", ["VK_LAYER_MANGOHUD_overlay_x86_64", "VK_LAYER_AMD_switchable_graphics_64", "VK_LAYER_RTSS"]
)
def test_an_active_layer_known_for_crashes_is_warned_of(name: str) -> None:
    layer = Layer(name, "/usr/share/a.json", True, "NO_IT=1")
    found = only(layers.implicit, vulkan(layers=(layer,)))
    assert found.level is WARN and found.remedies[0].do == "export NO_IT=1"
    assert level(layers.implicit, vulkan(layers=(replace(layer, active=False),))) is OK


def test_installed_drivers_are_listed_and_broken_ones_named() -> None:
    assert only(driver.installed, healthy()).seen == "installed: lavapipe, RADV"
    broken = Icd("/etc/vulkan/icd.d/old.json", "AMDVLK", "/opt/gone.so", library_missing=True)
    assert level(driver.installed, vulkan(icds=(*healthy().vulkan.icds, broken))) is WARN
    assert level(driver.installed, vulkan(icds=(), devices=())) is FAIL


@pytest.mark.parametrize(("name", "expected"), [("RADV", OK), ("NVIDIA", OK), ("AMDVLK", WARN), ("dzn", WARN)])
def test_the_driver_in_use_is_judged(name: str, expected: Level) -> None:
    assert level(driver.in_use, device(driver=name)) is expected


def test_lavapipe_is_a_failure_only_where_a_card_lies_idle() -> None:
    software = replace(the_device(), type="cpu", name="llvmpipe")
    assert level(driver.in_use, vulkan(devices=(software,))) is FAIL
    assert level(driver.in_use, replace(vulkan(devices=(software,)), cards=())) is WARN


def test_one_card_by_two_drivers_is_told_from_two_cards() -> None:
    twin = replace(the_device(), driver="AMDVLK")
    found = only(driver.one_driver_a_card, vulkan(devices=(the_device(), twin)))
    assert found.level is WARN and found.remedies[0].do.endswith("radeon_icd.x86_64.json")
    assert level(driver.one_driver_a_card, vulkan(devices=(the_device(), replace(twin, pci="0000:04:00.0")))) is OK


def test_the_engine_takes_the_first_card_and_says_where_another_is_better() -> None:
    small, large = gpu("vulkan0", "RX 550", 2 * GIB), gpu("vulkan1", "RX 580", 8 * GIB)
    assert level(engine.chosen, healthy()) is OK
    found = only(engine.chosen, replace(healthy(), engine=Engine((small, large))))
    assert found.level is WARN and "--backend vulkan1" in found.remedies[0].do
    assert level(engine.chosen, replace(healthy(), engine=Engine((large, small)))) is OK
    assert level(engine.chosen, replace(healthy(), engine=Engine())) is WARN
    assert level(engine.chosen, replace(healthy(), engine=Engine(error="no library ggml-cpu"))) is FAIL


def test_vulkan_before_1_2_is_too_old() -> None:
    assert level(engine.vulkan_version, healthy()) is OK
    assert level(engine.vulkan_version, device(api_version=(1, 1, 82))) is FAIL


def test_features_that_ggml_needs() -> None:
    assert level(engine.features, healthy()) is OK
    assert level(engine.features, device(storage_16bit=False)) is FAIL
    found = only(engine.features, device(extensions=frozenset({"VK_EXT_subgroup_size_control"})))
    assert found.level is WARN and "VK_AMD_shader_core_properties" in found.seen
    assert level(engine.features, device(extensions=frozenset(), driver="Adrenalin")) is OK


def test_limits_against_what_is_forced_on_ggml() -> None:
    forced = "GGML_VK_FORCE_MAX_ALLOCATION_SIZE"
    assert only(engine.limits, healthy()).numbers["max_block_bytes"] == 4 * GIB - 4
    assert level(engine.limits, replace(healthy(), environ={forced: str(8 * GIB)})) is FAIL
    assert level(engine.limits, replace(healthy(), environ={forced: str(2 * GIB)})) is OK
    assert level(engine.limits, device(max_allocation_bytes=GIB // 2)) is WARN


def test_variables_that_are_on_though_they_say_0() -> None:
    found = only(engine.variables, environ(GGML_VK_DISABLE_F16="0"))
    assert found.level is WARN and found.remedies[0].do == "unset GGML_VK_DISABLE_F16"
    assert level(engine.variables, environ(GGML_VK_ALLOW_SYSMEM_FALLBACK="1")) is WARN
    assert level(engine.variables, environ(GGML_VK_VISIBLE_DEVICES="0")) is OK


def test_a_render_node_that_may_not_be_opened_names_its_group() -> None:
    forbidden = replace(healthy(), render_nodes=(RenderNode("/dev/dri/renderD128", "render", False),))
    assert level(access.nodes, healthy()) is OK
    assert only(access.nodes, forbidden).remedies[0].do == 'sudo usermod -aG render "$USER"'
    inside = only(access.nodes, replace(forbidden, container="Docker"))
    assert inside.level is FAIL and "--group-add" in inside.remedies[0].do


def test_rights_are_asked_of_the_system(tmp_path: Path) -> None:
    box = machines.rx470_rebar(tmp_path)
    box.forbidden = {"/dev/dri/renderD128"}
    found = only(access.nodes, box.machine())
    assert found.level is FAIL and found.seen.startswith("/dev/dri/renderD128 belongs to group render")


def test_a_card_without_node_or_with_the_old_driver_fails(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.host()
    box.card(driver=None, node=None)
    assert "sudo modprobe amdgpu" in only(access.nodes, box.machine()).remedies[0].do
    old = replace(healthy(), cards=(replace(healthy().cards[0], driver="radeon"),))
    assert "amdgpu.cik_support=1" in next(access.nodes(old)).remedies[0].do


@pytest.mark.parametrize(
    ("parameter", "kernel", "seconds"),
    [
        ("", "6.8.0-45-generic", 60),
        ("", "7.1.3", 2),
        ("10000,60000,10000,10000", "7.1.3", 60),
        ("5000", "7.0", 2),
        ("10000,-1", "6.1", float("inf")),
        ("0,0,0,0", "6.1", 60),
    ],
)
def test_the_lockup_timeout_of_compute_rings(parameter: str, kernel: str, seconds: float) -> None:
    assert watchdog.compute_timeout_s(parameter, kernel) == seconds


@pytest.mark.parametrize(("nodes", "expected"), [("", OK), ("50", WARN), ("100", FAIL)])
def test_a_submission_against_a_limit_of_2_s(nodes: str, expected: Level) -> None:
    machine = replace(healthy(), kernel="7.0.1", environ={"GGML_VK_MAX_NODES_PER_SUBMIT": nodes})
    assert level(watchdog.submissions, machine) is expected


def test_windows_waits_as_long_as_its_registry_says() -> None:
    windows = replace(healthy(), platform="win32", environ={"GGML_VK_MAX_NODES_PER_SUBMIT": "100"})
    assert only(watchdog.submissions, windows).level is FAIL
    assert "reg delete" in only(watchdog.submissions, windows).remedies[-1].undo
    assert level(watchdog.submissions, replace(windows, tdr_delay=10)) is OK


def test_nothing_is_said_of_a_watchdog_that_is_not_known() -> None:
    assert list(watchdog.submissions(replace(healthy(), lockup_timeout=None))) == []
    other = replace(the_device(), vendor_id=0x10DE)
    assert list(watchdog.submissions(replace(healthy(), vulkan=Vulkan(devices=(other,))))) == []


def test_a_device_of_the_probe_keeps_what_the_driver_said() -> None:
    printed = vulkan_device("a card", 99, driver_name="new driver", used=GIB)
    (found,) = devices_of({"devices": [printed]})
    assert (found.driver, found.api_version, found.heaps[0].free_bytes) == ("new driver", (1, 3, 278), 7 * GIB)
