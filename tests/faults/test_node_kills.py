"""R1 and R2 on the whole node: workers and the server are killed while pictures are made and clients submit."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import httpx2
import psutil
import pytest

from relight.ledger import Limits
from served import Served

SEED = 20261123
SEEDS = (1, 2, 3)
STEPS = 6
KILLS_IN_A_ROW = Limits().interruptions // 2
"""A job under which the server ends too often before a checkpoint is set aside: that is another test's."""
REDONE_AT_MOST_S = 120.0

pytestmark = [
    pytest.mark.timeout(0),
    pytest.mark.skipif(os.name == "nt", reason="kill -9"),
]
Figure = Callable[[str], None]
Count = Callable[[str, int], int]


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[int, bytes], float]:
    """Each seed's picture without a kill, and the seconds of one once the model is open."""
    with Served(tmp_path_factory.mktemp("unkilled")) as served:
        pictures = {}
        for seed in SEEDS:
            begun = time.monotonic()
            pictures[seed] = served.picture(served.ended(served.submit(seed, STEPS)["id"]))
    return pictures, time.monotonic() - begun


def test_no_kill_of_a_worker_loses_or_changes_a_picture(
    tmp_path: Path, unkilled: tuple[dict[int, bytes], float], count: Count, figure: Figure
) -> None:
    kills, lot, begun = count("KILLS_OF_WORKERS", 5), random.Random(SEED), time.monotonic()
    pictures, usual = unkilled
    killed = jobs = again = 0
    with Served(tmp_path) as served:
        served.ended(served.submit(SEEDS[0], STEPS)["id"])
        while killed < kills:
            seed = lot.choice(SEEDS)
            job = served.submit(seed, STEPS)
            killed += kill_one(served, lot, usual)
            done = served.ended(job["id"])
            jobs, again = jobs + 1, again + (done["attempt"] > 1)
            assert done["state"] == "finished" and len(done["results"]) == 1, f"kill {killed} of seed {SEED}: {done}"
            assert served.picture(done) == pictures[seed], f"kill {killed} of seed {SEED}: another picture"
        listed = served.ask("GET", "/api/jobs?limit=500").json()["jobs"]
        assert {each["state"] for each in listed} == {"finished"}
        assert len(listed) == min(500, jobs + 1)
    figure(
        f"R1: {kills} kill -9 of workers at random moments, {jobs} pictures, {again} made by a later attempt, 0 lost, "
        f"0 doubled, all byte-identical, {time.monotonic() - begun:.1f} s"
    )


def kill_one(served: Served, lot: random.Random, within_s: float) -> int:
    """Any worker at a random moment of a picture; how many were there to be killed."""
    Event().wait(lot.uniform(0.0, within_s))
    try:
        lot.choice(served.workers()).kill()
    except (IndexError, psutil.NoSuchProcess):
        return 0
    return 1


class Client:
    """Submits with a key each until it is answered 2xx, whatever becomes of the server meanwhile."""

    def __init__(self, served: Served, lot: random.Random, most: int) -> None:
        self.served, self.lot, self.most = served, lot, most
        self.accepted: dict[str, tuple[str, int]] = {}
        self.repeated = 0
        self.stop = Event()
        self.thread = Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        for number in range(self.most):
            seed, key = self.lot.choice(SEEDS), f"key {number}"
            while not self.stop.is_set():
                try:
                    job = self.served.submit(seed, STEPS, Idempotency_Key=key)
                except httpx2.HTTPError:
                    self.repeated += 1
                    self.stop.wait(0.05)
                    continue
                self.accepted[key] = job["id"], seed
                break
            self.stop.wait(self.lot.uniform(0.0, 1.0))


def test_no_kill_of_the_server_loses_or_doubles_a_job(
    tmp_path: Path, unkilled: tuple[dict[int, bytes], float], count: Count, figure: Figure
) -> None:
    kills, lot, begun = count("KILLS_OF_SERVERS", 3), random.Random(SEED), time.monotonic()
    pictures, usual = unkilled
    with Served(tmp_path) as served:
        client = Client(served, random.Random(SEED + 1), most=2 * kills)
        client.thread.start()
        for number in range(kills):
            Event().wait(lot.uniform(0.0, 2 * usual))
            workers = served.workers()
            served.kill()
            assert psutil.wait_procs(workers, timeout=30)[1] == [], "workers outlive their server"
            served.start()
            if number % KILLS_IN_A_ROW == KILLS_IN_A_ROW - 1:
                for job_id, _ in list(client.accepted.values()):
                    served.ended(job_id)
        client.thread.join(REDONE_AT_MOST_S)
        client.stop.set()
        assert len(client.accepted) == 2 * kills
        attempts: Counter[int] = Counter()
        for job_id, seed in client.accepted.values():
            done = served.ended(job_id)
            attempts[done["attempt"]] += 1
            assert done["state"] == "finished" and len(done["results"]) == 1, done
            assert served.picture(done) == pictures[seed]
        listed = {each["id"] for each in served.ask("GET", "/api/jobs?limit=500").json()["jobs"]}
        assert listed == {job_id for job_id, _ in client.accepted.values()}, "a key made two jobs"
    figure(
        f"R2: {kills} kill -9 of the server, {len(listed)} jobs acknowledged, {client.repeated} submissions repeated, "
        f"0 lost, 0 doubled, all byte-identical, by attempts {dict(sorted(attempts.items()))}, "
        f"{time.monotonic() - begun:.1f} s"
    )
