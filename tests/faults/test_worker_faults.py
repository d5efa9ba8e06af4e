"""R6 on the line of pictures with the model that ships: each computation of each stage fails in every way."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sick_worker

from relight import demo
from relight.jobs import models
from relight.jobs.fleet import EngineSettings
from relight.ledger import Job, Ledger, NewJob
from relight.node.breaker import DEATHS, Breaker
from relight.node.pictures import CODES, PictureLine
from relight.node.shelf import PipelineShelf
from relight.workers import patience, process

SEED = 20261123
STEPS = 6
HEALTHY: dict[str, Any] = {"prompt": "a red apple", "width": 64, "height": 64, "steps": STEPS}
FAULTY = HEALTHY | {"prompt": "a green pear", "width": 160, "height": 128, "tile": 16, "seed": 7}
LATENT_WIDTH = FAULTY["width"] // 8
PLACES = (
    [("load", component, 1) for component in ("clip_l", "t5xxl", "modulation", "diffusion", "vae")]
    + [("compile", component, 1) for component in ("clip_l", "t5xxl", "modulation", "diffusion", "vae")]
    + [("encode", component, 1) for component in ("clip_l", "t5xxl", "modulation")]
    + [("denoise", "diffusion", step + 1) for step in range(STEPS)]
    + [("decode", "vae", tile + 1) for tile in range(2)]
)
COMPUTED = ("encode", "denoise", "decode")
NAMED = {code for _, code in CODES}
AT_ONCE = 60.0

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
    found = []
    for where, component, at in PLACES:
        for how in sick_worker.HOW:
            on_arrays = how in ("nan", "shape") or how.startswith("answer")
            if (on_arrays and where not in COMPUTED) or (how.startswith("answer") and at > 1):
                continue
            found += [Case(where, component, at, how, times) for times in (1, ALWAYS)]
    return found


class Clinic:
    """A line of pictures whose workers fall ill as they are told."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.folder, self.ledger = folder, ledger
        self.tell(None)
        engine = EngineSettings(backend="ggml-cpu", threads=1, hang_s=1.0)
        self.shelf = PipelineShelf(lambda name: models.files_in(demo.EMBEDDED), engine)
        self.line = PictureLine(ledger, self.shelf, checkpoint_s=0.0)
        self.line.start()

    def tell(self, case: Case | None, **more: Any) -> None:
        for mark in self.folder.glob("due-*"):
            mark.unlink()
        told = (
            {}
            if case is None
            else {"where": case.where, "component": case.component, "at": case.at, "how": case.how, **more}
        )
        for i in range(case.times if case else 0):
            (self.folder / f"due-{i}").touch()
        part = self.folder / "told.part"
        part.write_text(json.dumps(told), encoding="utf-8")
        part.replace(self.folder / "told.json")

    def submit(self, model: str = "emoji", **asked: Any) -> Job:
        return self.ledger.submit(NewJob(kind="image", model=model, request=asked))

    def ended(self, job: Job) -> Job:
        done = self.ledger.wait(job.id, AT_ONCE)
        assert done.ended, f"{done.state} after {AT_ONCE:g} s"
        return done

    def picture(self, job: Job) -> bytes:
        return self.ledger.result(job.id, 0)[0]


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clinic]:
    monkeypatch.setattr(process, "COMMAND", sick_worker.command())
    monkeypatch.setattr(process, "crowd", lambda: 1.0)
    monkeypatch.setattr(patience, "UNKNOWN", 3)
    monkeypatch.setenv(sick_worker.VARIABLE, str(tmp_path / "told.json"))
    with Ledger(tmp_path / "ledger") as ledger:
        clinic = Clinic(tmp_path, ledger)
        yield clinic
        clinic.line.stop(5)
        clinic.shelf.leave(wholly=True)


def test_every_fault_ends_in_a_picture_or_a_named_cause_and_leaves_others_alone(
    clinic: Clinic, count: Count, figure: Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything, lot, begun = cases(), random.Random(SEED), time.monotonic()
    chosen = lot.sample(everything, min(len(everything), count("SICK_WORKERS", 10)))
    usual = {seed: clinic.picture(clinic.ended(clinic.submit(**HEALTHY, seed=seed))) for seed in (1, 2)}
    well = clinic.picture(clinic.ended(clinic.submit(**FAULTY)))
    ends: Counter[str] = Counter()
    for case in chosen:
        clinic.line.breaker = Breaker()  # its pauses are another test's
        clinic.tell(case, width=LATENT_WIDTH)
        before, faulty, after = (
            clinic.submit(**HEALTHY, seed=1),
            clinic.submit(**FAULTY),
            clinic.submit(**HEALTHY, seed=2),
        )
        done = clinic.ended(faulty)
        for seed, other in ((1, before), (2, after)):
            healthy = clinic.ended(other)
            assert healthy.state == "finished", f"{case}: {healthy.error}"
            assert clinic.picture(healthy) == usual[seed], f"{case}: another picture"
            assert healthy.losses == 0, f"{case}: blamed for what another's work did"
        if done.state == "finished":
            ends["finished"] += 1
            assert done.attempt > 1 or clinic.picture(done) == well or case.where == "decode", case
        else:
            assert done.error is not None and done.error.code in NAMED - {"failed"}, f"{case}: {done.error}"
            assert len(done.error.message) > 20
            assert done.state == ("set_aside" if done.error.code == "worker_lost" else "failed"), case
            ends[done.error.code] += 1
        if case.times == 1 and case.how in (*sick_worker.ENDS, "lost", "memory", "hang", "stopped"):
            assert done.state == "finished", f"{case}: {done.error}"
        if done.state == "set_aside":
            assert done.losses == done.attempt == clinic.ledger._limits.losses, case
    figure(
        f"R6: {len(chosen)} of {len(everything)} faults ({len(sick_worker.HOW)} kinds, {len(PLACES)} places, once and "
        f"always): {dict(sorted(ends.items()))}, {2 * len(chosen)} pictures beside them unchanged, "
        f"{time.monotonic() - begun:.1f} s"
    )
    assert DEATHS
