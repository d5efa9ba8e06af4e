"""How much RAM can be had without driving the machine, or the container it runs in, out of memory."""

from __future__ import annotations

from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")


def available_ram() -> int:
    """Bytes free or reclaimable, swap included; less where a Linux control group allows less."""
    machine = int(psutil.virtual_memory().available) + int(psutil.swap_memory().free)
    return min([machine, *_left_in_groups(CGROUPS, OWN_GROUP)])


def _left_in_groups(root: Path, own: Path) -> list[int]:
    """What the group of this process and those above it have left: limit, less use that is not the file cache."""
    try:
        line = next(line for line in own.read_text().splitlines() if line.startswith("0::/"))
    except (OSError, StopIteration):
        return []  # no control groups of version 2
    group = root / line.removeprefix("0::/")
    return [left for folder in (group, *group.parents) if folder.is_relative_to(root) for left in _left_in(folder)]


def _left_in(folder: Path) -> list[int]:
    try:
        limit, used = (folder / "memory.max").read_text().strip(), int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return []
    return [] if limit == "max" else [max(0, int(limit) - used + int(stat.get("inactive_file", 0)))]
