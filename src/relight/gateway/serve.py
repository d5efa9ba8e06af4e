"""The server: listens, and ends in order when it is told to."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from relight.errors import ConfigError
from relight.gateway.app import GatewayApp
from relight.gateway.problem import LATEST_S
from relight.gateway.protocol import protocol
from relight.gateway.settings import GatewaySettings

log = logging.getLogger(__name__)

LAST_S = 2.0
"""For the last words of streams, after `drain_s`."""
KEEP_ALIVE_S = LATEST_S + 15
"""A connection on which a client was told to come again is still there when it does."""
TICK_S = 0.05
DRAIN_TICK_S = 0.2


class Server(uvicorn.Server):
    """At the first order to stop, new work is refused at once; what runs may end within `drain_s`. The second order
    ends it now."""

    def __init__(self, app: GatewayApp, settings: GatewaySettings) -> None:
        self._app, self._settings = app, settings
        config = uvicorn.Config(
            app,
            http=protocol(settings.limits),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=512,
            timeout_keep_alive=KEEP_ALIVE_S,
            h11_max_incomplete_event_size=settings.limits.header_bytes,
            timeout_graceful_shutdown=round(LAST_S),
        )
        super().__init__(config)
        self._drain: asyncio.Task[None] | None = None
        self._now = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """As SIGTERM does; from any thread."""
        self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        self._app.stop()
        if self._drain is None:
            log.info("stopping: %d requests still run", self._app.gateway.running)
            self._drain = asyncio.create_task(self._drained())
        else:
            self._app.hurry()
            self._now.set()

    async def _drained(self) -> None:
        try:
            async with asyncio.timeout(self._settings.drain_s):
                while not self._now.is_set() and await self._app.draining() > 0:  # noqa: ASYNC110
                    await asyncio.sleep(DRAIN_TICK_S)
        except TimeoutError:
            log.info("%d requests are broken off", self._app.gateway.running)
        await self._app.end()
        self.should_exit = True


async def serve(
    app: GatewayApp, settings: GatewaySettings, started: Callable[[Server, int], None] = lambda server, port: None
) -> None:
    """Serve until SIGTERM, SIGINT or `Server.stop`. `started` is called with the port once connections are taken.

    Raises ConfigError when the address cannot be had.
    """
    listener = bound(settings)
    server = Server(app, settings)
    serving = asyncio.create_task(server.serve([listener]))
    while not server.started and not serving.done():  # noqa: ASYNC110
        await asyncio.sleep(TICK_S / 10)
    if server.started:
        started(server, listener.getsockname()[1])
    await serving


def run(app: GatewayApp, settings: GatewaySettings) -> None:
    """`serve` in an event loop of its own."""
    asyncio.run(serve(app, settings))


def bound(settings: GatewaySettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(
        family, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )  # named, or asyncio leaves Nagle's delay on
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"{settings.host}:{settings.port} cannot be listened on: {error.strerror or error}; take another port"
        ) from error
    listener.set_inheritable(False)
    return listener
