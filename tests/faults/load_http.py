"""HTTP/1.1 over asyncio's streams, just enough for many clients in one process: whole answers, and events."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Answer:
    """`seconds` from the request's first byte to the end of the head."""

    status: int
    headers: dict[str, str]
    seconds: float
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def retry_after(self) -> int | None:
        stated = self.headers.get("retry-after")
        return int(stated) if stated is not None else None


class Connection:
    """One connection, opened again where the server closed it. Raises OSError or EOFError when it breaks."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self, *, reset: bool = False) -> None:
        """With `reset` the other side is not told of an end but of a break."""
        if self._streams is not None:
            if reset:
                broken = struct.pack("ii", 1, 0)
                self._streams[1].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, broken)
            self._streams[1].close()
            self._streams = None

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """A whole answer."""
        answer = await self.begin(method, path, body, **headers)
        content = b"".join([chunk async for chunk in self.rest(answer)])
        return Answer(answer.status, answer.headers, answer.seconds, content)

    async def begin(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """The head of an answer; `rest` has its body."""
        if self._streams is not None and self._streams[0].at_eof():
            self.close()
        began = time.perf_counter()
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._streams
        writer.write(encoded(method, path, body, headers))
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            self.close()
            raise
        status, *lines = head.decode("latin-1").rstrip().split("\r\n")
        named = dict(line.lower().split(": ", 1) for line in lines)
        return Answer(int(status.split()[1]), named, time.perf_counter() - began)

    async def rest(self, answer: Answer) -> AsyncGenerator[bytes, None]:
        """Chunks of the body until its end."""
        assert self._streams is not None
        reader = self._streams[0]
        if "transfer-encoding" in answer.headers:
            while size := int(await reader.readline() or b"-1", 16):
                if size < 0:
                    raise EOFError("the answer was cut")
                yield (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        elif length := int(answer.headers.get("content-length", 0)):
            yield await reader.readexactly(length)
        if answer.headers.get("connection") == "close":
            self.close()

    async def events(self, answer: Answer) -> AsyncGenerator[str, None]:
        """The data of server-sent events."""
        text = b""
        async for chunk in self.rest(answer):
            *whole, text = (text + chunk).split(b"\n\n")
            for event in whole:
                for line in event.split(b"\n"):
                    if line.startswith(b"data: "):
                        yield line[6:].decode()


def encoded(method: str, path: str, body: Any, headers: dict[str, str]) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        *(f"{n.replace('_', '-')}: {v}" for n, v in headers.items()),
    ]
    if body is not None:
        lines += ["Content-Type: application/json"]
    if method != "GET":
        lines += [f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content
