"""The ASGI application: the guard, and behind it the routes."""

from __future__ import annotations

import contextlib
import time

from starlette.requests import Request
from starlette.routing import Route as Routed
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from relight.errors import RelightError
from relight.gateway.guard import Guard
from relight.gateway.node import Node
from relight.gateway.openapi import described
from relight.gateway.problem import Problem
from relight.gateway.routes import ROUTES, Route, paths
from relight.gateway.settings import GatewaySettings
from relight.gateway.state import Call, Gateway


class GatewayApp:
    """`gateway` is what its requests share; `stop` and `end` are the two steps of its end."""

    def __init__(self, node: Node, settings: GatewaySettings) -> None:
        self.gateway = Gateway.of(node, settings)
        self.stopped: float | None = None
        self.gateway.description = described(ROUTES)
        open_paths = frozenset(path for route in ROUTES if route.access == "open" for path in paths(route))
        methods: dict[str, dict[str, Route]] = {}
        for route in ROUTES:
            for path in paths(route):
                methods.setdefault(path, {})[route.method] = route
        routed = [Routed(path, Endpoint(self.gateway, routes)) for path, routes in methods.items()]
        router = Router(routed, redirect_slashes=False, default=nowhere)
        self._guard = Guard(router, self.gateway, open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._guard(scope, receive, send)

    def stop(self) -> None:
        """New work is refused and the node is no longer ready; what runs goes on, what waits is not begun."""
        if self.stopped is None:
            self.stopped = time.monotonic()
            self.gateway.stopping = True
            self.gateway.node.drain()

    def hurry(self) -> None:
        """What runs may not go on any more."""
        self.stopped = float("-inf")

    def drain_left(self) -> float:
        """Seconds that what runs may still go on."""
        since = 0.0 if self.stopped is None else time.monotonic() - self.stopped
        return max(0.0, self.gateway.settings.drain_s - since)

    async def draining(self) -> int:
        """How many requests wait for something that still goes on: what waits in the queue stays there."""
        holds, node = self.gateway.holds, self.gateway.node
        in_vain = 0
        for job_id in holds.jobs():
            with contextlib.suppress(RelightError):
                in_vain += holds.clients(job_id) if (await node.job(job_id)).state == "queued" else 0
        return self.gateway.running - in_vain

    async def end(self) -> None:
        """What still runs ends with an error that says so; durable jobs are the node's and go on."""
        self.stop()
        self.gateway.holds.leave_all()
        self.gateway.ending.set()
        await self.gateway.shared.close()


def make_app(node: Node, settings: GatewaySettings) -> GatewayApp:
    return GatewayApp(node, settings)


class Endpoint:
    """The routes of one path, by method."""

    def __init__(self, gateway: Gateway, routes: dict[str, Route]) -> None:
        self._gateway, self._routes = gateway, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        route = self._routes.get(method)
        if route is None:
            allowed = [*self._routes, *(["HEAD"] if "GET" in self._routes else [])]
            message = f"this route takes {', '.join(allowed)}"
            raise Problem(405, message, code="method_not_allowed", headers={"Allow": ", ".join(allowed)})
        scope["relight.route"] = route.path
        call = Call(self._gateway, Request(scope, receive), scope["relight.owner"], scope["relight.id"])
        answer = await route.handler(call)
        await answer(scope, receive, send)


async def nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    raise Problem(404, "there is no such route; GET /openapi.json lists all there are", code="route_not_found")
