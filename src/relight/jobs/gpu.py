"""Which GPU is used, and how many of its bytes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relight.errors import ConfigError
from relight.jobs.engine import EngineSettings
from relight.jobs.lanes import Lanes
from relight.planner.amounts import GIB
from relight.planner.machine import allowed

GIVEN_BACK_S, SLACK_BYTES = 5.0, GIB // 16
"""How long memory of a worker that died is waited for, and what other programs may have taken meanwhile."""


@dataclass(frozen=True)
class Gpu:
    """A GPU and the bytes relight may take of it."""

    name: str
    description: str
    budget: int
    free_bytes: int


class GpuSearch:
    """A machine that shows no GPU is not asked for one again; one whose GPU was lost is."""

    def __init__(self, lanes: Lanes, settings: EngineSettings) -> None:
        self.lanes, self.settings = lanes, settings
        self._free_before: int | None = None  # of the card, when its first worker began
        self._cardless = False

    def find(self, named: set[str], *, needed: bool) -> Gpu | None:
        """The named one, else the first real one where one is `needed`; software devices only by name. Raises
        ConfigError for a name that is not there."""
        if not (named or needed) or (self._cardless and not named):
            return None
        if len(named) > 1:
            raise ConfigError(f"--backend names {', '.join(sorted(named))}; one GPU at a time is used")
        asked = next(iter(named), None)
        devices = self.lanes.worker(asked or "vulkan0").call("devices").values["devices"]
        fitting = (d for d in devices if (d["name"] == asked if asked else d["type"] == "gpu"))
        found = next(fitting, None)
        if found is None:
            self.lanes.forget(asked or "vulkan0")
            if asked:
                raise ConfigError(no_such_device(asked, [device["name"] for device in devices]))
            self._cardless = self._free_before is None
            return None
        found = self._when_free(found)
        ours = self.settings
        budget = allowed(found, ours.profile, ours.max_vram_bytes, ours.max_vram_share)
        return Gpu(found["name"], found["description"], budget, int(found["memory_free"]))

    def _when_free(self, gpu: Mapping[str, Any]) -> Mapping[str, Any]:
        """The card when it has as much free as before its worker was lost; drivers take a while to give that back."""
        if self._free_before is None:
            self._free_before = int(gpu["memory_free"])
        deadline = time.monotonic() + GIVEN_BACK_S
        while gpu["memory_free"] < self._free_before - SLACK_BYTES and time.monotonic() < deadline:
            time.sleep(GIVEN_BACK_S / 50)
            devices = self.lanes.worker(gpu["name"]).call("devices").values["devices"]
            gpu = next((each for each in devices if each["name"] == gpu["name"]), gpu)
        return gpu


def no_such_device(asked: str, there: Sequence[str]) -> str:
    if any(name.startswith("vulkan") for name in there):
        return f"--backend: no device {asked}; this machine has {', '.join(there)} (relight devices says more)"
    return (
        f"--backend: no device {asked}; no Vulkan driver was found, only {', '.join(there)}. Install the card's driver "
        "and libvulkan1, or leave out --backend"
    )
