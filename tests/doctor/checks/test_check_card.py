"""The card's memory, link, heat and clocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from doctor import machines
from doctor.boxes import flux, gpu
from doctor.healthy import card, healthy, level, only, the_card
from relight.doctor.checks import card as memory
from relight.doctor.checks import clocks, link
from relight.doctor.facts.cards import Link, User
from relight.doctor.finding import GIB, MIB, Level
from relight.doctor.machine import Engine

OK, WARN, FAIL = Level


def test_free_video_memory_and_who_has_the_rest() -> None:
    assert only(memory.video_memory, healthy()).numbers["free_bytes"] == 4 * GIB - 300 * MIB
    full = card(vram_used_bytes=4 * GIB - 100 * MIB, users=(User(4242, "firefox", 3 * GIB),))
    found = only(memory.video_memory, full)
    assert found.level is FAIL and "held by firefox (4242) 3.0 GiB" in found.seen


def test_a_model_that_does_not_fit_what_is_free_is_a_warning() -> None:
    small = replace(healthy(), models=(flux(),))
    large = replace(card(vram_bytes=8 * GIB), models=(flux(),))
    assert only(memory.video_memory, small).seen.endswith("flux-schnell-q4 wants 7.1 GiB")
    assert level(memory.video_memory, large) is OK


def test_a_card_without_a_screen_should_be_empty() -> None:
    used = {"vram_bytes": 8 * GIB, "vram_used_bytes": 3 * GIB}
    assert level(memory.video_memory, card(**used, drives_display=True)) is OK
    assert level(memory.video_memory, card(**used, drives_display=False)) is WARN


def test_a_small_card_is_told_what_it_can_do() -> None:
    found = only(memory.video_memory, card(vram_bytes=2 * GIB))
    assert found.level is WARN and found.remedies[0].do == "relight pull sd15"


def test_without_sysfs_the_engine_says_how_much_there_is() -> None:
    machine = replace(healthy(), cards=(), engine=Engine((gpu("vulkan0", "RX 580"),)))
    assert only(memory.video_memory, machine).seen == "RX 580: 8.0 GiB, 7.8 GiB free"


def test_holders_of_video_memory_are_counted_once_a_client(tmp_path: Path) -> None:
    box = machines.rx470_rebar(tmp_path)
    box.holder(811, "Xorg", "0000:03:00.0", 200 << 10)
    box.holder(900, "firefox", "0000:03:00.0", 500 << 10)
    box.holder(900, "firefox", "0000:03:00.0", 500 << 10, number=9)
    users = box.machine().cards[0].users
    assert [(user.name, user.bytes) for user in users] == [("firefox", 500 * MIB), ("Xorg", 200 * MIB)]


def test_a_small_window_onto_video_memory() -> None:
    assert level(memory.reachable_memory, healthy()) is OK
    small = card(visible_vram_bytes=256 * MIB)
    assert level(memory.reachable_memory, small) is WARN
    hidden = replace(small, environ={"GGML_VK_DISABLE_HOST_VISIBLE_VIDMEM": "1"})
    assert level(memory.reachable_memory, hidden) is OK
    assert level(memory.reachable_memory, card(visible_vram_bytes=None, bar_bytes=256 * MIB)) is WARN


def test_integrated_graphics_have_no_window_to_speak_of() -> None:
    integrated = replace(healthy().vulkan.devices[0], type="integrated")
    machine = replace(healthy(), vulkan=replace(healthy().vulkan, devices=(integrated,)))
    assert list(memory.reachable_memory(machine)) == []


def test_gtt_that_is_small_or_full() -> None:
    assert level(memory.shared_memory, healthy()) is OK
    assert level(memory.shared_memory, card(gtt_bytes=GIB)) is WARN
    assert level(memory.shared_memory, card(gtt_used_bytes=6 * GIB)) is WARN


@pytest.mark.parametrize(
    ("measured", "expected", "words"),
    [
        (Link("03:00.0", 8.0, 16, 8.0, 16, 8.0, 16), OK, "PCIe 3.0 x16, 15.8 GB/s"),
        (Link("03:00.0", 2.5, 16, 8.0, 16, 8.0, 16), OK, "now 1.0, to save power"),
        (Link("03:00.0", 5.0, 16, 8.0, 16, 5.0, 16), OK, "PCIe 2.0 x16, the card could do 3.0 x16"),
        (Link("03:00.0", 8.0, 8, 8.0, 8, 16.0, 16), OK, "7.9 GB/s"),
        (Link("03:00.0", 8.0, 4, 8.0, 16, 8.0, 16), WARN, "card and slot can do x16"),
        (Link("03:00.0", 5.0, 4, 8.0, 16, 5.0, 4), WARN, "2.0 GB/s"),
        (Link("03:00.0", 2.5, 1, 8.0, 16, 5.0, 1), FAIL, "0.5 GB/s"),
    ],
)
def test_a_link_by_what_it_carries(measured: Link, expected: Level, words: str) -> None:
    found = only(link.width_and_speed, card(link=measured))
    assert found.level is expected and words in found.seen


def test_a_card_without_link_files_has_no_finding() -> None:
    assert list(link.width_and_speed(card(link=None))) == []


@pytest.mark.parametrize(("celsius", "expected"), [(45.0, OK), (84.0, WARN), (92.0, FAIL)])
def test_heat(celsius: float, expected: Level) -> None:
    assert level(clocks.temperature, card(temperature=celsius)) is expected


def test_clocks_held_low_and_power_held_low() -> None:
    assert only(clocks.power, healthy()).seen.endswith(
        "33 W, limit 145 W, shaders 300 of 1366 MHz, memory 300 of 2000 MHz, level auto"
    )
    low = only(clocks.power, card(performance_level="low"))
    assert low.level is WARN and low.remedies[0].do.startswith("echo auto | sudo tee /sys/bus/pci/devices/0000:03:00.0")
    capped = only(clocks.power, card(power_cap=70.0))
    assert capped.level is WARN and "echo 145000000" in capped.remedies[0].do and "70000000" in capped.remedies[0].undo
    assert level(clocks.power, card(performance_level="manual", shader_clock=1366)) is OK


def test_polaris_is_known_by_its_pci_id() -> None:
    assert the_card().is_polaris
    assert replace(the_card(), device_id=0x6FDF).is_polaris
    assert not replace(the_card(), device_id=0x731F).is_polaris
