"""Image jobs from the ledger to their results: beside one another, cancelled, broken off, driven up the ladder."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tiny_sd
from relight.errors import ModelFileError, OutOfDeviceMemory, WorkerLost
from relight.jobs.engine import EngineSettings
from relight.jobs.events import Advanced, Event
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import ModelFiles
from relight.jobs.rungs import RUNGS, Rung
from relight.ledger import Attempt, Job, Ledger, NewJob
from relight.node import making, pictures
from relight.node.breaker import DEATHS, Breaker
from relight.node.pictures import PictureLine
from relight.node.shelf import PipelineShelf

pytestmark = pytest.mark.timeout(120)
REQUEST: dict[str, Any] = {"prompt": "a cat", "width": 64, "height": 64, "steps": 3, "cfg_scale": 1, "seed": 5}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return tiny_sd.sd1(tmp_path_factory.mktemp("sd") / "tiny.safetensors")


@pytest.fixture(scope="module")
def shelf(files: ModelFiles) -> Iterator[PipelineShelf]:
    def files_of(name: str) -> ModelFiles:
        if name != "tiny":
            raise ModelFileError(f"no model {name}")
        return files

    shelf = PipelineShelf(files_of, EngineSettings(backend="ggml-cpu", threads=1, check_results=False))
    yield shelf
    shelf.leave(wholly=True)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger") as ledger:
        yield ledger


Start = Callable[..., PictureLine]


@pytest.fixture
def start(ledger: Ledger, shelf: PipelineShelf) -> Iterator[Start]:
    lines: list[PictureLine] = []

    def start(shelf: Any = shelf, **more: Any) -> PictureLine:
        lines.append(PictureLine(ledger, shelf, **{"checkpoint_s": 0.0} | more))
        lines[-1].start()
        return lines[-1]

    yield start
    for line in lines:
        line.stop(5)


def submit(ledger: Ledger, model: str = "tiny", **changes: Any) -> Job:
    return ledger.submit(NewJob(kind="image", model=model, request=REQUEST | changes))


def pixels(ledger: Ledger, job: Job, index: int = 0) -> np.ndarray:
    content, media_type = ledger.result(job.id, index)
    assert media_type == "image/png"
    return np.asarray(Image.open(io.BytesIO(content)))


def test_a_job_ends_with_its_pictures(ledger: Ledger, start: Start) -> None:
    start()
    done = ledger.wait(submit(ledger, batch=2).id, 60)
    assert done.state == "finished" and len(done.results) == 2
    assert [result.about["seed"] for result in done.results] == [5, 6]
    assert pixels(ledger, done).shape == (64, 64, 3) and done.report["sampler"] == "dpmpp_2m"


def test_the_pipeline_is_free_once_the_end_is_told(ledger: Ledger, start: Start, shelf: PipelineShelf) -> None:
    start()
    in_use: list[bool] = []
    unwatch = ledger.watch(None, lambda job: in_use.append(shelf.busy) if job.ended else None)
    ledger.wait(submit(ledger).id, 60)
    unwatch()
    assert in_use == [False]


def test_the_same_request_ends_in_the_same_bytes(ledger: Ledger, start: Start) -> None:
    start()
    first, second, other = (submit(ledger, seed=seed) for seed in (1, 1, 2))
    made = [pixels(ledger, ledger.wait(job.id, 60)) for job in (first, second, other)]
    assert np.array_equal(made[0], made[1]) and not np.array_equal(made[0], made[2])


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"sampler": "nonsense"}, "invalid_request", "sampler"),
        ({"width": 65}, "invalid_request", "65x64"),
        ({"model": "other"}, "model_file", "no model other"),
    ],
)
def test_a_job_that_cannot_be_done_fails_with_its_cause(
    ledger: Ledger, start: Start, changes: dict[str, Any], code: str, said: str
) -> None:
    start()
    done = ledger.wait(submit(ledger, **changes).id, 60)
    assert done.state == "failed" and done.error is not None
    assert done.error.code == code and said in done.error.message and done.losses == 0


def test_a_cancel_stops_at_the_next_step(ledger: Ledger, start: Start) -> None:
    steps = threading.Event()

    def tell(job_id: str, event: Event) -> None:
        if isinstance(event, Advanced) and event.stage == "denoise":
            steps.set()

    line = start(tell=tell)
    job = submit(ledger, steps=400)
    assert steps.wait(60)
    ledger.cancel(job.id)
    line.cancel(job.id)
    begun = time.monotonic()
    while line.busy and time.monotonic() - begun < 20:
        time.sleep(0.01)
    assert not line.busy and ledger.get(job.id).state == "cancelled"
    assert ledger.wait(submit(ledger).id, 60).state == "finished"


def test_what_is_broken_off_goes_on_and_ends_in_the_same_picture(ledger: Ledger, start: Start) -> None:
    whole = pixels(ledger, ledger.wait(self_ended(ledger, start, steps=30).id, 60))
    begun = threading.Event()

    def tell(job_id: str, event: Event) -> None:
        if isinstance(event, Advanced) and event.stage == "denoise" and event.done == 10:
            begun.set()

    line = start(tell=tell)
    job = submit(ledger, steps=30)
    assert begun.wait(60)
    line.stop(0)
    left = ledger.get(job.id)
    assert left.state == "queued" and ledger.checkpoints(job.id)["0.0"].step >= 9
    start()
    done = ledger.wait(job.id, 60)
    assert done.attempt == 2 and len(done.report["seconds"]["steps"][0]) < 25
    assert np.array_equal(pixels(ledger, done), whole)


class Steps:
    """Those that were told of; `begun` once there are some."""

    def __init__(self) -> None:
        self.told, self.begun = 0, threading.Event()

    def __call__(self, job_id: str, event: Event) -> None:
        if isinstance(event, Advanced) and event.stage == "denoise":
            self.told = event.done
            if self.told == 10:
                self.begun.set()


def test_a_stop_keeps_the_last_step_between_two_checkpoints(ledger: Ledger, start: Start) -> None:
    line = start(tell=(steps := Steps()), checkpoint_s=1e9)
    job = submit(ledger, steps=120)
    assert steps.begun.wait(60)
    assert not ledger.checkpoints(job.id), "none is due for years"
    line.stop(0)
    kept = ledger.checkpoints(job.id)["0.0"].step
    assert kept - steps.told in (0, 1), "the one that ended with the order is not told of"
    start()
    assert len(ledger.wait(job.id, 60).report["seconds"]["steps"][0]) == 120 - kept


def test_who_gives_way_loses_no_step(ledger: Ledger, start: Start) -> None:
    line = start(tell=(steps := Steps()), checkpoint_s=1e9)
    job = submit(ledger, steps=120)
    assert steps.begun.wait(60)
    with line.giving_way():
        kept = ledger.checkpoints(job.id)["0.0"].step
        assert kept - steps.told in (0, 1)
    done = ledger.wait(job.id, 60)
    assert done.attempt == 2 and len(done.report["seconds"]["steps"][0]) == 120 - kept


def self_ended(ledger: Ledger, start: Start, **changes: Any) -> Job:
    line = start()
    done = ledger.wait(submit(ledger, **changes).id, 60)
    line.stop(5)
    return done


class Failing:
    """A shelf whose pipelines fail below a rung, or always."""

    def __init__(self, shelf: PipelineShelf, below: Rung | None, error: Callable[[Pipeline], None]) -> None:
        self.shelf, self.below, self.error = shelf, below, error
        self.rungs: list[Rung] = []

    def take(self, model: str, rung: Rung) -> Any:
        self.rungs.append(rung)
        pipeline = self.shelf.take(model, RUNGS[0])
        if self.below is not None and RUNGS.index(rung) >= RUNGS.index(self.below):
            return pipeline
        return Broken(pipeline, self.error)

    def give_back(self, pipeline: Any) -> None:
        self.shelf.give_back(pipeline)


class Broken:
    def __init__(self, pipeline: Pipeline, error: Callable[[Pipeline], None]) -> None:
        self.pipeline, self.error, self.checked = pipeline, error, pipeline.checked

    def generate(self, *arguments: Any, **keywords: Any) -> Any:
        self.error(self.pipeline)
        return self.pipeline.generate(*arguments, **keywords)


def out_of_memory(pipeline: Pipeline) -> None:
    raise OutOfDeviceMemory("vulkan0: 3 GiB asked")


def test_memory_that_runs_out_is_answered_by_safer_ways_which_are_remembered(
    ledger: Ledger, start: Start, shelf: PipelineShelf
) -> None:
    failing = Failing(shelf, RUNGS[2], out_of_memory)
    start(failing)
    assert ledger.wait(submit(ledger).id, 60).state == "finished"
    assert failing.rungs == list(RUNGS)
    assert ledger.wait(submit(ledger, seed=6).id, 60).state == "finished"
    assert failing.rungs[3:] == [RUNGS[2]]


def test_a_job_that_kills_its_worker_three_times_is_set_aside(
    ledger: Ledger, start: Start, shelf: PipelineShelf
) -> None:
    def kill(pipeline: Pipeline) -> None:
        for worker in pipeline.fleet.workers.values():
            worker.kill()
        raise WorkerLost("worker cpu ended during run (SIGSEGV): the engine gave up")

    failing = Failing(shelf, None, kill)
    start(failing, at_once=1)
    done = ledger.wait(submit(ledger).id, 60)
    assert done.state == "set_aside" and done.losses == 3 and failing.rungs == list(RUNGS)
    assert done.error is not None and done.error.code == "worker_lost" and "SIGSEGV" in done.error.message


def test_memory_that_runs_out_in_the_safest_way_is_tried_again_once(
    ledger: Ledger, start: Start, shelf: PipelineShelf
) -> None:
    failing = Failing(shelf, None, out_of_memory)
    line = start(failing, at_once=1)
    line.ladder.worked(("tiny", 64, 64, None), RUNGS[2], sure=True)
    done = ledger.wait(submit(ledger).id, 60)
    assert done.state == "failed" and failing.rungs == [RUNGS[2]] * 2
    assert done.error is not None and done.error.code == "out_of_memory"


def test_a_worker_that_dies_of_anothers_work_costs_a_job_nothing(
    ledger: Ledger, start: Start, shelf: PipelineShelf
) -> None:
    deaths = iter(range(5))

    def die(pipeline: Pipeline) -> None:
        if next(deaths, None) is not None:
            raise WorkerLost("worker cpu ended during run (SIGSEGV)", bystander=True)

    failing = Failing(shelf, None, die)
    line = start(failing, at_once=1)
    done = ledger.wait(submit(ledger).id, 60)
    assert done.state == "finished" and (done.losses, done.attempt) == (0, 6)
    assert set(failing.rungs) == {RUNGS[0]} and line.breaker.deaths().get("tiny", 0) == 0


def test_an_order_to_stop_in_a_long_step_is_not_held_against_the_job(ledger: Ledger, start: Start) -> None:
    in_step, go_on = threading.Event(), threading.Event()

    def tell(job_id: str, event: Event) -> None:
        if isinstance(event, Advanced) and event.stage == "denoise":
            in_step.set()
            go_on.wait(60)

    line = start(tell=tell, checkpoint_s=1e9)
    job = submit(ledger)
    assert in_step.wait(60)
    line.stop(0.0)
    assert ledger.get(job.id).state == "queued", "or the next start would count an interruption"
    assert ledger.checkpoints(job.id)["0.0"].step == 1, "the steps before it are done"
    go_on.set()
    with line._lock:
        assert line._lock.wait_for(lambda: not line._running, 60)
    assert ledger.get(job.id).state == "queued" and ledger.get(job.id).attempt == 1


def test_the_breaker_hears_how_long_the_dead_had_worked(
    ledger: Ledger, start: Start, shelf: PipelineShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked: list[float] = []

    def hang(pipeline: Pipeline) -> None:
        monkeypatch.setattr(making, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 600))
        raise WorkerLost("worker cpu gave no sign for 600 s")

    line = start(Failing(shelf, RUNGS[1], hang))
    monkeypatch.setattr(line.breaker, "lost", lambda model, worked_s: worked.append(worked_s))
    assert ledger.wait(submit(ledger).id, 60).state == "finished"
    assert worked == [pytest.approx(600, abs=60)]


def test_a_model_that_is_stopped_waits_and_others_go_on(ledger: Ledger, start: Start, shelf: PipelineShelf) -> None:
    line = start(at_once=1)
    for _ in range(DEATHS):
        line.breaker.lost("other")
    waiting, done = submit(ledger, model="other"), ledger.wait(submit(ledger).id, 60)
    assert done.state == "finished" and ledger.get(waiting.id).state == "queued"
    line.breaker = Breaker()
    assert ledger.wait(waiting.id, 60).state == "failed"  # there is no such model: it was tried


def test_jobs_that_wait_for_others_are_not_taken_for_lost(
    ledger: Ledger, start: Start, shelf: PipelineShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "SILENCE_S", 0.01)
    entered, go_on = threading.Event(), threading.Event()
    heard: list[str] = []
    heartbeat = ledger.heartbeat

    def hear(attempt: Attempt, progress: Any) -> bool:
        heard.append(attempt.job.id)
        return heartbeat(attempt, progress)

    def wait(pipeline: Pipeline) -> None:
        entered.set()
        assert go_on.wait(60)

    monkeypatch.setattr(ledger, "heartbeat", hear)
    start(Failing(shelf, None, wait))
    job, other = submit(ledger), submit(ledger, model="other")
    assert entered.wait(60)
    begun = time.monotonic()
    while not {job.id, other.id} <= set(heard) and time.monotonic() - begun < 20:
        time.sleep(0.01)
    assert {job.id, other.id} <= set(heard)
    go_on.set()
    assert ledger.wait(job.id, 60).state == "finished"
