"""R13 on the whole node: clients leave and cancel at random moments, and nothing goes on for nobody.

Count by environment: RELIGHT_FAULTS_LEAVING.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from faults.load_http import Connection
from faults.test_node_load import Held, crowded, settled
from llm.tiny_model import write_model
from served import PICTURES, WORDS, Served, asked

SEED = 20261123
AT_ONCE = 4
STOPS_S, SHARED = 1.0, 5.0
"""What is promised, and how much slower a shared machine may be; the figure says what was."""
STEPS = 600
"""More than anybody waits for."""
PNG = b"\x89PNG"
BUSY = re.compile(r"^relight_busy{by=.*} 1\.0$", re.MULTILINE)

pytestmark = [pytest.mark.timeout(0), pytest.mark.skipif(os.name == "nt", reason="signals")]
Figure = Callable[[str], None]
Count = Callable[[str, int], int]


class Leaving:
    """Clients of one server; `done` counts how they went, `stopped_s` how long work went on without them."""

    def __init__(self, served: Served, picture_s: float) -> None:
        self.served, self.picture_s, self.lot = served, picture_s, random.Random(SEED)
        self.done: Counter[str] = Counter()
        self.stopped_s: list[float] = []

    async def run(self, number: int) -> None:
        kinds = [self.picture, self.streamed, self.chat, self.cancelled, self.cancelled_at_the_end]
        for first in range(0, number, AT_ONCE):
            chosen = self.lot.choices(kinds, k=min(AT_ONCE, number - first))
            await asyncio.gather(*(kind() for kind in chosen))
            self.stopped_s.append(await self.idle())

    async def idle(self) -> float:
        """Seconds until nothing is computed any more."""
        began = time.monotonic()
        async with Connection(self.served.port) as connection:
            while BUSY.search((await connection.ask("GET", "/metrics")).body.decode()):
                assert time.monotonic() - began < 60, "work goes on for nobody"
                await asyncio.sleep(0.01)
        return time.monotonic() - began

    async def left(self, path: str, body: dict[str, object]) -> None:
        """Gone after some of the answer, or before it began; half of them without a word to the server."""
        connection = Connection(self.served.port)
        try:
            async with asyncio.timeout(self.lot.uniform(0.0, 4 * self.picture_s)):
                answer = await connection.begin("POST", path, body)
                async for _ in connection.rest(answer):
                    pass
        except TimeoutError:
            self.done[f"left {path}"] += 1
        else:
            self.done[f"answered {path}"] += 1
        finally:
            connection.close(reset=self.lot.random() < 0.5)

    async def picture(self) -> None:
        await self.left("/v1/images/generations", self.body() | {"steps": STEPS})

    async def streamed(self) -> None:
        await self.left("/v1/images/generations", self.body() | {"steps": STEPS, "stream": True, "partial_images": 2})

    async def chat(self) -> None:
        talk = [{"role": "user", "content": "go on"}]
        await self.left("/v1/chat/completions", {"model": WORDS, "messages": talk, "stream": True, "max_tokens": 1500})

    def body(self) -> dict[str, object]:
        return {"model": PICTURES, "prompt": "a red apple", "size": "64x64", "seed": self.lot.randrange(2**32)}

    async def cancelled(self) -> None:
        await self.cancel(STEPS, self.lot.uniform(0.0, 4 * self.picture_s))

    async def cancelled_at_the_end(self) -> None:
        await self.cancel(2, self.lot.uniform(0.0, 2 * AT_ONCE * self.picture_s))

    async def cancel(self, steps: int, after_s: float) -> None:
        """Whatever the answer to a cancel says stays so; what is finished has its picture."""
        async with Connection(self.served.port) as connection:
            body = {"model": PICTURES, "request": asked(self.lot.randrange(2**32), steps)}
            path = f"/api/jobs/{(await connection.ask('POST', '/api/jobs', body)).json()['id']}"
            await asyncio.sleep(after_s)
            before = (await connection.ask("GET", path)).json()["state"]
            said = (await connection.ask("DELETE", path)).json()
            assert said["state"] in (("finished",) if before == "finished" else ("finished", "cancelled"))
            if said["state"] == "finished":
                assert (await connection.ask("GET", f"{path}/result")).body.startswith(PNG)
            assert (await connection.ask("DELETE", path)).json() == said
            self.done[said["state"]] += 1


def test_whoever_leaves_or_cancels_leaves_nothing_at_work(tmp_path: Path, count: Count, figure: Figure) -> None:
    number, began = count("LEAVING", 12), time.monotonic()
    with Served(tmp_path, write_model(tmp_path / f"{WORDS}.gguf")) as served:
        served.ended(served.submit(SEED)["id"])
        since = time.monotonic()
        served.ended(served.submit(SEED + 1)["id"])
        leaving = Leaving(served, time.monotonic() - since)
        asyncio.run(leaving.run(2 * AT_ONCE))
        asyncio.run(crowded(served))
        talk = {"model": WORDS, "messages": [{"role": "user", "content": "go on"}], "max_tokens": 1}
        assert (
            served.ask("POST", "/v1/chat/completions", talk).status_code == 200
        )  # the first one starts a thread for all
        process, workers = psutil.Process(served.pid), {each.pid for each in served.workers()}
        before = Held.by(process)
        leaving.stopped_s.clear()
        asyncio.run(leaving.run(number))
        after = settled(process, before)
        jobs = served.ask("GET", "/api/jobs?limit=500").json()["jobs"]
        assert {job["state"] for job in jobs} <= {"finished", "cancelled"}
        assert {each.pid for each in served.workers()} == workers, "work stopped, not workers"
        assert served.end() == 0
    slowest = sorted(leaving.stopped_s)
    within = sum(seconds <= STOPS_S for seconds in slowest)
    figure(
        f"R13: {number} left or cancelled on the whole node in {time.monotonic() - began:.1f} s: "
        f"{dict(sorted(leaving.done.items()))}; nothing computed after p50 {slowest[len(slowest) // 2]:.2f}, at most "
        f"{slowest[-1]:.2f} s, within {STOPS_S:g} s {within} of {len(slowest)} times; descriptors "
        f"{before.descriptors} -> {after.descriptors}, threads {before.threads} -> {after.threads}"
    )
    assert after.descriptors <= before.descriptors and after.threads <= before.threads
    assert slowest[len(slowest) // 2] <= STOPS_S * SHARED
