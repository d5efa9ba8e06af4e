"""Whole machines: what the doctor makes of each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from doctor import machines
from doctor.boxes import Box, flux
from relight.doctor.checks import examine
from relight.doctor.finding import Finding, Level
from relight.doctor.models import ModelSet

Make = Callable[[Path], Box]
T5_F16 = 9_787_841_024

EXPECTED: dict[Make, dict[str, Level]] = {
    machines.rx470_rebar: {},
    machines.rx580_on_x79: {
        "engine": Level.FAIL,
        "instructions": Level.FAIL,
        "bar": Level.WARN,
        "pcie": Level.WARN,
        "disk": Level.WARN,
        "queue": Level.WARN,
        "cold-read": Level.WARN,
    },
    machines.wsl2_dzn: {
        "driver": Level.WARN,
        "features": Level.FAIL,
        "engine": Level.WARN,
        "wsl": Level.WARN,
        "file-system": Level.FAIL,
        "cold-read": Level.WARN,
        "memory": Level.WARN,
    },
    machines.two_icds: {"layers": Level.WARN, "driver": Level.WARN, "two-drivers": Level.WARN},
    machines.lavapipe_only: {"driver": Level.FAIL, "engine": Level.FAIL},
    machines.no_swap_16_gb: {"swap": Level.WARN},
    machines.ivy_bridge: {"engine": Level.FAIL, "instructions": Level.FAIL},
    machines.laptop: {"engine": Level.WARN},
    machines.gtx1070: {"bar": Level.WARN},
    machines.headless_container: {
        "driver": Level.FAIL,
        "access": Level.FAIL,
        "engine": Level.WARN,
        "container": Level.WARN,
    },
}


def models_of(make: Make) -> tuple[ModelSet, ...]:
    """Machines with 4 GB cards, and those that are about drivers, have no model that would not fit."""
    return (flux(),) if make in (machines.rx580_on_x79, machines.wsl2_dzn, machines.gtx1070) else ()


def worst(findings: list[Finding]) -> dict[str, Level]:
    """Of each check that is not ok."""
    order = list(Level)
    found: dict[str, Level] = {}
    for each in findings:
        if each.level is not Level.OK:
            found[each.check] = max(found.get(each.check, Level.OK), each.level, key=order.index)
    return found


@pytest.mark.parametrize("make", EXPECTED, ids=lambda make: make.__name__)
def test_a_machine_gets_these_warnings_and_no_others(make: Make, tmp_path: Path) -> None:
    findings = examine(make(tmp_path).machine(*models_of(make)))
    assert worst(findings) == EXPECTED[make], [(f.check, f.seen) for f in findings if f.level is not Level.OK]


@pytest.mark.parametrize("make", [*EXPECTED, machines.windows], ids=lambda make: make.__name__)
def test_what_is_not_ok_says_why(make: Make, tmp_path: Path) -> None:
    for finding in examine(make(tmp_path).machine(*models_of(make))):
        assert finding.seen and (finding.level is Level.OK or finding.why)
        assert all(each.does and each.do and each.undo for each in finding.remedies)


def test_windows_is_examined_without_sysfs_or_proc(tmp_path: Path) -> None:
    found = {each.check: each for each in examine(machines.windows(tmp_path).machine(flux()))}
    assert found["loader"].seen == "Vulkan loader 1.3.275 (vulkan-1.dll)"
    assert "Adrenalin 23.Q4" in found["driver"].seen and found["driver"].level is Level.OK
    assert found["vram"].numbers["total_bytes"] == 8 << 30
    assert "is reset after 2 s" in found["watchdog"].seen
    assert "NVIDIA" not in str(found) and {"bar", "pcie", "access", "gtt"}.isdisjoint(found)


def test_the_x79_board_is_described_with_its_numbers(tmp_path: Path) -> None:
    found = {each.check: each for each in examine(machines.rx580_on_x79(tmp_path).machine(flux()))}
    assert "256 MiB of 8.0 GiB" in found["bar"].seen
    assert found["bar"].remedies[0].do == "export GGML_VK_DISABLE_HOST_VISIBLE_VIDMEM=1"
    assert "PCIe 2.0 x8, the card could do 3.0 x16, 4.0 GB/s" in found["pcie"].seen
    assert "AVX2, FMA, F16C" in found["instructions"].seen
    assert "hard disk sda" in found["disk"].seen
    assert "active: mc0 Sandy Bridge SrcID#0: S4ECD4ED" in found["ecc"].seen
    assert "flux-schnell-q4 (11.6 GiB) loads in 2.3 min" in found["cold-read"].seen


def test_16_gb_without_swap_do_for_t5_in_f16_and_nothing_larger(tmp_path: Path) -> None:
    box = machines.no_swap_16_gb(tmp_path)
    t5_f16, more, far_more = (worst(examine(box.machine(flux(size)))) for size in (T5_F16, 13 * 10**9, 16 * 10**9))
    assert t5_f16["swap"] is Level.WARN and "memory" not in t5_f16
    assert more["memory"] is Level.WARN and far_more["memory"] is Level.FAIL


def test_nothing_outside_the_root_is_read(tmp_path: Path) -> None:
    opened: list[str] = []
    watching = True

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in ("open", "os.listdir", "os.scandir", "subprocess.Popen", "socket.connect"):
            opened.append(str(arguments[0]))

    box = machines.rx580_on_x79(tmp_path)
    examine(box.machine(flux()))  # whatever is imported on the way is now
    sys.addaudithook(note)
    examine(box.machine(flux()))
    watching = False
    assert opened and [path for path in opened if not path.startswith(str(tmp_path))] == []
