"""What the language model says, from the thread that waits for it to the loop that answers the client."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace

from relight.llm.asks import Piece
from relight.llm.client import Answer, Llm

MOST_AHEAD = 256
"""Pieces that a client may be behind; then the answer waits for him."""
STARTING = ThreadPoolExecutor(1, "answers")
"""Starts the threads of answers: whoever starts one waits until it runs, and the loop must not."""


class Inbox:
    """From a thread to a loop: however many pieces come before the loop looks, it is woken once."""

    def __init__(self) -> None:
        self._loop, self._come = asyncio.get_running_loop(), asyncio.Event()
        self._pieces: deque[Piece] = deque()
        self._room, self._called = threading.Semaphore(MOST_AHEAD), False
        self.left = threading.Event()
        self.error: Exception | None = None
        self.ended = False

    def put(self, piece: Piece) -> None:
        self._room.acquire()
        self._pieces.append(piece)
        self._call()

    def end(self, error: Exception | None = None) -> None:
        self.error, self.ended = error, True
        self._call()

    def _call(self) -> None:
        if not self._called and not self.left.is_set():
            self._called = True
            self._loop.call_soon_threadsafe(self._come.set)

    async def get(self) -> list[Piece]:
        """All that has come, at least one; none when the answer has ended."""
        while True:
            self._come.clear()
            self._called = False
            ended = self.ended
            if there := [self._pieces.popleft() for _ in range(len(self._pieces))]:
                self._room.release(len(there))
                return there
            if ended:
                return []
            await self._come.wait()

    def leave(self) -> None:
        self.left.set()
        self._room.release(MOST_AHEAD)


async def spoken(
    use: Callable[[], AbstractContextManager[Llm]], begin: Callable[[Llm], Answer]
) -> AsyncGenerator[Piece]:
    """Pieces of an answer; those that wait for a slow client or a busy loop come as one. When nobody listens any more,
    it is cancelled. Raises what the model raises."""
    inbox, answers = Inbox(), list[Answer]()

    def speak() -> None:
        try:
            with use() as llm:
                if inbox.left.is_set():
                    return
                answer = begin(llm)
                answers.append(answer)
                if inbox.left.is_set():
                    answer.cancel()
                for piece in answer:
                    inbox.put(piece)
        except Exception as error:
            inbox.end(error)
        else:
            inbox.end()

    STARTING.submit(threading.Thread(target=speak, name="answer", daemon=True).start)
    try:
        while come := await inbox.get():
            for piece in together(come):
                yield piece
        if inbox.error is not None:
            raise inbox.error
    finally:
        inbox.leave()
        if not inbox.ended:
            for answer in answers:
                answer.cancel()


def together(pieces: list[Piece]) -> list[Piece]:
    """Pieces next to each other that are of text alone, or of thinking alone, are one."""
    joined = pieces[:1]
    for piece in pieces[1:]:
        last = joined[-1]
        if plain(last) and plain(piece) and bool(last.reasoning) == bool(piece.reasoning):
            joined[-1] = replace(
                last,
                text=last.text + piece.text,
                reasoning=last.reasoning + piece.reasoning,
                logprobs=last.logprobs + piece.logprobs,
            )
        else:
            joined.append(piece)
    return joined


def plain(piece: Piece) -> bool:
    return not (piece.tool_calls or piece.finish_reason or piece.usage or (piece.text and piece.reasoning))
