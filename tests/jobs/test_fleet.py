"""Which GPU is taken, and how much of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relight.errors import ConfigError
from relight.jobs import fleet
from relight.jobs.fleet import HEADROOM_BYTES, EngineSettings, Fleet
from relight.jobs.request import ModelFiles
from relight.planner.placement import GIB
from relight.planner.profiles import PROFILES
from relight.workers.protocol import Message

NOWHERE = ModelFiles.of_family("flux", {kind: (Path(kind),) for kind in ("diffusion", "clip_l", "t5xxl", "vae")})
CARD = {"name": "vulkan0", "description": "a card", "type": "gpu", "memory_free": 10 * GIB}
SOFTWARE = {"name": "vulkan0", "description": "llvmpipe", "type": "software", "memory_free": 20 * GIB}
CPU = {"name": "ggml-cpu", "description": "a processor", "type": "cpu", "memory_free": 20 * GIB}


class FakeWorker:
    """Says which devices there are, and keeps the calls it got."""

    devices: list[dict[str, Any]]
    all: list[FakeWorker]

    def __init__(self, name: str, environment: dict[str, str] | None = None) -> None:
        self.name, self.environment = name, environment
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.alive = True
        FakeWorker.all.append(self)

    def call(self, method: str, values: dict[str, Any] | None = None) -> Message:
        self.calls.append((method, values or {}))
        return Message("result", 1, {"devices": self.devices})

    def close(self) -> None:
        self.alive = False


@pytest.fixture(autouse=True)
def workers(monkeypatch: pytest.MonkeyPatch) -> type[FakeWorker]:
    monkeypatch.setattr(fleet, "Worker", FakeWorker)
    FakeWorker.all = []
    FakeWorker.devices = [CARD, CPU]
    return FakeWorker


def test_the_first_real_gpu_is_taken_less_a_margin() -> None:
    gpu = Fleet(NOWHERE, EngineSettings()).find_gpu(set(), needed=True)
    assert gpu is not None and gpu.name == "vulkan0" and gpu.budget == 10 * GIB - HEADROOM_BYTES
    opened = [values for method, values in FakeWorker.all[0].calls if method == "open_executor"]
    assert [values["limit_bytes"] for values in opened] == [gpu.budget]


def test_a_software_device_is_only_taken_by_name() -> None:
    FakeWorker.devices = [SOFTWARE, CPU]
    assert Fleet(NOWHERE, EngineSettings()).find_gpu(set(), needed=True) is None
    assert not any(worker.alive for worker in FakeWorker.all)
    found = Fleet(NOWHERE, EngineSettings()).find_gpu({"vulkan0"}, needed=False)
    assert found is not None and found.description == "llvmpipe"


def test_no_worker_is_started_where_nothing_may_go_to_a_gpu() -> None:
    assert Fleet(NOWHERE, EngineSettings()).find_gpu(set(), needed=False) is None
    assert FakeWorker.all == []


@pytest.mark.parametrize(
    ("settings", "budget"),
    [
        (EngineSettings(max_vram_bytes=3 * GIB), 3 * GIB),
        (EngineSettings(max_vram_bytes=99 * GIB), 10 * GIB - HEADROOM_BYTES),
        (EngineSettings(profile=PROFILES["rx580-8g"]), 8 * GIB - GIB // 4),
        (EngineSettings(profile=PROFILES["rx470-4g"], max_vram_bytes=5 * GIB), 4 * GIB - GIB // 4),
    ],
)
def test_the_least_bound_is_the_budget(settings: EngineSettings, budget: int) -> None:
    gpu = Fleet(NOWHERE, settings).find_gpu(set(), needed=True)
    assert gpu is not None and gpu.budget == budget


def test_a_device_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"no device vulkan9; this machine has vulkan0, ggml-cpu"):
        Fleet(NOWHERE, EngineSettings()).find_gpu({"vulkan9"}, needed=False)
    FakeWorker.devices = [CPU]
    with pytest.raises(ConfigError, match=r"no device vulkan0; no Vulkan driver was found"):
        Fleet(NOWHERE, EngineSettings()).find_gpu({"vulkan0"}, needed=False)
    assert not any(worker.alive for worker in FakeWorker.all)


def test_two_gpus_at_a_time_are_refused() -> None:
    with pytest.raises(ConfigError, match="names vulkan0, vulkan1; one GPU at a time"):
        Fleet(NOWHERE, EngineSettings()).find_gpu({"vulkan1", "vulkan0"}, needed=False)


def test_a_lost_worker_is_forgotten_with_what_was_open_on_it() -> None:
    ours = Fleet(NOWHERE, EngineSettings())
    ours.find_gpu(set(), needed=True)
    ours.open("diffusion", "vulkan0")
    ours.open("clip_l", "ggml-cpu")
    assert not ours.drop_lost()
    FakeWorker.all[0].alive = False
    assert ours.drop_lost()
    assert ours.opened == {"clip_l": "ggml-cpu"} and ours.executors == {"ggml-cpu"} and ours.gpu is None
    assert set(ours.workers) == set(ours.lanes) == {"cpu"}
    assert ours.find_gpu(set(), needed=True) is not None


def test_a_component_that_moves_is_closed_where_it_was() -> None:
    ours = Fleet(NOWHERE, EngineSettings())
    ours.open("vae", "ggml-cpu")
    ours.open("vae", "vulkan0")
    assert ("close", {"component": "vae"}) in FakeWorker.all[0].calls
    assert ours.opened == {"vae": "vulkan0"}


def test_the_pretended_card_reaches_the_worker() -> None:
    Fleet(NOWHERE, EngineSettings(profile=PROFILES["rx580-8g"])).find_gpu(set(), needed=True)
    environment = FakeWorker.all[0].environment
    assert environment is not None and environment["GGML_VK_MAX_NODES_PER_SUBMIT"] == "16"
