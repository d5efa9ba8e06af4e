"""R14 on the whole node: orders to stop while pictures and a chat are made and others wait.

Counts by environment: RELIGHT_FAULTS_STOPS, and _WAITING for how many wait at each.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faults.load_http import Connection
from llm.tiny_model import write_model
from served import PICTURES, WORDS, Served, asked

SEED = 20261123
RUNNING = 3
LISTENERS = 9
LONGEST_STEPS = 10
DRAIN_S, LAST_S = 2.0, 5.0
"""What runs may go on so long; the last words of streams and the ends of workers take some more."""
READY_S, SHARED = 0.1, 10.0
"""What is promised, and how much slower a shared machine may be; the figure says what was."""

pytestmark = [pytest.mark.timeout(0), pytest.mark.skipif(os.name == "nt", reason="signals")]
Figure = Callable[[str], None]
Count = Callable[[str, int], int]


class Stop:
    """One order to stop, and what clients see of it. `streams` are their ends."""

    def __init__(self, served: Served, lot: random.Random) -> None:
        self.served, self.lot = served, lot
        self.unready_s = self.exit_s = 0.0
        self.running = self.waiting = 0
        self.streams: Counter[str] = Counter()
        self._ordered = asyncio.Event()

    async def run(self, waiting: int) -> None:
        async with Connection(self.served.port) as connection, Connection(self.served.port) as asking:
            jobs = await self.filled(connection, RUNNING + waiting)
            chosen = [*jobs[:RUNNING], *jobs[-(LISTENERS - RUNNING) :]]
            open_ones = [asyncio.Event() for _ in (*chosen, "chat")]
            streams = [self.listen(job_id, begun) for job_id, begun in zip(chosen, open_ones, strict=False)]
            tasks = [asyncio.create_task(stream) for stream in (*streams, self.talk(open_ones[-1]))]
            for begun in open_ones:
                await begun.wait()
            assert (await asking.ask("GET", "/readyz")).status == 200
            ordered = time.monotonic()
            self._ordered.set()
            exited = asyncio.create_task(asyncio.to_thread(self.served.end))
            while (await asking.ask("GET", "/readyz")).status == 200:
                pass
            self.unready_s = time.monotonic() - ordered
            refused = await connection.ask("POST", "/api/jobs", self.body())
            assert refused.status == 503 and 1 <= (refused.retry_after or 0) <= 120
        self.streams.update(await asyncio.gather(*tasks))
        assert await exited == 0
        self.exit_s = time.monotonic() - ordered

    async def filled(self, connection: Connection, number: int) -> list[str]:
        """The jobs that run and wait, in their order, when there are so many and as many run as may."""
        while True:
            listed = await connection.ask("GET", "/api/jobs?limit=500&state=running&state=queued")
            jobs = listed.json()["jobs"][::-1]
            self.running = sum(job["state"] == "running" for job in jobs)
            self.waiting = len(jobs) - self.running
            if len(jobs) >= number and self.running == RUNNING:
                return [job["id"] for job in sorted(jobs, key=lambda job: job["state"] != "running")]
            for _ in range(number - len(jobs)):
                assert (await connection.ask("POST", "/api/jobs", self.body())).status == 202
            await asyncio.sleep(0.01)

    def body(self) -> dict[str, Any]:
        request = asked(self.lot.randrange(2**32), self.lot.randint(1, LONGEST_STEPS))
        return {"model": PICTURES, "request": request}

    async def listen(self, job_id: str, begun: asyncio.Event) -> str:
        """How the stream of a job's events ends: its state, or the error's code."""
        async with Connection(self.served.port) as connection:
            answer = await connection.begin("GET", f"/api/jobs/{job_id}/events")
            assert answer.status == 200
            async for text in connection.events(answer):
                begun.set()
                last = json.loads(text)
        return ending(last)

    async def talk(self, begun: asyncio.Event) -> str:
        """One conversation after another; how the one ends in which the order came."""
        talk = [{"role": "user", "content": "go on"}]
        body = {"model": WORDS, "messages": talk, "stream": True, "max_tokens": 1500}
        async with Connection(self.served.port) as connection:
            while True:
                answer = await connection.begin("POST", "/v1/chat/completions", body)
                texts = []
                async for text in connection.events(answer):
                    begun.set()
                    texts.append(text)
                if self._ordered.is_set():
                    return (
                        "finished"
                        if texts[-1:] == ["[DONE]"]
                        else ending(json.loads(texts[-1]))
                        if texts
                        else "refused"
                    )


def ending(last: dict[str, Any]) -> str:
    error = last.get("error")
    return str(error["code"] if error else last["state"])


def test_an_order_to_stop_is_obeyed_in_time_and_loses_nothing(tmp_path: Path, count: Count, figure: Figure) -> None:
    stops, waiting, lot = count("STOPS", 1), count("WAITING", 6), random.Random(SEED)
    began = time.monotonic()
    (tmp_path / "relight").mkdir()
    settings = f"server:\n  drain_seconds: {DRAIN_S}\n"
    (tmp_path / "relight" / "relight.yaml").write_text(settings, encoding="utf-8")
    all_of_them = []
    with Served(tmp_path, write_model(tmp_path / f"{WORDS}.gguf")) as served:
        for number in range(stops):
            stop = Stop(served, lot)
            asyncio.run(stop.run(waiting))
            assert set(stop.streams) <= {"finished", "stopping", "refused"}, stop.streams
            assert stop.exit_s <= DRAIN_S + LAST_S * SHARED, f"stop {number} took {stop.exit_s:.1f} s"
            all_of_them.append(stop)
            served.start()
        jobs = ended(served)
        assert served.end() == 0
    assert {job["state"] for job in jobs} == {"finished"}
    assert all(len(job["results"]) == 1 for job in jobs)
    unready, exits = sorted(each.unready_s for each in all_of_them), sorted(each.exit_s for each in all_of_them)
    streams = sum((each.streams for each in all_of_them), Counter[str]())
    figure(
        f"R14: {stops} orders to stop with {RUNNING} pictures and a chat running and {waiting} or more waiting: not "
        f"ready after p50 {unready[len(unready) // 2] * 1e3:.0f}, at most {unready[-1] * 1e3:.0f} ms, exit after p50 "
        f"{exits[len(exits) // 2]:.1f}, at most {exits[-1]:.1f} s of {DRAIN_S:g} and {LAST_S:g} s; streams ended "
        f"{dict(sorted(streams.items()))}; {len(jobs)} jobs, all finished, by attempts "
        f"{dict(sorted(Counter(job['attempt'] for job in jobs).items()))}; {time.monotonic() - began:.1f} s"
    )
    assert unready[len(unready) // 2] <= READY_S * SHARED


def ended(served: Served) -> list[dict[str, Any]]:
    """Every job, when none waits or runs any more."""
    while jobs := served.ask("GET", "/api/jobs?limit=500&state=queued&state=running").json()["jobs"]:
        served.ended(jobs[0]["id"])
    found: list[dict[str, Any]] = []
    page, last = [{}] * 500, ""
    while len(page) == 500:
        page = served.ask("GET", f"/api/jobs?limit=500{last}").json()["jobs"]
        found += page
        last = f"&before={page[-1]['id']}"
    return found
