"""RAM that can be had, in a machine and in a container."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from relight.workers import ram


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The control group `/job/step` of this process, without limits."""
    own = tmp_path / "own"
    own.write_text("3:memory:/elsewhere\n0::/job/step\n")
    folder = tmp_path / "cgroup/job/step"
    folder.mkdir(parents=True)
    monkeypatch.setattr(ram, "OWN_GROUP", own)
    monkeypatch.setattr(ram, "CGROUPS", tmp_path / "cgroup")
    return folder


def limit(folder: Path, most: str, used: int, cache: int) -> None:
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used - cache}\ninactive_file {cache}\n")


def machine() -> int:
    return int(psutil.virtual_memory().total + psutil.swap_memory().total)


def test_without_limits_it_is_what_the_machine_has(group: Path) -> None:
    limit(group, "max", 5 << 20, 0)
    assert 100 << 20 < ram.available_ram() <= machine()


def test_a_groups_limit_holds_less_what_is_used_and_cannot_be_reclaimed(group: Path) -> None:
    limit(group, str(10 << 20), 7 << 20, 2 << 20)
    assert ram.available_ram() == 5 << 20


def test_the_limit_of_a_group_above_holds_too(group: Path) -> None:
    limit(group, str(10 << 20), 0, 0)
    limit(group.parent, str(4 << 20), 1 << 20, 0)
    assert ram.available_ram() == 3 << 20


def test_a_group_past_its_limit_leaves_nothing(group: Path) -> None:
    limit(group, str(1 << 20), 2 << 20, 0)
    assert ram.available_ram() == 0


def test_without_control_groups_the_machine_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ram, "OWN_GROUP", tmp_path / "none")
    assert 0 < ram.available_ram() <= machine()
