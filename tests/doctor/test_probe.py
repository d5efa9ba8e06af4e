"""The process that asks Vulkan's drivers."""

from __future__ import annotations

import sys

import pytest

from relight.doctor import probe
from relight.doctor.facts import vulkan


def test_a_driver_describes_its_devices() -> None:
    answer = vulkan.ask({})
    if not answer.values.get("devices"):
        pytest.skip("no Vulkan driver answers here")
    assert answer.crash is None and answer.values["error"] is None
    devices = vulkan.devices_of(answer.values)
    assert devices and all(device.api_version >= (1, 0) and device.memory_bytes > 0 for device in devices)
    assert all(16384 <= device.shared_memory_bytes <= 1 << 20 for device in devices)


def test_a_process_that_ends_is_told_from_one_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", "import os; os.abort()"]
    monkeypatch.setattr(vulkan, "PROBE_COMMAND", command)
    assert vulkan.ask({}).crash == "the process that asked ended (SIGABRT)"
    monkeypatch.setattr(vulkan, "PROBE_COMMAND", [sys.executable, "-c", "print('hello')"])
    assert vulkan.ask({}).crash == "the process that asked printed no answer"


def test_a_driver_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vulkan, "PROBE_COMMAND", [sys.executable, "-c", "import threading; threading.Event().wait()"])
    monkeypatch.setattr(vulkan, "PROBE_DEADLINE_S", 0.2)
    assert (vulkan.ask({}).crash or "").startswith("no answer within")


def test_without_a_loader_the_reason_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "library_names", lambda platform: ("libno-such-vulkan.so.1",))
    answer = probe.probe()
    assert answer["loader"] is None and "libno-such-vulkan" in answer["error"]


def test_structures_have_the_specifications_sizes() -> None:
    assert probe.ffi.sizeof("Limits") == 504 and probe.ffi.sizeof("Properties") == 824
    assert probe.ffi.offsetof("Limits", "maxComputeSharedMemorySize") == 216
    assert probe.ffi.sizeof("Features2") == 16 + 55 * 4 + 4


@pytest.mark.parametrize(("version", "text"), [(1 << 22 | 3 << 12 | 280, "1.3.280"), (1 << 22, "1.0.0")])
def test_versions_are_unpacked(version: int, text: str) -> None:
    assert probe.version_text(version) == text
