"""Random lives of a ledger, and what must be true of it after any end of one.

A history keeps what was acknowledged and what was asked for last without an answer: a crash may have let that happen
or not, and nothing else.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field, replace

import numpy as np

from ledgers import new_job
from relight.errors import JobNotFound
from relight.ledger import ENDED, Attempt, Cause, Job, Keep, Ledger, Limits, NewResult

LIMITS = Limits(queued=10_000, queued_seconds=1e9, interruptions=10_000)
KEEP = Keep(jobs=12)


@dataclass(frozen=True)
class Fact:
    """Of a job. `begun`: attempts; `step`: of its newest checkpoint."""

    prompt: str
    inputs: dict[str, bytes]
    state: str = "queued"
    losses: int = 0
    begun: int = 0
    step: int | None = None
    results: tuple[bytes, ...] = ()


@dataclass
class History:
    """`facts` of acknowledged jobs in the order of their last change; `asked`: id and fact of what has no answer yet,
    with None for the id of a job to be."""

    lot: random.Random
    facts: dict[str, Fact] = field(default_factory=dict)
    asked: tuple[str | None, Fact] | None = None
    running: dict[str, Attempt] = field(default_factory=dict)
    number: int = 0

    def act(self, ledger: Ledger) -> None:
        """One random thing that a client, a worker or the node does."""
        acts = [self.submit, self.submit, self.claim, self.cancel, self.sweep]
        if self.running:
            acts += [self.checkpoint, self.checkpoint, self.commit, self.commit, self.lose, self.release]
        self.lot.choice(acts)(ledger)

    def submit(self, ledger: Ledger) -> None:
        self.number += 1
        inputs = {"image": self.lot.randbytes(self.lot.choice((10, 3000)))} if self.lot.random() < 0.5 else {}
        fact = Fact(f"prompt {self.number}", inputs)
        self.asked = None, fact
        self.told(ledger.submit(new_job(fact.prompt, inputs=inputs, key=fact.prompt)).id)

    def claim(self, ledger: Ledger) -> None:
        waiting = [job_id for job_id, fact in self.facts.items() if fact.state == "queued"]
        first = min(waiting, key=lambda job_id: int(self.facts[job_id].prompt.split()[1]), default=None)
        if first:
            fact = self.facts[first]
            self.asked = first, replace(fact, state="running", begun=fact.begun + 1)
        attempt = ledger.claim(["image"], "w")
        assert (attempt and attempt.job.id) == first
        if attempt:
            self.told(attempt.job.id)
            self.running[attempt.job.id] = attempt

    def checkpoint(self, ledger: Ledger) -> None:
        job_id, attempt = self.lot.choice(list(self.running.items()))
        step = self.lot.randrange(1000)
        self.asked = job_id, replace(self.facts[job_id], step=step)
        assert ledger.checkpoint(attempt, "base", step, {"latents": latents(step)})
        self.told(job_id)

    def commit(self, ledger: Ledger) -> None:
        job_id, attempt = self.lot.choice(list(self.running.items()))
        results = tuple(self.lot.randbytes(self.lot.choice((5, 2000))) for _ in range(self.lot.randrange(3)))
        self.end(job_id, "finished", results=results)
        assert ledger.commit(attempt, [NewResult(content, "image/png") for content in results], {})
        self.told(job_id)

    def cancel(self, ledger: Ledger) -> None:
        live = [job_id for job_id, fact in self.facts.items() if fact.state not in ENDED]
        if live:
            job_id = self.lot.choice(live)
            self.end(job_id, "cancelled")
            assert ledger.cancel(job_id).state == "cancelled"
            self.told(job_id)

    def lose(self, ledger: Ledger) -> None:
        job_id, attempt = self.lot.choice(list(self.running.items()))
        losses = self.facts[job_id].losses + 1
        if losses == LIMITS.losses:
            self.end(job_id, "set_aside", losses=losses)
        else:
            self.asked = job_id, replace(self.facts[job_id], state="queued", losses=losses)
        job = ledger.fail(attempt, Cause("worker_lost", "signal 9"), retry=True)
        del self.running[job_id]
        self.told(job.id)

    def release(self, ledger: Ledger) -> None:
        job_id, attempt = self.lot.choice(list(self.running.items()))
        self.asked = job_id, replace(self.facts[job_id], state="queued")
        ledger.release(attempt)
        del self.running[job_id]
        self.told(job_id)

    def sweep(self, ledger: Ledger) -> None:
        ledger.sweep()

    def end(self, job_id: str, state: str, **more: object) -> None:
        self.asked = job_id, replace(self.facts[job_id], state=state, step=None, **more)

    def told(self, job_id: str) -> None:
        """The answer is there: what was asked is a fact."""
        assert self.asked is not None
        fact = self.asked[1]
        self.facts.pop(job_id, None)
        self.facts[job_id] = fact
        if fact.state in ENDED:
            self.running.pop(job_id, None)
        self.asked = None

    # ------------------------------------------------------------------------------------------------------ checks

    def check(self, ledger: Ledger) -> None:
        """Of a ledger just opened. From here on what was found counts."""
        verified = ledger.verify()
        assert verified.database == "ok"
        assert verified.damaged == ()
        assert verified.orphans == 0
        there = {job.id: job for job in ledger.jobs(limit=1000)}
        ended = [job_id for job_id, fact in self.facts.items() if fact.state in ENDED]
        for job_id in ended[: max(0, len(ended) + 1 - KEEP.jobs)]:
            if job_id not in there:
                del self.facts[job_id]
        missing = set(self.facts) - set(there)
        assert not missing, f"{len(missing)} acknowledged jobs are lost"
        unknown = set(there) - set(self.facts)
        if unknown:
            assert self.asked is not None and self.asked[0] is None and len(unknown) == 1, "a job that nobody asked for"
            self.facts[unknown.pop()] = self.asked[1]
        for job_id, job in there.items():
            self.facts[job_id] = self.check_job(ledger, job)
        self.asked, self.running = None, {}

    def check_job(self, ledger: Ledger, job: Job) -> Fact:
        """The fact it is now: as acknowledged, or as asked last. What ran waits again."""
        possible = [self.facts[job.id]]
        if self.asked and self.asked[0] == job.id:
            possible.append(self.asked[1])
        possible = [replace(fact, state="queued") if fact.state == "running" else fact for fact in possible]
        found = Fact(
            prompt=job.request["prompt"],
            inputs={name: ledger.input(job.id, name) for name in possible[0].inputs},
            state=job.state,
            losses=job.losses,
            begun=job.attempt,
            step=next((c.step for c in ledger.checkpoints(job.id).values()), None),
            results=tuple(ledger.result(job.id, result.index)[0] for result in job.results),
        )
        assert found in possible, f"{found}\nis none of\n{possible}"
        for checkpoint in ledger.checkpoints(job.id).values():
            np.testing.assert_array_equal(checkpoint.arrays["latents"], latents(checkpoint.step))
        return found

    def check_keys(self, ledger: Ledger) -> None:
        """A client that asks again with its key gets the job it had."""
        for job_id, fact in list(self.facts.items())[-3:]:
            try:
                ledger.get(job_id)
            except JobNotFound:
                continue
            assert ledger.submit(new_job(fact.prompt, inputs=fact.inputs, key=fact.prompt)).id == job_id


def latents(step: int) -> np.ndarray:
    seed = hashlib.sha256(str(step).encode()).digest()
    return np.frombuffer(seed * 20, np.uint8).astype(np.float32)
