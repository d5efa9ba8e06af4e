"""Workers that hang: how long is waited for what, that they are ended then, and that slow ones are not."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relight.errors import WorkerLost
from relight.workers import link, patience
from relight.workers.link import Link
from relight.workers.patience import BYTES_A_SECOND, SLOWER, SLOWER_THAN_FIRST, UNKNOWN, Doing, Patience
from relight.workers.process import Worker

FAKE = (sys.executable, "-u", "-P", str(Path(__file__).with_name("fake_worker.py")))
RUN = {"component": "diffusion", "sizes": {"latent_height": 8}}
POPEN = subprocess.Popen
NOTHING: dict[str, np.ndarray] = {}

Start = Callable[[float], Worker]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setattr(link, "crowd", lambda: 1.0)
    started: list[Worker] = []

    def start(hang_s: float) -> Worker:
        started.append(Worker("fake", command=FAKE, hang_s=hang_s))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


def doing(patience: Patience, method: str = "run", values: dict[str, Any] = RUN) -> Doing:
    return patience.begin(method, values, NOTHING)


def step(at: Doing, seconds: float, done: int = 1) -> None:
    at.heard(seconds, {"stage": "denoise", "done": done, "total": 9})


def test_what_is_new_is_given_long_and_longer_for_large_files() -> None:
    patience = Patience(60)
    assert doing(patience).allowed() == UNKNOWN * 60
    patience.answered("open", {"component": "diffusion"}, {"file_bytes": 5 * 10**9})
    assert doing(patience).allowed() == UNKNOWN * 60 + 5 * 10**9 / BYTES_A_SECOND


def test_the_first_step_of_large_pictures_and_of_many_is_given_more() -> None:
    patience = Patience(60, nbytes={"diffusion": 10**9})
    large = RUN | {"sizes": {"latent_height": 256, "latent_width": 256}}
    extra = 4 * 10**9 / BYTES_A_SECOND
    assert patience.begin("run", large, {"latents": np.zeros((1, 4, 8, 8))}).allowed() == UNKNOWN * 60 + extra
    assert patience.begin("run", large, {"latents": np.zeros((3, 4, 8, 8))}).allowed() == UNKNOWN * 60 + 3 * extra


def test_what_was_done_before_is_measured_by_itself() -> None:
    patience = Patience(60)
    step(doing(patience), 500)
    assert doing(patience).allowed() == SLOWER_THAN_FIRST * 500, "the first step had to compile"
    step(doing(patience), 20)
    assert doing(patience).allowed() == SLOWER * 20
    step(doing(patience), 0.5)
    assert doing(patience).allowed() == SLOWER * 20, "the slowest counts"


def test_quick_work_is_never_given_less_than_the_setting() -> None:
    patience = Patience(60)
    for _ in range(2):
        step(doing(patience), 0.01)
    assert doing(patience).allowed() == 60


@pytest.mark.parametrize(
    "other",
    [{"component": "vae"}, {"sizes": {"latent_height": 9}}, {"arrays": {"latents": np.zeros(2)}}],
    ids=["component", "size", "number of pictures"],
)
def test_other_work_is_new(other: dict[str, Any]) -> None:
    patience = Patience(60)
    for _ in range(2):
        step(patience.begin("run", RUN, {"latents": np.zeros(1)}), 0.01)
    arrays = other.pop("arrays", {"latents": np.zeros(1)})
    assert patience.begin("run", RUN | other, arrays).allowed() == UNKNOWN * 60


@pytest.mark.parametrize("method", ["open", "adapt", "close"])
def test_other_weights_make_it_new_again(method: str) -> None:
    patience = Patience(60)
    patience.nbytes["diffusion"] = 10**9
    step(doing(patience), 0.01)
    patience.answered(method, {"component": "diffusion"}, {})
    assert doing(patience).allowed() == UNKNOWN * 60 + 10**9 / BYTES_A_SECOND


def test_loading_is_not_measured_by_what_was_in_memory() -> None:
    patience = Patience(60)
    for _ in range(3):
        step(doing(patience, "load"), 0.001)
    assert doing(patience, "load").allowed() == UNKNOWN * 60


def test_a_crowded_machine_is_given_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    for waiting, times in ((0.5, 1.0), (12.0, 3.0), (400.0, patience.CROWD_AT_MOST)):
        monkeypatch.setattr(patience.psutil, "getloadavg", lambda waiting=waiting: (waiting, 0.0, 0.0))
        assert patience.crowd() == times


def test_a_worker_that_hangs_is_ended_and_what_it_did_is_said(start: Start) -> None:
    worker = start(0.05)
    began = time.monotonic()
    with pytest.raises(WorkerLost) as caught:
        worker.call("hang", {"component": "diffusion", "steps": 3})
    assert UNKNOWN * 0.05 <= time.monotonic() - began < 20
    said = str(caught.value)
    assert said.startswith("worker fake gave no sign for ") and "during hang, after denoise 3 of 9" in said
    assert "engine.hang_seconds" in said and not worker.alive
    with pytest.raises(WorkerLost, match="gave no sign"):
        worker.call("echo")


def test_one_that_hangs_in_work_it_knows_is_ended_sooner(start: Start) -> None:
    worker = start(1.0)
    for _ in range(2):
        worker.call("run", RUN)
    began = time.monotonic()
    with pytest.raises(WorkerLost, match="gave no sign"):
        worker.call("run", {**RUN, "hang": True})
    assert time.monotonic() - began < UNKNOWN * 1.0 / 2


def test_a_worker_that_is_slow_and_gives_signs_is_left_alone(start: Start) -> None:
    worker = start(0.1)
    assert worker.call("steps", {"total": 40, "seconds": 0.05}).values == {"done": 40}  # 2 s, and 1 s is allowed


def test_a_call_that_waits_for_another_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "crowd", lambda: 1.0)
    both = Link("fake", FAKE, {}, start_deadline_s=60, hang_s=0.1)
    first = both.open("steps", {"total": 40, "seconds": 0.05})  # 2 s, and 1 s is allowed
    assert [message.kind for message in both.answers(both.open("echo", {}))] == ["result"]
    assert [message.kind for message in both.answers(first)] == ["event"] * 40 + ["result"]
    both.close()


def test_zero_waits_for_ever(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "TICK_S", 0.01)
    worker = start(0)
    assert worker.call("steps", {"total": 1, "seconds": 0.5}).values == {"done": 1}


@pytest.mark.skipif(os.name != "posix", reason="SIGSTOP is of POSIX")
def test_one_that_is_stopped_before_it_is_ready_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "crowd", lambda: 1.0)
    monkeypatch.setattr(link.subprocess, "Popen", stopped_at_once)
    began = time.monotonic()
    with pytest.raises(WorkerLost, match=r"^worker fake was not ready after .* \(its process was stopped\)"):
        Worker("fake", command=(*FAKE, "hang"), hang_s=0.5)
    assert time.monotonic() - began < link.START_DEADLINE_S / 2


def stopped_at_once(*arguments: Any, **more: Any) -> subprocess.Popen[bytes]:
    child = POPEN(*arguments, **more)
    os.kill(child.pid, signal.SIGSTOP)
    return child


@pytest.mark.skipif(os.name != "posix", reason="SIGSTOP is of POSIX")
@pytest.mark.parametrize("nbytes", [1, 1 << 20], ids=["while it computes", "while it is told what to do"])
def test_a_worker_that_is_stopped_is_ended_though_it_was_given_long(start: Start, nbytes: int) -> None:
    """A message that it does not read is more than a pipe holds."""
    worker = start(1.0)
    os.kill(worker.pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(WorkerLost, match="its process was stopped"):
        worker.call("echo", arrays={"a": np.zeros(nbytes, np.uint8)})
    assert 0.9 < time.monotonic() - began < UNKNOWN * 1.0 / 2


def test_time_in_which_the_machine_sleeps_does_not_count(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a clock that jumps by an hour at every look, nothing counts but the ticks."""
    hours = itertools.count()
    monkeypatch.setattr(link.time, "monotonic", lambda: next(hours) * 3600.0)
    worker = start(1.0)
    assert worker.call("steps", {"total": 1, "seconds": 1.0}).values == {"done": 1}


def test_whose_call_it_ended_under_is_told_apart(start: Start) -> None:
    worker, called = start(60), threading.Event()
    mine, other = object(), object()
    caught: dict[object, WorkerLost] = {}

    def ask(owner: object, method: str, values: dict[str, Any]) -> None:
        try:
            worker.call(method, values, on_event=lambda event: called.set(), owner=owner)
        except WorkerLost as error:
            caught[owner] = error

    first = threading.Thread(target=ask, args=(mine, "hang", {"component": "diffusion", "steps": 1}))
    first.start()
    assert called.wait(20)
    second = threading.Thread(target=ask, args=(other, "echo", {}))
    second.start()
    worker._link._process.kill()
    for thread in (first, second):
        thread.join(20)
    assert not caught[mine].bystander and caught[other].bystander
    with pytest.raises(WorkerLost) as again:
        worker.call("echo", owner=mine)
    assert not again.value.bystander and str(again.value) == str(caught[other])


def test_a_device_that_fails_takes_its_worker_with_it(start: Start) -> None:
    worker = start(60)
    with pytest.raises(WorkerLost, match=r"^vulkan0: computing failed \(failed\) in lose; worker fake was ended"):
        worker.call("lose")
    assert not worker.alive


def test_one_that_does_not_end_is_left_behind(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that hangs keeps its process in the kernel: no signal reaches it."""
    monkeypatch.setattr(link, "STOP_DEADLINE_S", 0.1)
    worker = start(0.05)
    monkeypatch.setattr(worker._link._process, "kill", lambda: None)
    with pytest.raises(WorkerLost, match="gave no sign"):
        worker.call("hang", {"component": "diffusion"})
    assert not worker.alive
    with pytest.raises(WorkerLost, match="gave no sign"):
        worker.call("echo")
    worker.close()
    monkeypatch.undo()
