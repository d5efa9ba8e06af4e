"""The ledger against a model of it in a few lines, for any order of what clients, workers and the node do."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from ledgers import HandClock, new_job
from relight.errors import JobNotFound, KeyConflict, QueueFull
from relight.ledger import ENDED, Attempt, Cause, Keep, Ledger, Limits, NewResult
from simulated_disk import ROOT, SimulatedDisk

LIMITS = Limits(queued=6, losses=3, interruptions=4, lease_s=60)
FOR_NEWCOMERS = LIMITS.queued - 1
"""An eighth of the places is for those who were told to come again."""
KEEP = Keep(age_s=3600, jobs=4)


@dataclass
class Modelled:
    prompt: str
    priority: int
    key: str | None
    order: int
    state: str = "queued"
    number: int = 0
    losses: int = 0
    interruptions: int = 0
    heard: float = 0.0
    finished: int | None = None
    step: int | None = None
    result: bytes | None = None


class LedgerMachine(RuleBasedStateMachine):
    attempts: Bundle[Attempt] = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.disk, self.clock = SimulatedDisk(), HandClock()
        self.jobs: dict[str, Modelled] = {}
        self.accepted = self.changes = 0

    @initialize()
    def open(self) -> None:
        self.ledger = Ledger(ROOT / "jobs", LIMITS, KEEP, disk=self.disk, clock=self.clock)

    # ---------------------------------------------------------------------------------------------------- clients

    @rule(prompt=st.sampled_from("abc"), priority=st.integers(0, 2), key=st.sampled_from([None, None, "k", "l"]))
    def submit(self, prompt: str, priority: int, key: str | None) -> None:
        new = new_job(prompt, priority=priority, key=key)
        there = [(job_id, job) for job_id, job in self.jobs.items() if key and job.key == key]
        if there and there[0][1].prompt != prompt:
            with pytest.raises(KeyConflict):
                self.ledger.submit(new)
        elif there:
            assert self.ledger.submit(new).id == there[0][0]
        elif len(self.waiting()) >= FOR_NEWCOMERS:
            with pytest.raises(QueueFull) as error:
                self.ledger.submit(new)
            assert 1 <= error.value.retry_after_s <= 120
            self.clock.advance(10)  # what it was promised lapses: the queue's length alone counts here
        else:
            job = self.ledger.submit(new)
            assert job.id not in self.jobs
            self.accepted += 1
            self.jobs[job.id] = Modelled(prompt, priority, key, order=self.accepted)

    @rule(prompt=st.sampled_from("abc"))
    def join(self, prompt: str) -> None:
        flying = [i for i, job in self.jobs.items() if job.prompt == prompt and job.state in ("queued", "running")]
        if flying:
            first = min(flying, key=lambda job_id: self.jobs[job_id].order)
            assert self.ledger.submit(new_job(prompt), join=True).id == first

    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        job_id = data.draw(st.sampled_from([*self.jobs, "job-none"]))
        job = self.jobs.get(job_id)
        if job is None:
            with pytest.raises(JobNotFound):
                self.ledger.cancel(job_id)
            return
        if job.state not in ENDED:
            self.end(job, "cancelled")
        assert self.ledger.cancel(job_id).state == job.state

    # ---------------------------------------------------------------------------------------------------- workers

    @rule(target=attempts)
    def claim(self) -> Any:
        self.expire()
        waiting = self.waiting()
        attempt = self.ledger.claim(["image"], "w")
        if not waiting:
            assert attempt is None
            return multiple()
        first = waiting[0]
        job = self.jobs[first]
        job.state, job.number, job.heard = "running", job.number + 1, self.clock.monotonic()
        assert attempt is not None
        assert (attempt.job.id, attempt.number) == (first, job.number)
        return attempt

    @rule(attempt=attempts)
    def heartbeat(self, attempt: Attempt) -> None:
        assert self.ledger.heartbeat(attempt, {"step": 1}) == self.hear(attempt)

    @rule(attempt=attempts, step=st.integers(0, 99))
    def checkpoint(self, attempt: Attempt, step: int) -> None:
        alive = self.hear(attempt)
        assert self.ledger.checkpoint(attempt, "base", step, {"latents": np.full(3, step)}) == alive
        if alive:
            job = self.jobs[attempt.job.id]
            job.step, job.interruptions = step, 0

    @rule(attempt=attempts, content=st.binary(min_size=1, max_size=3))
    def commit(self, attempt: Attempt, content: bytes) -> None:
        alive = self.hear(attempt)
        assert self.ledger.commit(attempt, [NewResult(content, "image/png")], {}) == alive
        if alive:
            self.end(self.jobs[attempt.job.id], "finished")
            self.jobs[attempt.job.id].result = content

    @rule(attempt=consumes(attempts), retry=st.booleans())
    def fail(self, attempt: Attempt, retry: bool) -> None:
        job = self.jobs.get(attempt.job.id)
        if job is None:
            with pytest.raises(JobNotFound):
                self.ledger.fail(attempt, Cause("x", "x"), retry=retry)
            return
        if self.runs(attempt):
            self.lose(job) if retry else self.end(job, "failed")
        assert self.ledger.fail(attempt, Cause("x", "x"), retry=retry).state == job.state

    @rule(attempt=attempts)
    def release(self, attempt: Attempt) -> None:
        if attempt.job.id in self.jobs:
            job = self.jobs[attempt.job.id]
            job.state = "queued" if self.runs(attempt) else job.state
            assert self.ledger.release(attempt).state == job.state

    # ------------------------------------------------------------------------------------------- time and the node

    @rule(seconds=st.sampled_from([1, 40, 4000]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-86400, -3600, 3600, 86400]))
    def clock_jumps(self, seconds: int) -> None:
        self.clock.jump(seconds)

    @rule()
    def expire_leases(self) -> None:
        lost = self.expire()
        assert {job.id for job in self.ledger.expire()} == lost

    @rule()
    def sweep(self) -> None:
        self.ledger.sweep()
        self.forget()

    @rule(lot=st.integers(0, 2**32), cut=st.booleans())
    def crash_and_reopen(self, lot: int, cut: bool) -> None:
        if cut:
            self.disk = self.disk.after_cut(random.Random(lot))
        else:
            self.ledger.close()
        for job in self.jobs.values():
            if job.state == "running":
                job.interruptions += 1
                if job.interruptions >= LIMITS.interruptions:
                    self.end(job, "set_aside")
                else:
                    job.state = "queued"
        self.open()
        self.forget()

    # ------------------------------------------------------------------------------------------------------ checks

    @invariant()
    def jobs_are_as_modelled(self) -> None:
        there = {job.id: job for job in self.ledger.jobs()}
        assert set(there) == set(self.jobs)
        for job_id, job in self.jobs.items():
            found = there[job_id]
            assert (found.state, found.attempt, found.losses) == (job.state, job.number, job.losses)
            assert [result.size for result in found.results] == ([] if job.result is None else [len(job.result)])
            steps = [checkpoint.step for checkpoint in self.ledger.checkpoints(job_id).values()]
            assert steps == ([] if job.step is None else [job.step])
            if job.result is not None:
                assert self.ledger.result(job_id, 0)[0] == job.result
        assert [self.ledger.position(job_id) for job_id in self.waiting()] == list(range(len(self.waiting())))

    @invariant()
    def times_are_in_order(self) -> None:
        found = self.ledger.jobs()[::-1]
        assert all(a.created < b.created for a, b in zip(found, found[1:], strict=False))
        for job in found:
            times = [time for time in (job.created, job.started, job.finished) if time is not None]
            assert times == sorted(times) and len(set(times)) == len(times)

    def teardown(self) -> None:
        verified = self.ledger.verify()
        assert verified.whole and verified.orphans == 0
        self.ledger.close()

    # ------------------------------------------------------------------------------------------------------- model

    def waiting(self) -> list[str]:
        queued = [job_id for job_id, job in self.jobs.items() if job.state == "queued"]
        return sorted(queued, key=lambda job_id: (-self.jobs[job_id].priority, self.jobs[job_id].order))

    def runs(self, attempt: Attempt) -> bool:
        job = self.jobs.get(attempt.job.id)
        return job is not None and job.state == "running" and job.number == attempt.number

    def hear(self, attempt: Attempt) -> bool:
        if self.runs(attempt):
            self.jobs[attempt.job.id].heard = self.clock.monotonic()
        return self.runs(attempt)

    def lose(self, job: Modelled) -> None:
        job.losses += 1
        if job.losses >= LIMITS.losses:
            self.end(job, "set_aside")
        else:
            job.state = "queued"

    def end(self, job: Modelled, state: str) -> None:
        self.changes += 1
        job.state, job.finished, job.step = state, self.changes, None

    def expire(self) -> set[str]:
        now = self.clock.monotonic()
        lost = {i for i, job in self.jobs.items() if job.state == "running" and now - job.heard > LIMITS.lease_s}
        for job_id in lost:
            self.lose(self.jobs[job_id])
        return lost

    def forget(self) -> None:
        """Which go by age depends on jumps of the clock, so any but the newest may; by number the oldest must."""
        ended = sorted((job.finished or 0, job_id) for job_id, job in self.jobs.items() if job.state in ENDED)
        there = {job.id for job in self.ledger.jobs()}
        newest = [job_id for _, job_id in ended[-1:]]
        surplus = [job_id for _, job_id in ended[: max(0, len(ended) - KEEP.jobs)]]
        assert set(newest) <= there
        assert not set(surplus) & there
        for _, job_id in ended:
            if job_id not in there:
                del self.jobs[job_id]


# Longer searches: RELIGHT_FAULTS_MODEL_LIVES=25000 pytest --timeout 0 tests/ledger/test_model.py
TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=int(os.environ.get("RELIGHT_FAULTS_MODEL_LIVES", "60")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
