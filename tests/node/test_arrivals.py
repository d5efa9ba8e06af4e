"""Submissions that come while others are being written."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from ledgers import new_job
from relight.errors import LedgerError, RequestError
from relight.ledger import NewJob
from relight.node.arrivals import Arrivals

DEADLINE_S = 10.0
Ask = tuple[NewJob, bool]


class Desk:
    """Writes when `open`; `batches` has the prompts of each turn. The prompt `full` is refused."""

    def __init__(self) -> None:
        self.open, self.busy = threading.Event(), threading.Event()
        self.batches: list[list[str]] = []
        self.arrivals = Arrivals(self.write)

    def write(self, asks: Sequence[Ask]) -> list[str | Exception]:
        self.batches.append([new.request["prompt"] for new, _ in asks])
        self.busy.set()
        assert self.open.wait(DEADLINE_S)
        return [RequestError(each) if each == "full" else f"{each}'s job" for each in self.batches[-1]]

    async def first(self) -> asyncio.Task[str]:
        """One is being written."""
        task = asyncio.create_task(self.submit("first"))
        assert await asyncio.to_thread(self.busy.wait, DEADLINE_S)
        return task

    async def submit(self, prompt: str) -> str:
        return await self.arrivals.submit(lambda: new_job(prompt), False)


def test_those_that_come_meanwhile_are_written_together_and_each_hears_its_own() -> None:
    async def run() -> None:
        desk = Desk()
        tasks = [await desk.first()]
        tasks += [asyncio.create_task(desk.submit(prompt)) for prompt in ("a", "full", "b")]
        await asyncio.sleep(0)
        desk.open.set()
        first, a, full, b = await asyncio.gather(*tasks, return_exceptions=True)
        assert (first, a, b) == ("first's job", "a's job", "b's job") and isinstance(full, RequestError)
        assert desk.batches == [["first"], ["a", "full", "b"]]
        desk.arrivals.close()

    asyncio.run(run())


def test_what_is_wrong_with_one_is_told_to_that_one() -> None:
    def wrong() -> NewJob:
        raise RequestError("steps: is no number")

    async def run() -> None:
        desk = Desk()
        tasks = [await desk.first()]
        tasks += [asyncio.create_task(desk.submit("a")), asyncio.create_task(desk.arrivals.submit(wrong, False))]
        await asyncio.sleep(0)
        desk.open.set()
        assert await tasks[1] == "a's job"
        with pytest.raises(RequestError, match="steps"):
            await tasks[2]
        assert desk.batches == [["first"], ["a"]]
        desk.arrivals.close()

    asyncio.run(run())


def test_who_left_before_his_turn_is_not_written() -> None:
    async def run() -> None:
        desk = Desk()
        first = await desk.first()
        left, stays = (asyncio.create_task(desk.submit(prompt)) for prompt in ("left", "stays"))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        desk.open.set()
        assert await stays == "stays's job" and await first == "first's job"
        assert desk.batches == [["first"], ["stays"]]
        desk.arrivals.close()

    asyncio.run(run())


def test_where_nothing_can_be_written_nobody_waits_for_ever() -> None:
    def broken(asks: Sequence[Ask]) -> list[str | Exception]:
        raise LedgerError("the disk is gone")

    async def run() -> None:
        arrivals: Arrivals[str] = Arrivals(broken)
        with pytest.raises(LedgerError, match="disk is gone"):
            await asyncio.wait_for(arrivals.submit(lambda: new_job("a"), False), DEADLINE_S)
        arrivals.close()

    asyncio.run(run())
