"""The whole path over a tiny model, and what happens to it when something in it fails."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from relight.errors import (
    ExecutorError,
    ModelFileError,
    OutOfDeviceMemory,
    RelightError,
    RequestError,
    RuinedPicture,
    WorkerLost,
)
from relight.jobs import fleet, lanes
from relight.jobs.engine import EngineSettings
from relight.jobs.events import Advanced, Event, Planned, Warned
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import GenerateRequest, ModelFiles
from relight.workers.protocol import Message

pytestmark = pytest.mark.timeout(60)
REQUEST = GenerateRequest(prompt="a cat", width=64, height=64, steps=3, seed=1, text_tokens=16)
ALONE = EngineSettings(backend="ggml-cpu", threads=1, check_results=False)
STAGES = ["load clip_l", "load t5xxl", "load diffusion", "denoise", "decode"]


@pytest.fixture(scope="module")
def apart() -> Iterator[EngineSettings]:
    """Two workers on the CPU, as there are with a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (lanes, fleet):
            patch.setattr(module, "worker_name", lambda device: "second" if device == "reference" else "cpu")
        yield EngineSettings(backend="ggml-cpu,t5xxl=reference,modulation=reference", threads=1, check_results=False)


@pytest.fixture
def pipeline(tiny_files: ModelFiles, apart: EngineSettings) -> Iterator[Pipeline]:
    with Pipeline(tiny_files, apart) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def kept(tiny_files: ModelFiles, apart: EngineSettings) -> Iterator[Pipeline]:
    """One for many tests: whatever happens in one, the next finds it as good as new."""
    with Pipeline(tiny_files, apart) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def expected(tiny_files: ModelFiles) -> np.ndarray:
    with Pipeline(tiny_files, ALONE) as alone:
        return alone.generate(REQUEST).pictures[0].image


def with_file(files: ModelFiles, kind: str, path: Path) -> ModelFiles:
    return replace(files, paths={**files.paths, kind: (path,)})


def near(a: np.ndarray, b: np.ndarray) -> bool:
    """The same picture, up to how two executors round."""
    return a.shape == b.shape and int(np.abs(a.astype(int) - b).max()) <= 2


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def test_one_seed_gives_one_picture_in_whatever_workers(kept: Pipeline, expected: np.ndarray) -> None:
    result = kept.generate(REQUEST)
    assert near(result.pictures[0].image, expected)
    assert expected.std() > 1  # not one colour: the comparison can fail
    assert not near(kept.generate(replace(REQUEST, seed=2)).pictures[0].image, expected)


def test_events_tell_the_plan_the_steps_and_the_tiles(kept: Pipeline) -> None:
    events: list[Event] = []
    result = kept.generate(replace(REQUEST, batch=2), events.append)
    assert isinstance(events[0], Planned) and events[0].devices["diffusion"] == "ggml-cpu"
    steps = [(e.picture, e.done, e.total) for e in events if isinstance(e, Advanced) and e.stage == "denoise"]
    assert steps == [(picture, done, 3) for picture in (0, 1) for done in (1, 2, 3)]
    assert [len(taken) for taken in result.report["seconds"]["steps"]] == [3, 3]


def test_a_cut_prompt_is_told_before_anything_is_planned(kept: Pipeline) -> None:
    events: list[Event] = []
    kept.generate(replace(REQUEST, prompt="one two three four five six " * 20), events.append)
    assert isinstance(events[0], Warned)
    assert "the prompt has 120 tokens, 15 fit; left out from here on: 'four five six one" in events[0].message
    assert len(events[0].message) < 400


def killer(pipeline: Pipeline, stage: str, number: int) -> Callable[[Event], None]:
    """A listener that ends whichever worker reports a stage."""

    def on_event(event: Event) -> None:
        if isinstance(event, Advanced) and event.stage == stage:
            for worker in pipeline.fleet.workers.values():
                if worker._current[0]:
                    os.kill(worker.pid, number)

    return on_event


@pytest.mark.skipif(os.name != "posix", reason="signals that end a process are POSIX")
@pytest.mark.parametrize("stage", STAGES)
def test_a_worker_that_dies_is_one_error_and_the_next_picture_is_made(
    pipeline: Pipeline, expected: np.ndarray, stage: str
) -> None:
    several_tiles = replace(REQUEST, width=192, height=192, tile=16)  # after the last one there is nothing to be lost
    with pytest.raises(WorkerLost, match=r"SIG(KILL|ABRT)"):
        pipeline.generate(several_tiles, killer(pipeline, stage, signal.SIGKILL))
    assert near(pipeline.generate(REQUEST).pictures[0].image, expected)


CALLS = [
    ("clip_l", "load"),
    ("clip_l", "run"),
    ("t5xxl", "load"),
    ("t5xxl", "run"),
    ("modulation", "load"),
    ("modulation", "run"),
    ("diffusion", "load"),
    ("diffusion", "run"),
    ("vae", "load"),
    ("vae", "run"),
]


@pytest.mark.parametrize(("component", "method"), CALLS)
@pytest.mark.parametrize("error", [OutOfDeviceMemory("too large"), ZeroDivisionError("a blunder of ours")])
def test_a_failure_in_any_stage_ends_the_run_with_that_failure(
    kept: Pipeline,
    expected: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    component: str,
    method: str,
    error: Exception,
) -> None:
    call = kept.fleet.call

    def failing(name: str, what: str, *arguments: Any, **values: Any) -> Message:
        if (name, what) == (component, method):
            raise error
        return call(name, what, *arguments, **values)

    monkeypatch.setattr(kept.fleet, "call", failing)
    with pytest.raises(type(error), match=str(error)):
        kept.generate(REQUEST)
    monkeypatch.setattr(kept.fleet, "call", call)
    assert near(kept.generate(REQUEST).pictures[0].image, expected)


def test_a_listener_that_raises_stops_the_run(kept: Pipeline, expected: np.ndarray) -> None:
    reached: list[int] = []

    def listen(event: Event) -> None:
        if isinstance(event, Advanced) and event.stage == "denoise":
            reached.append(event.done)
            raise ExecutorError("enough")

    with pytest.raises(ExecutorError, match="enough"):
        kept.generate(replace(REQUEST, steps=200), listen)
    assert near(kept.generate(REQUEST).pictures[0].image, expected) and reached == [1]


def test_a_failure_of_one_worker_stops_what_the_other_does(
    tiny_files: ModelFiles, apart: EngineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoising, reached = threading.Event(), [0]

    def listen(event: Event) -> None:
        if isinstance(event, Advanced) and event.stage == "denoise":
            reached.append(event.done)
            denoising.set()

    with Pipeline(tiny_files, replace(apart, backend="ggml-cpu,diffusion=reference")) as pipeline:
        call = pipeline.fleet.call

        def failing(name: str, what: str, *arguments: Any, **values: Any) -> Message:
            if (name, what) == ("vae", "load"):
                assert denoising.wait(30)
                raise ModelFileError("cut short")
            return call(name, what, *arguments, **values)

        monkeypatch.setattr(pipeline.fleet, "call", failing)
        with pytest.raises(ModelFileError, match="cut short"):
            pipeline.generate(replace(REQUEST, steps=1000), listen)
        monkeypatch.setattr(pipeline.fleet, "call", call)
        assert len(pipeline.generate(REQUEST).pictures) == 1
        assert 1 <= max(reached) < 1000


def test_weights_that_are_no_numbers_are_told(tiny_files: ModelFiles, tmp_path: Path, apart: EngineSettings) -> None:
    broken = Path(shutil.copy(tiny_files.of("diffusion")[0], tmp_path))
    content = bytearray(broken.read_bytes())
    content[-1000:] = b"\xff" * 1000
    broken.write_bytes(content)
    with (
        pytest.raises(RuinedPicture, match="latents are NaN or infinite. The weights are damaged"),
        Pipeline(with_file(tiny_files, "diffusion", broken), replace(apart, check_results=True)) as pipeline,
    ):
        pipeline.generate(REQUEST)


def test_a_file_that_shrinks_after_it_was_checked_is_an_error(
    tiny_files: ModelFiles, tmp_path: Path, apart: EngineSettings
) -> None:
    shrinking = Path(shutil.copy(tiny_files.of("t5xxl")[0], tmp_path))
    with Pipeline(with_file(tiny_files, "t5xxl", shrinking), apart) as pipeline:
        shrinking.write_bytes(shrinking.read_bytes()[:100_000])
        with pytest.raises(ModelFileError, match="t5xxl_fp16.safetensors: is cut short"):
            pipeline.generate(REQUEST)


def test_no_worker_starts_for_a_prompt_that_is_no_text(pipeline: Pipeline) -> None:
    with pytest.raises(RequestError, match="not valid Unicode"):
        pipeline.generate(replace(REQUEST, prompt="\ud800"))
    assert pipeline.fleet.workers == {}


def test_a_closed_pipeline_leaves_no_process_and_starts_none(tiny_files: ModelFiles, apart: EngineSettings) -> None:
    before = {child.pid for child in children()}
    with Pipeline(tiny_files, apart) as pipeline:
        pipeline.generate(REQUEST)
        started = [child for child in children() if child.pid not in before]
        assert len(started) == 2
    psutil.wait_procs(started, timeout=5)
    assert not any(child.is_running() for child in started)
    with pytest.raises(RelightError, match="ended with their pipeline"):
        pipeline.generate(REQUEST)


def test_closing_amid_a_run_ends_it(tiny_files: ModelFiles, apart: EngineSettings) -> None:
    caught: list[BaseException] = []
    denoising = threading.Event()

    def listen(event: Event) -> None:
        if isinstance(event, Advanced) and event.stage == "denoise":
            denoising.set()

    def run() -> None:
        try:
            pipeline.generate(replace(REQUEST, steps=1000), listen)
        except RelightError as error:
            caught.append(error)

    pipeline = Pipeline(tiny_files, apart)
    with pipeline:
        running = threading.Thread(target=run)
        running.start()
        assert denoising.wait(30)
        pipeline.fleet.close(at_once=True)
    running.join(10)
    assert len(caught) == 1 and isinstance(caught[0], RelightError)


def test_pictures_of_other_sizes_give_their_memory_back(tiny_files: ModelFiles) -> None:
    with Pipeline(tiny_files, ALONE) as pipeline:

        def used(width: int) -> dict[str, int]:
            report = pipeline.generate(replace(REQUEST, width=width, steps=1)).report
            return dict(report["devices"]["ggml-cpu"])

        small = used(64)
        large = used(192)
        assert large["used_bytes"] > small["used_bytes"]
        again = used(64)
        assert again["used_bytes"] == small["used_bytes"]
        assert used(64)["peak_bytes"] == small["used_bytes"]
