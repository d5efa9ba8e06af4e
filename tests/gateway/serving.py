"""The gateway on loopback in a thread of its own, as clients meet it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gateway.fake_node import FakeNode
from relight.gateway.app import GatewayApp, make_app
from relight.gateway.serve import Server, serve
from relight.gateway.settings import GatewaySettings

DEADLINE_S = 20.0


@dataclass
class Served:
    """A running gateway. `do` runs a coroutine in its event loop."""

    node: FakeNode
    app: GatewayApp
    server: Server
    port: int
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def do[T](self, work: Callable[[], T]) -> T:
        async def done() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(done(), self.loop).result(DEADLINE_S)

    def until(self, condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
        """Wait in the gateway's loop until the condition holds."""

        async def waited() -> None:
            async with asyncio.timeout(deadline_s):
                while not condition():  # noqa: ASYNC110
                    await asyncio.sleep(0.002)

        try:
            asyncio.run_coroutine_threadsafe(waited(), self.loop).result(deadline_s + 5)
        except TimeoutError:
            raise AssertionError(f"not within {deadline_s} s: {what}") from None

    def idle(self) -> bool:
        gateway = self.app.gateway
        nobody = not (self.node.talking or self.node.watching or self.node.running())
        return nobody and not len(gateway.holds) and not len(gateway.shared) and not gateway.running

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()


@contextmanager
def serving(node: FakeNode | None = None, **settings: Any) -> Iterator[Served]:
    chosen = GatewaySettings(port=0, **{"drain_s": 5.0, **settings})
    node = node or FakeNode()
    box: list[Served] = []
    ready = threading.Event()

    def main() -> None:
        app = make_app(node, chosen)

        async def running() -> None:
            def started(server: Server, port: int) -> None:
                box.append(Served(node, app, server, port, asyncio.get_running_loop(), threading.current_thread()))
                ready.set()

            await serve(app, chosen, started)

        asyncio.run(running())

    thread = threading.Thread(target=main, name="gateway")
    thread.start()
    assert ready.wait(DEADLINE_S)
    try:
        yield box[0]
    finally:
        if thread.is_alive():
            box[0].server.stop()
            box[0].server.stop()
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "the gateway did not end"
