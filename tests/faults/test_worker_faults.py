"""R6 on the line of pictures with the model that ships: each computation of each stage fails in every way."""

from __future__ import annotations

import io
import json
import logging
import os
import queue
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag
from typing import Any

import numpy as np
import psutil
import pytest
import sick_worker
from PIL import Image

from relight import demo
from relight.errors import ModelStopped, OutOfDeviceMemory, RuinedPicture
from relight.jobs import models, retry
from relight.jobs.engine import EngineSettings
from relight.jobs.events import Event, Warned
from relight.jobs.pipeline import Result
from relight.jobs.request import GenerateRequest
from relight.ledger import Job, Ledger, Limits, NewJob
from relight.node.breaker import DEATHS, PAUSE_S, Breaker
from relight.node.ladder import Ladder
from relight.node.making import CODES
from relight.node.pictures import PictureLine
from relight.node.shelf import PipelineShelf
from relight.workers import patience, process, protocol

log = logging.getLogger(__name__)

SEED = 20261123
STEPS = 6
HANG_S = 1.0
HEALTHY: dict[str, Any] = {"prompt": "a red apple", "width": 64, "height": 64, "steps": STEPS}
BESIDE = HEALTHY | {"steps": 2}
FAULTY = HEALTHY | {"prompt": "a green pear", "width": 160, "height": 128, "tile": 16, "seed": 7}
LATENT_WIDTH = FAULTY["width"] // 8
COMPONENTS = ("clip_l", "t5xxl", "modulation", "diffusion", "vae")
PLACES = (
    [("load", component, 1) for component in COMPONENTS]
    + [("compile", component, 1) for component in COMPONENTS]
    + [("encode", component, 1) for component in ("clip_l", "t5xxl", "modulation")]
    + [("denoise", "diffusion", step + 1) for step in range(STEPS)]
    + [("decode", "vae", tile + 1) for tile in range(2)]
)
BEFORE_ANY = [("start", "", 1)] + [("open", component, 1) for component in COMPONENTS]
"""What is done for the pictures beside it too, and so may not fail for ever."""
COMPUTED = ("encode", "denoise", "decode")
NAMED = {code for _, code in CODES} - {"failed"}
PASSING = (*sick_worker.ENDS, "lost", "memory", "hang", "stopped", "error")
"""What another attempt makes good."""
AT_ONCE = 400.0
OFF = 1.0
"""Of 255: what a picture made in a safer way may differ by."""

pytestmark = [pytest.mark.timeout(0), pytest.mark.skipif(os.name == "nt", reason="signals")]
Figure = Callable[[str], None]
Count = Callable[[str, int], int]


@dataclass(frozen=True)
class Case:
    where: str
    component: str
    at: int
    how: str
    times: int
    """How often it happens at most; ALWAYS that picture fails for ever."""

    def __str__(self) -> str:
        return f"{self.how} in {self.where} {self.component} {self.at}, {self.times} times"


ALWAYS = 99


def cases() -> list[Case]:
    """In the order in which they are tried."""
    found = []
    for where, component, at in PLACES:
        for how in sick_worker.HOW:
            on_arrays = how in ("nan", "shape") or how.startswith("answer")
            if (on_arrays and where not in COMPUTED) or (how.startswith("answer") and at > 1):
                continue
            found += [Case(where, component, at, how, times) for times in (1, ALWAYS)]
    drawn = random.Random(SEED).sample(found, len(found))
    return drawn + [Case(*place, how, 1) for place in BEFORE_ANY for how in PASSING]


@dataclass(frozen=True, kw_only=True)
class Ill(EngineSettings):
    """Workers read in `orders` what is to befall them."""

    orders: Path

    def environment(self, tuned: Mapping[str, str] | None = None) -> dict[str, str]:
        return super().environment(tuned) | {sick_worker.VARIABLE: str(self.orders)}


class Clinic:
    """A line of pictures whose workers fall ill as they are told."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.orders, self.ledger = folder / "orders.json", Ledger(folder / "ledger")
        self.tell(None)
        engine = Ill(orders=self.orders, backend="ggml-cpu", threads=1, hang_s=HANG_S)
        self.shelf = PipelineShelf(lambda name: models.files_in(demo.EMBEDDED), engine)
        self.line = PictureLine(self.ledger, self.shelf, checkpoint_s=0.0)

    def __enter__(self) -> Clinic:
        self.ledger.__enter__()
        self.line.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.line.stop(5)
        self.cold()
        self.ledger.close()

    def tell(self, case: Case | None, **more: Any) -> None:
        for mark in self._marks():
            mark.unlink()
        told = (
            {}
            if case is None
            else {"where": case.where, "component": case.component, "at": case.at, "how": case.how, **more}
        )
        for i in range(case.times if case else 0):
            (self.orders.parent / f"due-{i}").touch()
        part = self.orders.with_suffix(".part")
        part.write_text(json.dumps(told), encoding="utf-8")
        part.replace(self.orders)

    def struck(self, case: Case) -> bool:
        return len(self._marks()) < case.times

    def _marks(self) -> list[Path]:
        """One for each time that it has still to happen."""
        return list(self.orders.parent.glob("due-*"))

    def cold(self) -> None:
        """End the workers: everything is opened, loaded and compiled anew."""
        while not self.shelf.leave(wholly=True):
            Flag().wait(0.01)

    def submit(self, model: str = "emoji", **asked: Any) -> Job:
        return self.ledger.submit(NewJob(kind="image", model=model, request=asked))

    def ended(self, job: Job) -> Job:
        done = self.ledger.wait(job.id, AT_ONCE)
        assert done.ended, f"{done.state} after {AT_ONCE:g} s"
        return done

    def made(self, **asked: Any) -> bytes:
        return self.picture(self.ended(self.submit(**asked)))

    def picture(self, job: Job) -> bytes:
        return self.ledger.result(job.id, 0)[0]


@pytest.fixture
def sick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that fall ill, and less patience than with slow disks and drivers."""
    monkeypatch.setattr(process, "COMMAND", sick_worker.command())
    monkeypatch.setattr(protocol, "WORTH_SHARING", sick_worker.WORTH_SHARING)
    monkeypatch.setattr(patience, "UNKNOWN", 3)
    monkeypatch.setattr(patience, "BYTES_A_SECOND", 50_000_000)


@pytest.fixture
def clinic(tmp_path: Path, sick: None) -> Iterator[Clinic]:
    with Clinic(tmp_path) as clinic:
        yield clinic


def test_every_fault_ends_in_a_picture_or_a_named_cause_and_leaves_others_alone(
    tmp_path: Path, sick: None, count: Count, figure: Figure
) -> None:
    everything, begun = cases(), time.monotonic()
    first, lines = count("SICK_WORKERS_FROM", 0), count("SICK_LINES", 1)
    drawn = everything[first:][: count("SICK_WORKERS", 3)]
    waiting: queue.SimpleQueue[tuple[int, Case]] = queue.SimpleQueue()
    for numbered in enumerate(drawn, first):
        waiting.put(numbered)
    with ThreadPoolExecutor(lines) as beside:
        rounds = list(beside.map(lambda line: seen_by(tmp_path / f"line-{line}", waiting), range(lines)))
    found = [each for seen in rounds for each in seen]
    ends = Counter(end for end, _ in found)
    wrong = [words for _, all_words in found for words in all_words]
    figure(
        f"R6: {len(found)} of {len(everything)} faults from {first} on, on {lines} lines: ends "
        f"{dict(sorted(ends.items()))}, {2 * len(found)} pictures beside them unchanged, {len(wrong)} wrong, "
        f"{time.monotonic() - begun:.1f} s"
    )
    assert not wrong, "\n".join(wrong)
    assert len(found) == len(drawn) and psutil.Process().children() == []


def seen_by(folder: Path, waiting: queue.SimpleQueue[tuple[int, Case]]) -> list[tuple[str, list[str]]]:
    """How each case ended that was waiting, and what was wrong with it."""
    found = []
    with Clinic(folder) as clinic:
        usual = [clinic.made(**BESIDE, seed=1), clinic.made(**BESIDE, seed=2), clinic.made(**FAULTY)]
        while not waiting.empty():
            try:
                number, case = waiting.get_nowait()
            except queue.Empty:
                break
            begun = time.monotonic()
            end, wrong = befallen(clinic, case, usual)
            log.info("%d: %s: %s, %.1f s %s", number, case, end, time.monotonic() - begun, wrong)
            found.append((end, [f"{number}: {case}: {each}" for each in wrong]))
    return found


def befallen(clinic: Clinic, case: Case, usual: list[bytes]) -> tuple[str, list[str]]:
    """How the job that it befalls ended, and what was wrong with it and the two beside it. Nothing is known of the
    cases before: neither their deaths nor what helped."""
    clinic.line.breaker, clinic.line.ladder = Breaker(), Ladder()
    clinic.cold()
    clinic.tell(case, width=None if case.where in ("start", "open") else LATENT_WIDTH)
    if case.where in COMPUTED:
        one, faulty = clinic.submit(**BESIDE, seed=1), clinic.submit(**FAULTY)
    else:  # what is loaded and compiled for one picture is there for the others
        faulty = clinic.submit(**FAULTY)
        while not clinic.struck(case) and not clinic.ledger.get(faulty.id).ended:
            Flag().wait(0.01)
        one = clinic.submit(**BESIDE, seed=1)
    other = clinic.submit(**BESIDE, seed=2)
    done = clinic.ended(faulty)
    wrong = [*of_faulty(clinic, case, done, usual[2])]
    for job, own in zip((one, other), usual, strict=False):
        wrong += of_healthy(clinic, clinic.ended(job), own)
    if not clinic.struck(case):
        wrong.append("it did not happen")
    return "finished" if done.error is None else done.error.code, wrong


def of_healthy(clinic: Clinic, done: Job, usual: bytes) -> Iterator[str]:
    if done.state != "finished":
        yield f"another job is {done.state}: {done.error}"
    elif clinic.picture(done) != usual:
        yield "another job's picture changed"
    if done.losses:
        yield f"another job was blamed {done.losses} times"


def of_faulty(clinic: Clinic, case: Case, done: Job, usual: bytes) -> Iterator[str]:
    if done.state == "finished":
        if (off := distance(clinic.picture(done), usual)) > OFF:
            yield f"its picture is off by {off:.1f}"
        return
    assert done.error is not None
    if case.times == 1 and case.how in PASSING:
        yield f"once is too often: {done.error}"
    if done.error.code not in NAMED or len(done.error.message) < 20:
        yield f"no cause: {done.error}"
    if done.state != ("set_aside" if done.error.code == "worker_lost" else "failed"):
        yield f"{done.state} for {done.error}"
    if done.state == "set_aside" and not done.losses == done.attempt == Limits().losses:
        yield f"set aside after {done.losses} losses in {done.attempt} attempts"


def distance(one: bytes, other: bytes) -> float:
    """The mean of what their pixels differ by, of 255."""
    first, second = (np.asarray(Image.open(io.BytesIO(each)), np.float32) for each in (one, other))
    return float(np.abs(first - second).mean())


def test_a_model_whose_workers_die_is_stopped_alone_and_tried_again(clinic: Clinic, figure: Figure) -> None:
    begun, late = time.monotonic(), 0.0
    clinic.line.breaker = breaker = Breaker(lambda: time.monotonic() + late)
    clinic.tell(Case("load", "diffusion", 1, "abort", ALWAYS), width=LATENT_WIDTH)
    sick = [clinic.submit("sick", **FAULTY | {"seed": seed}) for seed in range(3)]
    while not breaker.stopped():
        assert time.monotonic() - begun < AT_ONCE
        Flag().wait(0.01)
    assert clinic.ended(clinic.submit("well", **HEALTHY, seed=1)).state == "finished"
    assert breaker.deaths()["sick"] >= DEATHS and list(breaker.stopped()) == ["sick"]
    waiting = [job for job in sick if not clinic.ledger.get(job.id).ended]
    assert {clinic.ledger.get(job.id).state for job in waiting} == {"queued"} and waiting
    with pytest.raises(ModelStopped, match="tried again in"):
        breaker.check("sick")
    clinic.tell(None)
    late = PAUSE_S
    for job in waiting:
        assert clinic.ended(job).state == "finished"
    assert breaker.stopped() == {}
    figure(
        f"R6: breaker opened after {breaker.deaths()['sick']} deaths, another model's job finished meanwhile, it "
        f"closed after its pause with {len(waiting)} jobs made, {time.monotonic() - begun:.1f} s"
    )


def test_pictures_of_the_same_size_are_not_made_another_way_for_one_that_kills(clinic: Clinic) -> None:
    """Nor do they count its deaths, though all are in the works at once."""
    clinic.tell(Case("denoise", "diffusion", 3, "abort", 1))
    jobs = [clinic.submit(**HEALTHY, seed=seed) for seed in range(3)]
    done = [clinic.ended(job) for job in jobs]
    assert [job.state for job in done] == ["finished"] * 3
    assert sum(job.losses for job in done) == 1


@pytest.fixture
def told() -> list[Event]:
    return []


def generated(clinic: Clinic, told: list[Event], **changes: Any) -> Result:
    settings = Ill(orders=clinic.orders, threads=1, **changes)
    request = GenerateRequest(prompt="a red apple", width=64, height=64, steps=STEPS, seed=3)
    return retry.generate(models.files_in(demo.EMBEDDED), settings, request, told.append)


def warnings(told: list[Event]) -> list[str]:
    return [event.message for event in told if isinstance(event, Warned)]


@pytest.mark.parametrize("where", ["load", "denoise"])
def test_generate_tries_another_way_where_memory_runs_out(clinic: Clinic, told: list[Event], where: str) -> None:
    clinic.tell(Case(where, "diffusion", 1, "memory", 1))
    assert len(generated(clinic, told).pictures) == 1
    (said,) = warnings(told)
    assert "refused 3.00 GiB" in said and "less of the card" in said


def test_generate_says_what_was_needed_and_tried_where_nothing_helps(clinic: Clinic, told: list[Event]) -> None:
    clinic.tell(Case("load", "diffusion", 1, "memory", ALWAYS))
    with pytest.raises(OutOfDeviceMemory) as caught:
        generated(clinic, told)
    said = str(caught.value)
    assert "diffusion: " in said and "3.00 GiB" in said and "take a smaller file of it" in said
    assert "tried as planned, then in small tiles" in said and said.endswith("then on the CPU)")
    assert len(warnings(told)) == 2


def test_text_that_came_out_ruined_is_not_kept_for_the_next_picture(
    clinic: Clinic, told: list[Event], tmp_path: Path
) -> None:
    clinic.tell(Case("encode", "t5xxl", 1, "nan", 1))
    cache = {"backend": "ggml-cpu", "conditioning_folder": tmp_path / "kept"}
    with pytest.raises(RuinedPicture, match=r"^t5xxl: .* are NaN or infinite"):
        generated(clinic, told, **cache)
    assert len(generated(clinic, told, **cache).pictures) == 1 and warnings(told) == []


def test_generate_computes_where_the_user_says_or_not_at_all(clinic: Clinic, told: list[Event]) -> None:
    clinic.tell(Case("load", "diffusion", 1, "memory", ALWAYS))
    with pytest.raises(OutOfDeviceMemory) as caught:
        generated(clinic, told, backend="ggml-cpu")
    assert "on the CPU" not in str(caught.value) and len(warnings(told)) == 1


def test_generate_goes_on_from_its_last_step_when_a_worker_dies(clinic: Clinic, told: list[Event]) -> None:
    whole = generated(clinic, [], backend="ggml-cpu").pictures[0].image
    clinic.tell(Case("denoise", "diffusion", 5, "killed", 1))
    result = generated(clinic, told, backend="ggml-cpu")
    assert [len(steps) for steps in result.report["seconds"]["steps"]] == [STEPS - 4]
    assert np.array_equal(result.pictures[0].image, whole) and "SIGKILL" in warnings(told)[0]
