"""While pictures wait for the backbone's device, text and decoding leave it, where that makes more of them an hour."""

from __future__ import annotations

import lzma
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import full_size
from relight.executors.base import CompileOptions, MemoryUse
from relight.jobs import aside, fleet, lanes, run
from relight.jobs.aside import COMPILE_S, CPU_SHARE, Choice, choose
from relight.jobs.checks import Checked
from relight.jobs.engine import EngineSettings
from relight.jobs.events import Advanced, Event
from relight.jobs.gpu import Gpu
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import GenerateRequest, ModelFiles
from relight.jobs.settle import settle
from relight.planner import stages
from relight.planner.amounts import GIB
from relight.planner.estimate import NOTHING, NoTimings, Seconds
from relight.planner.forecast import Forecast
from relight.planner.placement import Placement
from relight.planner.stages import Course, Part
from relight.workers.protocol import Message

pytestmark = pytest.mark.timeout(120)
TOKENIZER = Path(__file__).parents[1] / "models/t5_tokenizer.json.xz"
TEXT = ("clip_l", "t5xxl")
PLACED = Placement(
    {"clip_l": "vulkan0", "t5xxl": "cpu", "modulation": "cpu", "diffusion": "vulkan0", "vae": "vulkan0"},
    72,
    use={name: MemoryUse(3 * 10**8, 0) for name in ("clip_l", "diffusion", "vae")},
)
MOVABLE = ("clip_l", "vae")
SECONDS = {
    ("clip_l", "vulkan0"): 0.02,
    ("clip_l", "cpu"): 0.05,
    ("t5xxl", "cpu"): 1.0,
    ("modulation", "cpu"): 0.2,
    ("diffusion", "vulkan0"): 10.7,
    ("vae", "vulkan0"): 0.64,
    ("vae", "cpu"): 3.5,
}
"""FLUX.1 schnell on the card that docs/measurements.md has."""


def course(seconds: Mapping[tuple[str, str], float]) -> Callable[[Placement], Course]:
    def of(placement: Placement) -> Course:
        parts = {
            name: Part(name, device, device, MemoryUse(0, 0), 1, Seconds(seconds[name, device]))
            for name, device in placement.device.items()
        }
        return Course(parts, (), NOTHING, NOTHING)

    return of


def chosen(changes: Mapping[tuple[str, str], float], seen: Mapping[tuple[str, str], float] | None = None) -> Choice:
    return choose(PLACED, course({**SECONDS, **changes}), MOVABLE, TEXT, seen or {}, lambda placement: True)


def test_what_hides_behind_the_denoising_leaves_the_gpu() -> None:
    found = chosen({})
    assert found.components == {"clip_l", "vae"}
    assert found.stay_s == pytest.approx(0.02 + 0.2 + 10.7 + 0.64) and found.leave_s == pytest.approx(10.7)
    assert found.cost_s == pytest.approx(COMPILE_S + 0.2)


@pytest.mark.parametrize(
    ("changes", "components"),
    [
        ({("vae", "cpu"): 12.0}, {"clip_l"}),
        ({("vae", "cpu"): 10.7 * CPU_SHARE - 1.1, ("clip_l", "cpu"): 1.0}, {"vae"}),
        ({("t5xxl", "cpu"): 30.0}, set()),
        ({("vae", "vulkan0"): 0.1, ("modulation", "cpu"): 0.0}, set()),
    ],
    ids=["a slow decoder stays", "what passes the CPU's share stays", "a slow text encoder", "no gain"],
)
def test_what_would_make_the_cpu_the_slower_lane_stays(
    changes: Mapping[tuple[str, str], float], components: set[str]
) -> None:
    changes = {("modulation", "cpu"): 0.4} | dict(changes)
    assert chosen(changes).components == components


def test_what_was_seen_counts_more_than_what_was_foretold() -> None:
    assert chosen({}, {("vae", "cpu"): 40.0}).components == set()
    assert chosen({("vae", "cpu"): 40.0}, {("vae", "cpu"): 3.5}).components == {"clip_l", "vae"}


def test_it_stays_where_the_cpu_has_no_room() -> None:
    found = choose(PLACED, course(SECONDS), MOVABLE, TEXT, {}, lambda placement: placement.device["vae"] != "cpu")
    assert "vae" not in found.components


@pytest.mark.parametrize(
    ("card", "cores", "components"), [("NVIDIA H100", 16, {"clip_l", "vae"}), ("AMD Radeon RX 580", 2, set())]
)
def test_the_planner_says_so_of_the_real_model(tmp_path: Path, card: str, cores: int, components: set[str]) -> None:
    """FLUX.1 schnell at full size, from estimates: sixteen cores with bfloat16, and two without."""
    paths = {part.stem: (part,) for part in full_size.flux(tmp_path).iterdir()}
    names = {"diffusion": "flux1-schnell-Q4_K", "clip_l": "clip_l", "t5xxl": "t5xxl", "vae": "ae"}
    (tmp_path / "tokenizer.json").write_bytes(lzma.decompress(TOKENIZER.read_bytes()))
    checked = Checked(ModelFiles.of_family("flux", {name: paths[stem] for name, stem in names.items()}))
    settled = settle(GenerateRequest(prompt="a cat", width=1024, height=1024, steps=4, seed=0), checked)
    with closing(Forecast(checked, card, None, NoTimings())) as forecast:
        wide = cores > 2
        cpu = replace(forecast.cpu, cores=cores, avx512=wide, bf16=wide, amx=wide, available=64 * GIB)
        forecast.cpu = cpu
        found = choose(
            PLACED, forecast.course(settled, "vulkan0", CompileOptions()), MOVABLE, TEXT, {}, lambda placement: True
        )
    assert found.components == components
    assert (found.leave_s < 0.95 * found.stay_s) == bool(components)


REQUEST = GenerateRequest(prompt="a cat", width=64, height=64, steps=1, seed=1, text_tokens=16)
SETTINGS = EngineSettings(threads=1, check_results=False)


@pytest.fixture
def pipeline(tiny_files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    """The reference executor stands for a GPU: a worker of its own, with room for everything."""
    for module in (lanes, fleet, run, aside, stages):
        monkeypatch.setattr(module, "worker_name", lambda device: "gpu" if device == "reference" else "cpu")

    def find_gpu(self: fleet.Fleet, named: set[str], *, needed: bool) -> Gpu:
        self.gpu = self.gpu or Gpu("reference", "a card", GIB, GIB)
        self.open_executor("reference", GIB)
        return self.gpu

    monkeypatch.setattr(fleet.Fleet, "find_gpu", find_gpu)
    with Pipeline(tiny_files, SETTINGS) as pipeline:
        yield pipeline


def decoded_on(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Devices of the decodes. None on the CPU ends before the denoising that waited for the device has begun."""
    found: list[str] = []
    call, denoising, changed = pipeline.fleet.call, [0], threading.Condition()

    def noted(name: str, what: str, *arguments: Any, device: str, **values: Any) -> Message:
        with changed:
            if (name, what) == ("diffusion", "run"):
                denoising[0] += 1
                changed.notify_all()
            if (name, what) == ("vae", "run"):
                found.append(device)
                elsewhere = sum(each != "reference" for each in found)
                if device != "reference":
                    assert changed.wait_for(lambda: denoising[0] > elsewhere, 30), "the GPU waited for the CPU"
        return call(name, what, *arguments, device=device, **values)

    monkeypatch.setattr(pipeline.fleet, "call", noted)
    return found


def together(pipeline: Pipeline, count: int) -> list[np.ndarray]:
    """So many requests at once; no picture is denoised to its end before all of them are on their way."""
    planned = threading.Barrier(count + 1)
    all_planned = threading.Event()

    def tell(event: Event) -> None:
        if isinstance(event, Advanced) and event.stage == "denoise":
            assert all_planned.wait(60)

    def one(seed: int) -> np.ndarray:
        planned.wait(60)
        return pipeline.generate(replace(REQUEST, seed=seed), tell).pictures[0].image

    with ThreadPoolExecutor(count) as pool:
        made = [pool.submit(one, seed) for seed in range(count)]
        planned.wait(60)
        while len(pipeline._runs) < count or not all(r.denoising for r in pipeline._runs):
            threading.Event().wait(0.005)
        all_planned.set()
        return [each.result(60) for each in made]


def forced(monkeypatch: pytest.MonkeyPatch, components: set[str], cost_s: float = 0.0) -> None:
    monkeypatch.setattr(aside, "choose", lambda *of: Choice(frozenset(components), 2.0, 1.0, cost_s))


def test_all_but_the_last_of_a_queue_are_decoded_beside_the_next(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = pipeline.generate(replace(REQUEST, seed=0)).pictures[0].image
    forced(monkeypatch, {"clip_l", "vae"})
    together(pipeline, 2)  # opens what it takes
    devices = decoded_on(pipeline, monkeypatch)
    made = together(pipeline, 3)
    assert sorted(devices) == ["ggml-cpu", "ggml-cpu", "reference"]
    assert int(np.abs(made[0].astype(int) - alone).max()) <= 2
    pipeline.generate(REQUEST)
    assert devices[3:] == ["reference"] and len(pipeline.fleet.where("vae")) == 2


def test_a_component_moves_only_when_waiting_has_cost_what_moving_costs(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced(monkeypatch, {"vae"}, cost_s=2.5)
    together(pipeline, 2)
    assert pipeline.fleet.where("vae") == ["reference"]
    together(pipeline, 3)
    assert pipeline.fleet.where("vae") == ["reference", "ggml-cpu"]


def test_in_a_batch_each_picture_is_decoded_while_the_next_is_made(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = pipeline.generate(replace(REQUEST, batch=3))
    forced(monkeypatch, {"vae"})
    pipeline.sharing.forget()
    pipeline.generate(replace(REQUEST, batch=3))
    pipeline.fleet.late_lanes["cpu"].submit(lambda: None).result(60)  # it is open there by then
    devices = decoded_on(pipeline, monkeypatch)
    again = pipeline.generate(replace(REQUEST, batch=3))
    assert sorted(devices) == ["ggml-cpu", "ggml-cpu", "reference"]
    for mine, theirs in zip(again.pictures, alone.pictures, strict=True):
        assert int(np.abs(mine.image.astype(int) - theirs.image).max()) <= 2


def test_what_the_user_placed_stays(tiny_files: ModelFiles, pipeline: Pipeline) -> None:
    pipeline.wanted = pipeline.wanted | {"vae": "reference", "clip_l": "reference"}
    together(pipeline, 2)
    assert pipeline.fleet.where("vae") == ["reference"]
