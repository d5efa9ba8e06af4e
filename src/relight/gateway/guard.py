"""Who is let in: the outermost layer, for every route and for what is none. It looks at the raw request and passes
nothing on that it has not judged."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import secrets
import time
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relight.gateway.problem import Problem
from relight.gateway.reply import ClientGone, as_problem, refusal
from relight.gateway.state import Gateway

log = logging.getLogger("relight.gateway.access")

NOBODY = "local"
"""Whose the requests are while there are no keys."""
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
PORT = re.compile(r"(.*?)(?::(\d{1,5}))?", re.DOTALL)
SAFE_TARGET = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*")
SAFE_METHODS = ("GET", "HEAD")
DRAINED_BYTES = 4 << 20
DRAINED_S = 3.0
SHIELDS = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Guard:
    """Host, Origin, key, number at once; request ids, the access log and the last catch."""

    def __init__(self, app: ASGIApp, gateway: Gateway, open_paths: frozenset[str]) -> None:
        self._app, self._gateway, self._open_paths = app, gateway, open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no sockets, no lifespan
        answer = Watched(scope, send, self._gateway)
        incoming = Incoming(scope, receive)
        self._gateway.running += 1
        self._gateway.metrics.running.inc()
        try:
            await self._answered(scope, incoming, answer)
        finally:
            self._gateway.running -= 1
            self._gateway.metrics.running.dec()
            answer.log()

    async def _answered(self, scope: Scope, incoming: Incoming, answer: Watched) -> None:
        try:
            headers = Headers(scope=scope)
            if (preflight := self._admit(scope, headers, answer)) is None:
                await self._app(scope, incoming.receive, answer.send)
                return
            await answer.send({"type": "http.response.start", "status": 204, "headers": preflight})
            await answer.send({"type": "http.response.body", "body": b""})
        except ClientGone:
            return
        except Exception as error:
            if answer.begun:
                as_problem(error)
                return
            problem = as_problem(error)
            if not await incoming.drained():
                problem.headers["Connection"] = "close"
            await refusal(problem)(scope, incoming.receive, answer.send)

    def _admit(self, scope: Scope, headers: Headers, answer: Watched) -> list[tuple[bytes, bytes]] | None:
        """None for a request that may go on; the headers of an answer to a browser that only asks whether it may.

        Raises Problem."""
        settings = self._gateway.settings
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if size + len(scope.get("raw_path", b"")) + len(scope["query_string"]) > settings.limits.header_bytes:
            raise Problem(431, f"more than {settings.limits.header_bytes} bytes of headers", code="headers_too_large")
        if scope["http_version"] not in ("1.0", "1.1"):
            raise Problem(400, "this is no HTTP/1.1", code="invalid_http")
        if not SAFE_TARGET.fullmatch(scope.get("raw_path", b"").decode("latin-1")) or "//" in scope["path"]:
            raise Problem(400, "the path has characters that no route of this server has", code="invalid_path")
        host = check_host(headers, settings.hostnames)
        named = check_origin(scope, headers, host, settings.origins)
        if named:
            answer.origin = named
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                return preflight_headers()
        scope["relight.owner"] = self._owner(scope, headers)
        scope["relight.id"] = answer.id
        if self._gateway.running > settings.limits.at_once and scope["path"] not in self._open_paths:
            raise Problem(503, "too many requests at once", code="too_many_requests", retry_after_s=2)
        return None

    def _owner(self, scope: Scope, headers: Headers) -> str:
        """Raises Problem 401 wherever a key is needed and no valid one came."""
        keys = self._gateway.settings.keys
        if not keys:
            return NOBODY
        scheme, _, presented = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            presented = headers.get("x-api-key", "")
        owner = keys.owner(presented.strip()) if presented else None
        if owner is not None:
            return f"key:{owner}"
        if scope["path"] in self._open_paths and scope["raw_path"].decode("latin-1") == scope["path"]:
            return NOBODY
        how = "this API key is not valid" if presented else "send an API key: Authorization: Bearer KEY"
        raise Problem(401, how, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def check_host(headers: Headers, hostnames: tuple[str, ...]) -> str:
    """The Host header. Raises Problem 421: a name that a stranger gave this address must not lead here."""
    values = headers.getlist("host")
    if len(values) != 1:
        raise Problem(400, "Host: send it once", code="invalid_host")
    match = PORT.fullmatch(values[0])
    name = (match[1] if match else values[0]).lower()
    if name == "localhost" or name in (known.lower() for known in hostnames) or is_address(name):
        return values[0].lower()
    raise Problem(421, "Host: this name is not one of the server's; add it to its hostnames", code="unknown_host")


def is_address(name: str) -> bool:
    """A literal address cannot be made to point elsewhere."""
    try:
        if name.startswith("[") and name.endswith("]"):
            return ipaddress.IPv6Address(name[1:-1]).scope_id is None
        return bool(ipaddress.IPv4Address(name))
    except ValueError:
        return False


def check_origin(scope: Scope, headers: Headers, host: str, origins: tuple[str, ...]) -> str | None:
    """The web page that asks, if it is one of those named. Raises Problem 403 for every other page but our own."""
    given = headers.getlist("origin")
    if given:
        origin = given[0].lower() if len(given) == 1 else "null"
        if origin in (known.lower() for known in origins):
            return given[0]
        if origin == f"{scope['scheme']}://{host}":
            return None
        raise Problem(403, "Origin: this web page may not use the server", code="forbidden_origin")
    site = headers.get("sec-fetch-site", "none")
    followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    if site in ("same-origin", "none") or (followed and scope["method"] in SAFE_METHODS):
        return None
    raise Problem(403, "Sec-Fetch-Site: another web page may not use the server", code="forbidden_origin")


def preflight_headers() -> list[tuple[bytes, bytes]]:
    return [
        (b"access-control-allow-methods", b"GET, POST, DELETE"),
        (b"access-control-allow-headers", b"authorization, content-type, idempotency-key, last-event-id, x-api-key"),
        (b"access-control-max-age", b"600"),
    ]


class Incoming:
    """The way in: knows whether the body has come to its end."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        self._receive = receive
        self._unknown = b"transfer-encoding" in headers
        self._left = int(length[:20]) if length.isdigit() else 0
        self._ended = not self._unknown and self._left == 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._ended = True
        return message

    async def drained(self) -> bool:
        """Read and forget what is left of a body of a few MiB, so that the client gets to read the answer. False where
        too much is left for that."""
        if self._unknown or self._left > DRAINED_BYTES:
            return self._ended
        try:
            async with asyncio.timeout(DRAINED_S):
                while not self._ended:
                    await self.receive()
        except TimeoutError:
            return False
        return True


class Watched:
    """The way out: adds what every answer has, and keeps what the log tells of it."""

    def __init__(self, scope: Scope, send: Send, gateway: Gateway) -> None:
        self._scope, self._send, self._gateway = scope, send, gateway
        self._began = time.perf_counter()
        self.id = request_id(scope)
        self.origin: str | None = None
        self.status = 499
        self.begun = False
        self.size = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun, self.status = True, message["status"]
            headers: list[tuple[bytes, bytes]] = [*message.get("headers", []), *SHIELDS]
            headers.append((b"x-request-id", self.id.encode()))
            if not any(name == b"cache-control" for name, _ in headers):
                headers.append((b"cache-control", b"no-store"))
            if self.origin:
                headers += [(b"access-control-allow-origin", self.origin.encode("latin-1")), (b"vary", b"Origin")]
            message = {**message, "headers": headers}
        else:
            self.size += len(message.get("body", b""))
        try:
            async with asyncio.timeout(self._gateway.settings.limits.write_s):
                await self._send(message)
        except TimeoutError:
            raise ClientGone from None

    def log(self) -> None:
        """No path, query or header of the client's: they may hold anything."""
        seconds = time.perf_counter() - self._began
        route: Any = self._scope.get("relight.route", "-")
        method = self._scope["method"] if self._scope["method"] in METHODS else "-"
        self._gateway.metrics.requests.labels(route, method, str(self.status)).inc()
        self._gateway.metrics.seconds.labels(route).observe(seconds)
        owner = self._scope.get("relight.owner", "-")
        log.info(
            "%s %s %d %.1f ms %d bytes %s %s", method, route, self.status, seconds * 1e3, self.size, owner, self.id
        )


METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH")


def request_id(scope: Scope) -> str:
    """The client's own where it is a plain word, else a new one."""
    given: bytes = dict(scope["headers"]).get(b"x-request-id", b"")
    if REQUEST_ID.fullmatch(text := given.decode("latin-1")):
        return text
    return secrets.token_hex(8)
