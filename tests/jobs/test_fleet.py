"""Which GPU is taken and how much of it, and what of a model is open on which worker."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from relight.errors import ConfigError
from relight.executors.base import MemoryUse
from relight.jobs import gpu, lanes
from relight.jobs.engine import EngineSettings
from relight.jobs.fleet import Fleet
from relight.jobs.request import ModelFiles
from relight.planner.amounts import GIB
from relight.planner.machine import HEADROOM_BYTES
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

    def __init__(self, name: str, environment: dict[str, str] | None = None, hang_s: float = 0.0) -> None:
        self.name, self.environment = name, environment
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.alive = True
        FakeWorker.all.append(self)

    def call(self, method: str, values: dict[str, Any] | None = None, *more: Any) -> Message:
        self.calls.append((method, values or {}))
        lora = {"unmatched": [f"{path}: odd" for path, _ in (values or {}).get("loras", ())]}
        return Message("result", 1, {"devices": self.devices} | lora)

    def called(self, wanted: str) -> list[dict[str, Any]]:
        return [values for method, values in self.calls if method == wanted]

    def close(self) -> None:
        self.alive = False


@pytest.fixture(autouse=True)
def workers(monkeypatch: pytest.MonkeyPatch) -> type[FakeWorker]:
    monkeypatch.setattr(lanes, "Worker", FakeWorker)
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


def test_a_machine_without_a_gpu_is_asked_for_one_once() -> None:
    """A worker that looks for it takes half a second, of every picture."""
    FakeWorker.devices = [CPU]
    ours = Fleet(NOWHERE, EngineSettings())
    assert ours.find_gpu(set(), needed=True) is None and ours.find_gpu(set(), needed=True) is None
    assert len(FakeWorker.all) == 1
    with pytest.raises(ConfigError, match="no device vulkan0"):
        ours.find_gpu({"vulkan0"}, needed=True)


def test_one_whose_gpu_was_lost_is_asked_again() -> None:
    ours = Fleet(NOWHERE, EngineSettings())
    assert ours.find_gpu(set(), needed=True) is not None
    FakeWorker.all[0].alive, FakeWorker.devices = False, [CPU]
    ours.drop_lost()
    assert ours.find_gpu(set(), needed=True) is None  # while the driver starts again
    FakeWorker.devices = [CARD, CPU]
    assert ours.find_gpu(set(), needed=True) is not None


def test_the_memory_of_a_worker_that_died_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "GIVEN_BACK_S", 60.0)
    ours, slept = Fleet(NOWHERE, EngineSettings()), list[float]()
    before = ours.find_gpu(set(), needed=True)

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        FakeWorker.devices = [CARD | {"memory_free": (4 + 2 * len(slept)) * GIB}, CPU]

    monkeypatch.setattr(gpu.time, "sleep", sleep)
    FakeWorker.all[0].alive, FakeWorker.devices = False, [CARD | {"memory_free": 4 * GIB}, CPU]
    ours.drop_lost()
    assert ours.find_gpu(set(), needed=True) == before and len(slept) == 3


def test_memory_that_does_not_come_back_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "GIVEN_BACK_S", 0.01)
    ours = Fleet(NOWHERE, EngineSettings())
    ours.find_gpu(set(), needed=True)
    FakeWorker.all[0].alive, FakeWorker.devices = False, [CARD | {"memory_free": 4 * GIB}, CPU]
    ours.drop_lost()
    again = ours.find_gpu(set(), needed=True)
    assert again is not None and again.budget == 4 * GIB - HEADROOM_BYTES


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
    assert ours.opened == {("clip_l", "cpu"): "ggml-cpu"} and ours.executors == {"ggml-cpu"} and ours.gpu is None
    assert set(ours.workers) == set(ours.lanes) == {"cpu"}
    assert ours.find_gpu(set(), needed=True) is not None


def test_a_component_may_be_open_on_both_devices_and_is_called_where_it_is_said() -> None:
    ours = Fleet(NOWHERE, EngineSettings())
    ours.open("vae", "ggml-cpu")
    ours.open("vae", "vulkan0")
    ours.call("vae", "run", {}, device="vulkan0")
    cpu, gpu = FakeWorker.all
    assert ours.where("vae") == ["ggml-cpu", "vulkan0"] and not cpu.called("close")
    assert gpu.called("run") and not cpu.called("run")


def test_on_one_worker_it_is_closed_on_one_executor_before_it_is_opened_on_another() -> None:
    ours = Fleet(NOWHERE, EngineSettings())
    ours.open("vae", "ggml-cpu")
    ours.open("vae", "reference")
    assert len(FakeWorker.all[0].called("close")) == 1 and ours.where("vae") == ["reference"]


@pytest.mark.parametrize(("room", "stays"), [(100, True), (99, False)])
def test_what_was_placed_elsewhere_leaves_and_what_was_not_placed_stays_where_it_fits(room: int, stays: bool) -> None:
    ours = Fleet(NOWHERE, EngineSettings())
    for name in ("diffusion", "vae", "taesd"):
        ours.open(name, "vulkan0")
        ours.use[name, "vulkan0"] = MemoryUse(60, 40)
    kept = ours.make_room("vulkan0", {"diffusion": "vulkan0", "vae": "cpu"}, room)
    assert not ours.where("vae") and ours.where("diffusion")
    assert bool(ours.where("taesd")) == stays and kept == (100 if stays else 0)


def test_the_pretended_card_reaches_the_worker() -> None:
    Fleet(NOWHERE, EngineSettings(profile=PROFILES["rx580-8g"])).find_gpu(set(), needed=True)
    environment = FakeWorker.all[0].environment
    assert environment is not None and environment["GGML_VK_MAX_NODES_PER_SUBMIT"] == "16"


def test_another_way_to_convolve_opens_the_decoder_anew() -> None:
    ours = Fleet(NOWHERE, EngineSettings())
    for convolution in (None, "auto", "im2col", "im2col"):
        ours.open("vae", "ggml-cpu", convolution=convolution)
    opened = FakeWorker.all[0].called("open")
    assert [values["options"]["convolution"] for values in opened] == ["auto", "im2col"]
    assert len(FakeWorker.all[0].called("close")) == 1


def test_controlnets_go_into_the_backbone_and_open_it_anew_when_they_change() -> None:
    ours = Fleet(NOWHERE, EngineSettings())
    for paths in ([], [Path("a"), Path("b")], [Path("a"), Path("b")], []):
        ours.use_controls(paths)
        ours.open("vae", "ggml-cpu")
        ours.open("diffusion", "ggml-cpu")
    opened = [values["extras"] for values in FakeWorker.all[0].called("open") if values["component"] == "diffusion"]
    assert opened == [{}, {"0": ["a"], "1": ["b"]}, {}]
    assert [values["component"] for values in FakeWorker.all[0].called("open")].count("vae") == 1


def test_a_lora_set_reaches_each_component_once_and_wherever_it_moves() -> None:
    ours = Fleet(NOWHERE, EngineSettings())
    ours.open("diffusion", "ggml-cpu")
    ink = {"diffusion": [(Path("ink"), 0.5)], "clip_l": [(Path("ink"), 1.0)]}
    ours.use_loras(ink)
    ours.use_loras(ink)
    adapted = FakeWorker.all[0].called("adapt")
    assert adapted == [{"component": "diffusion", "loras": [("ink", 0.5)]}]
    assert ours.unmatched_lora_names() == ["ink: odd"]
    ours.open("clip_l", "ggml-cpu")
    assert adapted != (now := FakeWorker.all[0].called("adapt")) and now[1]["component"] == "clip_l"
    ours.open("diffusion", "vulkan0")
    assert FakeWorker.all[1].called("adapt") == adapted
    ours.use_loras({})
    assert FakeWorker.all[1].called("adapt")[-1] == {"component": "diffusion", "loras": []}
    assert ours.unmatched_lora_names() == []


def test_a_task_beside_the_lanes_does_not_wait_for_them() -> None:
    ours = Fleet(NOWHERE, EngineSettings())
    ours.open("vae", "ggml-cpu")
    held = threading.Event()
    waiting = ours.submit("cpu", lambda: held.wait(10))
    assert ours.submit_beside(lambda: "done").result(10) == "done" and not waiting.done()
    held.set()
    assert waiting.result(10)
    ours.close()
