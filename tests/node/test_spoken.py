"""Answers from the thread that waits for them to the loop that passes them on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from relight.errors import WorkerLost
from relight.llm.asks import Piece, TokenLogprob, ToolCall, Usage
from relight.node.spoken import MOST_AHEAD, spoken, together

DEADLINE_S = 10.0


class Said:
    """An answer of so many pieces, which ends early when it is cancelled; `then` is raised at its end."""

    def __init__(self, pieces: int, then: Exception | None = None) -> None:
        self.pieces, self.then, self.given = pieces, then, 0
        self.cancelled = threading.Event()

    def __iter__(self) -> Iterator[Piece]:
        while self.given < self.pieces and not self.cancelled.is_set():
            self.given += 1
            yield Piece(text=f"{self.given} ")
        if self.then is not None:
            raise self.then

    def cancel(self) -> None:
        self.cancelled.set()


class Used:
    """A model that one answer after another is asked of; `free` when nobody uses it."""

    def __init__(self) -> None:
        self.begun, self.free, self.there = 0, threading.Event(), threading.Event()
        self.there.set()

    @contextmanager
    def __call__(self) -> Iterator[Any]:
        assert self.there.wait(DEADLINE_S)
        try:
            yield self
        finally:
            self.free.set()

    def say(self, answer: Said) -> Any:
        def begin(llm: Any) -> Said:
            self.begun += 1
            return answer

        return spoken(self, begin)


def test_every_piece_comes_in_its_order_also_where_the_client_is_slow() -> None:
    model, answer = Used(), Said(8 * MOST_AHEAD)

    async def listen() -> list[str]:
        heard = []
        async for piece in model.say(answer):
            heard += piece.text.split()
            assert answer.given <= len(heard) + 2 * MOST_AHEAD, "it runs away from its client"
            await asyncio.sleep(0)
        return heard

    assert asyncio.run(listen()) == [str(number + 1) for number in range(8 * MOST_AHEAD)]
    assert model.free.wait(DEADLINE_S)


def test_whoever_stops_listening_ends_the_answer() -> None:
    model, answer = Used(), Said(10**9)

    async def listen() -> None:
        pieces = model.say(answer)
        assert (await anext(pieces)).text.split()[0] == "1"
        await pieces.aclose()

    asyncio.run(listen())
    assert answer.cancelled.is_set() and model.free.wait(DEADLINE_S)


def test_an_answer_nobody_waits_for_any_more_is_not_begun() -> None:
    model, answer = Used(), Said(1)
    model.there.clear()

    async def listen() -> None:
        pieces = model.say(answer)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(pieces)

    asyncio.run(listen())
    model.there.set()
    assert model.free.wait(DEADLINE_S) and model.begun == 0


def test_what_the_model_raises_is_heard_after_its_last_piece() -> None:
    async def listen() -> list[str]:
        heard = []
        with pytest.raises(WorkerLost, match="gone"):
            async for piece in Used().say(Said(2, WorkerLost("gone"))):
                heard += piece.text.split()
        return heard

    assert asyncio.run(listen()) == ["1", "2"]


def test_pieces_of_one_kind_are_joined_and_no_others() -> None:
    first, second = (TokenLogprob(each, (), -0.5) for each in "ab")
    call, end = (
        Piece(tool_calls=(ToolCall(0, "id", "name", ""),)),
        Piece(finish_reason="stop", usage=Usage(1, 0, 2, 0.1, 0.1)),
    )
    pieces = [Piece(reasoning="h"), Piece(reasoning="m"), Piece(text="a", logprobs=(first,))]
    pieces += [Piece(text="b", logprobs=(second,)), call, call, Piece(text="c"), end]
    assert together(pieces) == [
        Piece(reasoning="hm"),
        Piece(text="ab", logprobs=(first, second)),
        call,
        call,
        Piece(text="c"),
        end,
    ]


def test_an_answer_that_is_whole_is_not_cancelled() -> None:
    model, answer = Used(), Said(3)

    async def listen() -> None:
        async for _ in model.say(answer):
            pass

    asyncio.run(listen())
    assert model.free.wait(DEADLINE_S) and not answer.cancelled.is_set()
