"""How long a worker may give no sign before it counts as hung: by what it does, and by what that took it before.

A sign is a step, a tile, a part of a file loaded, an answer. Nothing says beforehand how slow a machine is, so what has
not been done yet is given long: drivers compile shaders for minutes, old processors take minutes for T5, disks may be
networks. From then on a worker is measured by itself.
"""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil

DEFAULT_S = 60.0
"""Of what is known to be quick; everything else follows from it."""
UNKNOWN = 10
"""Times as long for what was not done before in this process, and besides a second for each of"""
BYTES_A_SECOND = 5_000_000
"""of the component's file, and of that as often as there are pictures of 1024x1024 in a step: the slowest disks, and
T5 on two old cores."""
LATENTS_OF_1024 = 128 * 128
SLOWER, SLOWER_THAN_FIRST = 10, 3
"""A step may take so many times the slowest so far; the second so many times the first, which had to compile."""
CROWD_AT_MOST = 8.0
LEARNED = ("run", "check", "devices")
"""Calls that take as long as they did. Loading does not: files may be in memory or not."""


@dataclass
class Pace:
    """Seconds between signs of one kind of work: the first ones, and the most since."""

    first: float
    slowest: float | None = None

    def add(self, seconds: float) -> None:
        self.slowest = max(seconds, self.slowest or 0.0)

    @property
    def longest(self) -> float:
        return SLOWER_THAN_FIRST * self.first if self.slowest is None else SLOWER * self.slowest


@dataclass
class Doing:
    """A call under way. `key` is the work by which the next one of its kind is measured, None where none is;
    `deadline_s` goes over all else."""

    patience: Patience
    method: str
    key: Hashable = None
    nbytes: int = 0
    stage: str = ""
    deadline_s: float | None = None

    def heard(self, seconds: float, values: Mapping[str, Any]) -> None:
        """A sign, so many seconds after the last."""
        if "stage" in values and "done" in values:
            self.stage = f"{values['stage']} {values['done']} of {values['total']}"
        if self.key is None:
            return
        if pace := self.patience.paces.get(self.key):
            pace.add(seconds)
        else:
            self.patience.paces[self.key] = Pace(seconds)

    def allowed(self, *, stopped: bool = False) -> float:
        """Seconds of silence from now on; `stopped`: the process does not run at all."""
        seconds, pace = self.patience.seconds or math.inf, self.patience.paces.get(self.key)
        if self.deadline_s is not None:
            return min(self.deadline_s, seconds) if stopped else self.deadline_s
        if stopped:
            return seconds
        if pace is None:
            return UNKNOWN * seconds + self.nbytes / BYTES_A_SECOND
        return max(seconds, pace.longest)

    @property
    def words(self) -> str:
        """`run, after denoise 3 of 20`."""
        return f"{self.method}, after {self.stage}" if self.stage else self.method


@dataclass
class Patience:
    """Of one worker; `seconds` 0: for ever."""

    seconds: float = DEFAULT_S
    paces: dict[Hashable, Pace] = field(default_factory=dict)
    nbytes: dict[str, int] = field(default_factory=dict)

    def begin(self, method: str, values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Doing:
        component = str(values.get("component", ""))
        key = None
        if method in LEARNED:
            shapes = tuple((name, array.shape) for name, array in arrays.items())
            key = (component, method, values.get("executor"), tuple(dict(values.get("sizes") or {}).items()), shapes)
        return Doing(self, method, key, int(self.nbytes.get(component, 0) * pictures(values, arrays)))

    def answered(self, method: str, values: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """A component was opened, or is given other weights: what its steps took says nothing any more."""
        if method in ("open", "adapt", "close"):
            component = str(values["component"])
            self.paces = {key: pace for key, pace in self.paces.items() if not _is_of(key, component)}
            self.nbytes[component] = int(answer.get("file_bytes", self.nbytes.get(component, 0)))


def pictures(values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> float:
    """How many of 1024x1024 a step takes as long as, at least one."""
    sizes: dict[str, int] = dict(values.get("sizes") or {})
    latents = arrays.get("latents")
    area = sizes.get("latent_height", 0) * sizes.get("latent_width", 0) / LATENTS_OF_1024
    return max(1.0, area * (len(latents) if latents is not None and latents.ndim == 4 else 1))


def _is_of(key: Hashable, component: str) -> bool:
    return isinstance(key, tuple) and key[0] == component


def crowd() -> float:
    """How many times as long everything takes for want of processors: those that want one, for each there is."""
    return min(CROWD_AT_MOST, max(1.0, psutil.getloadavg()[0] / (os.cpu_count() or 1)))


def way_out(seconds: float) -> str:
    """What to tell of a process that was ended for its silence, with the setting in force."""
    return (
        "A driver or a disk that hangs does that; on a machine that is only slow give it longer by "
        f"engine.hang_seconds, now {seconds:g}, or 0 for ever"
    )


def state_of(pid: int) -> str:
    """`sleeping`, `running`, `stopped`, `disk-sleep` (in the kernel, such as in a driver) ...; empty where unknown."""
    try:
        return str(psutil.Process(pid).status())
    except psutil.Error:
        return ""
