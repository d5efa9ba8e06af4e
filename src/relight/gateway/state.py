"""What all requests of one gateway share, and what one request knows of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from relight.gateway.metrics import Metrics
from relight.gateway.node import Node
from relight.gateway.problem import Problem, invalid
from relight.gateway.settings import GatewaySettings
from relight.gateway.waiting import Holds, Shared

Answer = Callable[[Scope, Receive, Send], Awaitable[None]]
"""What a handler returns: an ASGI application of one answer."""


@dataclass
class Gateway:
    """`stopping` refuses new work; `ending` breaks off what still waits or streams."""

    node: Node
    settings: GatewaySettings
    metrics: Metrics
    holds: Holds
    shared: Shared[Any]
    stopping: bool = False
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0
    description: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, node: Node, settings: GatewaySettings) -> Gateway:
        return cls(node, settings, Metrics(node), Holds(node, settings.remember_s), Shared(settings.remember_s))


@dataclass
class Call:
    """One request, let in: whose it is, and what identifies its repetition."""

    gateway: Gateway
    request: Request
    owner: str
    id: str
    digest: bytes = b""

    def identify(self, *parts: bytes) -> None:
        """Take note of what was asked: the path without `/v1`, and the parts of the body."""
        hashed = blake2b(self.request.url.path.removeprefix("/v1").encode(), digest_size=16)
        for part in parts:
            hashed.update(len(part).to_bytes(8) + part)
        self.digest = hashed.digest()

    @property
    def repeated(self) -> bool:
        """An official client sends this request again, because it got no answer to the one before."""
        count = self.request.headers.get("x-stainless-retry-count", "0")
        return count.isascii() and count.isdigit() and int(count[:4]) > 0

    @property
    def key(self) -> str | None:
        """The client's idempotency key. Raises Problem for one that is too long or not printable."""
        key = self.request.headers.get("idempotency-key")
        if key is not None and not (1 <= len(key) <= 255 and key.isascii() and key.isprintable()):
            raise invalid("Idempotency-Key", "1 to 255 printable ASCII characters")
        return key

    def timed_out_after(self, seconds: float) -> bool:
        """Whether a client that is gone after so many seconds most likely only stopped waiting and asks again."""
        limit = self.request.headers.get("x-stainless-read-timeout", "")
        return limit.replace(".", "", 1).isdecimal() and seconds >= 0.9 * float(limit[:9])

    def admit(self) -> None:
        """Raises Problem while the gateway stops or the node takes no new work."""
        if self.gateway.stopping:
            raise stopping_problem()
        ready = self.gateway.node.ready()
        if not ready.ok:
            message = f"not ready: {ready.reason}" if ready.reason else "not ready"
            raise Problem(503, message, code="not_ready", retry_after_s=ready.retry_after_s)


def stopping_problem() -> Problem:
    return Problem(503, "the server is stopping; come again when it is back", code="stopping", retry_after_s=10)
