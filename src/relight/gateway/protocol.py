"""uvicorn's HTTP/1.1 and what it leaves open: a deadline for a request's head, a cap on connections, JSON errors."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from relight.gateway.problem import Problem
from relight.gateway.settings import Limits

LINGER_S = 1.0


class GuardedProtocol(H11Protocol):
    """One connection. `limits` and `peers` are set on a subclass of each server's own."""

    limits = Limits()
    peers: Counter[str]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_timer: asyncio.TimerHandle | None = None
        self._peer = ""
        self._lingers = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._peer = self.client[0] if self.client else ""
        self.peers[self._peer] += 1
        if self.peers[self._peer] > self.limits.connections_per_peer:
            self._lingers = self.peers[self._peer] <= 2 * self.limits.connections_per_peer
            self.refuse(Problem(503, "too many connections from this address", code="too_many_connections"))
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self.peers[self._peer] -= 1
        if not self.peers[self._peer]:
            del self.peers[self._peer]
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing() or self._lingers:
            return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._await_head()
        elif self.conn.their_state is not h11.IDLE:
            self._head_came()

    def _should_upgrade(self) -> bool:
        return False

    def send_400_response(self, msg: str) -> None:
        self.refuse(Problem(400, "this is no valid HTTP request", code="invalid_http"))

    def refuse(self, problem: Problem) -> None:
        """Answer what never became a request, or cut a connection whose answer has begun."""
        self._head_came()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [("content-type", "application/json"), ("content-length", str(len(problem.body())))]
            headers += [("connection", "close"), *problem.headers.items()]
            reason = STATUS_PHRASES[problem.status]
            head = h11.Response(status_code=problem.status, headers=headers, reason=reason)
            for event in (head, h11.Data(data=problem.body()), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if self._lingers:  # to close on a request that is under way takes the answer from the client
            self.transport.write_eof()
            self.loop.call_later(LINGER_S, self.transport.close)
        else:
            self.transport.close()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.header_s, self._head_late)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.refuse(Problem(408, "the head of the request did not come in time", code="head_timeout"))


def protocol(limits: Limits) -> type[GuardedProtocol]:
    return type("ServedProtocol", (GuardedProtocol,), {"limits": limits, "peers": Counter()})
