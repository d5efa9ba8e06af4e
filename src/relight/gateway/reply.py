"""Answers: short ones at once, long ones kept alive, streams of server-sent events.

A JSON answer that takes long is begun with status 200 and kept alive by spaces, which JSON allows before its value. If
it fails after that, the body is the error's JSON and the connection is cut before the body's end: a client sees that
the answer is not whole, and an official one asks again and then gets the error with its status.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from relight.errors import RelightError
from relight.gateway.problem import Problem, problem_of
from relight.gateway.state import Gateway, stopping_problem
from relight.gateway.unexpected import unexpected

log = logging.getLogger(__name__)

JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"


def encoded(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def at_once(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(encoded(value), status, dict(headers or {}), media_type="application/json")


def refusal(problem: Problem) -> Response:
    return Response(problem.body(), problem.status, problem.headers, media_type="application/json")


def sent(value: object, event: str | None = None, number: int | None = None) -> bytes:
    """One server-sent event; JSON has no line breaks."""
    head = (f"event: {event}\n" if event else "") + (f"id: {number}\n" if number is not None else "")
    return head.encode() + b"data: " + encoded(value) + b"\n\n"


def as_problem(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    return problem_of(error) if isinstance(error, RelightError) else unexpected(error)


async def gone(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Long:
    """Waits for one thing after another, whichever of these comes first: it, the client's leaving, the gateway's end,
    or a pause that is long enough for a sign of life."""

    def __init__(self, gateway: Gateway, receive: Receive) -> None:
        self._settings = gateway.settings
        self._gone = asyncio.create_task(gone(receive))
        self._end = asyncio.create_task(gateway.ending.wait())
        self._heard = time.monotonic()
        self.begun = False

    def heard(self) -> None:
        """The client was sent something now."""
        self._heard = time.monotonic()

    async def next[T](self, task: asyncio.Task[T]) -> bool:
        """True when the task is done, False for a sign of life. Raises ClientGone, or Problem when all must end."""
        while not (done := await self._first(task)):
            if self._pause() <= 0:
                self.heard()
                return False
        if task in done and not task.cancelled():
            return True
        if self._gone in done:
            raise ClientGone
        raise stopping_problem()  # nothing but the server's end cancels what somebody waits for

    async def _first(self, task: asyncio.Task[Any]) -> set[asyncio.Task[Any]]:
        waited = {task, self._gone, self._end}
        done, _ = await asyncio.wait(waited, timeout=max(0.0, self._pause()), return_when=asyncio.FIRST_COMPLETED)
        return done

    def _pause(self) -> float:
        """Seconds that the client may still hear nothing."""
        most = self._settings.ping_s if self.begun else self._settings.patience_s
        return self._heard + most - time.monotonic()

    async def close(self, *tasks: asyncio.Task[Any]) -> None:
        for task in (*tasks, self._gone, self._end):
            task.cancel()
        await asyncio.gather(*tasks, self._gone, self._end, return_exceptions=True)


class ClientGone(Exception):
    """Nobody is there to be answered."""


class Patient:
    """The JSON that a coroutine gives, in bytes."""

    def __init__(self, gateway: Gateway, work: Coroutine[Any, Any, bytes]) -> None:
        self._gateway, self._work = gateway, work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.create_task(self._work)
        long = Long(self._gateway, receive)
        try:
            while not await long.next(work):
                if not long.begun:
                    await begin(send, JSON)
                    long.begun = True
                await more(send, b" ")
            body = work.result()
        except ClientGone:
            return
        except Exception as error:
            problem = as_problem(error)
            if long.begun:
                await more(send, problem.body())  # and no end: the connection is cut
                return
            await refusal(problem)(scope, receive, send)
            return
        finally:
            await long.close(work)
        if long.begun:
            await send({"type": "http.response.body", "body": body})
        else:
            await Response(body, media_type="application/json")(scope, receive, send)


class EventStream:
    """Server-sent events, kept alive by comments. An error before the first event is answered with its status; one
    after it is an event in OpenAI's shape."""

    def __init__(self, gateway: Gateway, events: AsyncGenerator[bytes, None], error_event: str | None = None) -> None:
        self._gateway, self._events, self._error_event = gateway, events, error_event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        long = Long(self._gateway, receive)
        passing = asyncio.create_task(self._passed_on(long, send))
        try:
            while not await long.next(passing):
                await self._begin(long, send)
                await more(send, b": ping\n\n")
            passing.result()
        except ClientGone:
            return
        except Exception as error:
            await long.close(passing)
            problem = as_problem(error)
            if not long.begun:
                await refusal(problem)(scope, receive, send)
                return
            await more(send, sent({"type": "error", **problem.shape()}, self._error_event))
        finally:
            await long.close(passing)
            await closed(self._events)
        await self._begin(long, send)
        await send({"type": "http.response.body", "body": b""})

    async def _passed_on(self, long: Long, send: Send) -> None:
        async for event in self._events:
            await self._begin(long, send)
            await more(send, event)
            long.heard()

    async def _begin(self, long: Long, send: Send) -> None:
        if not long.begun:
            long.begun = True
            await begin(send, EVENTS)


async def closed(events: AsyncGenerator[Any, None]) -> None:
    """End a generator early, so that what it works on stops."""
    await events.aclose()


def begin(send: Send, media_type: bytes) -> Awaitable[None]:
    headers = [(b"content-type", media_type), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
    return send({"type": "http.response.start", "status": 200, "headers": headers})


def more(send: Send, body: bytes) -> Awaitable[None]:
    return send({"type": "http.response.body", "body": body, "more_body": True})
