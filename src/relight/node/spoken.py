"""What the language model says, from the thread that waits for it to the loop that answers the client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager

from relight.llm.asks import Piece
from relight.llm.client import Answer, Llm

MOST_AHEAD = 256
"""Pieces that a client may be behind; then the answer waits for him."""


async def spoken(
    use: Callable[[], AbstractContextManager[Llm]], begin: Callable[[Llm], Answer]
) -> AsyncGenerator[Piece]:
    """Pieces of an answer; when nobody listens any more, it is cancelled. Raises what the model raises."""
    loop, pieces = asyncio.get_running_loop(), asyncio.Queue[Piece | Exception | None]()
    room, left = threading.Semaphore(MOST_AHEAD), threading.Event()
    answers: list[Answer] = []

    def put(item: Piece | Exception | None) -> None:
        room.acquire()
        if not left.is_set():
            loop.call_soon_threadsafe(pieces.put_nowait, item)

    def speak() -> None:
        try:
            with use() as llm:
                if left.is_set():
                    return
                answer = begin(llm)
                answers.append(answer)
                if left.is_set():
                    answer.cancel()
                for piece in answer:
                    put(piece)
        except Exception as error:
            put(error)
        else:
            put(None)

    threading.Thread(target=speak, name="answer", daemon=True).start()
    try:
        while (item := await pieces.get()) is not None:
            room.release()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        left.set()
        for answer in answers:
            answer.cancel()
        room.release(MOST_AHEAD)
