"""What the gateway adds to a request: time over a node that answers at once, and the share of a stream's token rate.

`python benchmarks/gateway_overhead.py [--requests N] [--tokens N] [--rate TOKENS_PER_S]`; a JSON line for each figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import httpx2

from gateway.fake_node import FakeNode
from gateway.serving import Served, serving
from relight.gateway.keys import HashedKey, Keys
from relight.gateway.node import ChatAsk, ChatPiece, Usage

KEY = "rl-0123456789abcdef0123456789abcdef"
WARM = 50


class Speaking(FakeNode):
    """Says so many tokens at a steady rate; each is due at its time, so that no sleep's lateness adds up."""

    tokens = 500
    rate = 0.0
    took = 0.0

    async def chat(self, ask: ChatAsk) -> AsyncGenerator[ChatPiece, None]:
        began = time.perf_counter()
        for i in range(self.tokens):
            if self.rate and (early := began + i / self.rate - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            yield ChatPiece(text=" word")
        self.took = time.perf_counter() - began
        yield ChatPiece(finish="stop", usage=Usage(1, self.tokens))


def requests(
    served: Served, client: httpx2.Client, method: str, path: str, count: int, body: Any = None
) -> dict[str, float]:
    """Client and server share a process: `cpu_ms` of the server's thread alone is what a request costs it."""
    took = []
    cpu = 0.0
    for i in range(count + WARM):
        if i == WARM:
            cpu = served.do(time.thread_time)
        start = time.perf_counter()
        client.request(method, path, json=body).raise_for_status()
        if i >= WARM:
            took.append((time.perf_counter() - start) * 1e3)
    took.sort()
    cpu = (served.do(time.thread_time) - cpu) / count * 1e3
    return {
        "cpu_ms": round(cpu, 2),
        "median_ms": round(statistics.median(took), 2),
        "p99_ms": round(took[int(len(took) * 0.99)], 2),
    }


def bare(count: int) -> dict[str, float]:
    """The same client and server with an application that does nothing: what is not the gateway's."""

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})

    with serving() as served:
        served.server.config.loaded_app = nothing
        with httpx2.Client(base_url=served.url) as client:
            return requests(served, client, "POST", "/", count, {"a": "b"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--rate", type=float, default=100.0)
    options = parser.parse_args()

    print(json.dumps({"figure": "no gateway", "requests": options.requests, **bare(options.requests)}), flush=True)
    node = Speaking()
    chat = {"model": "talker", "messages": [{"role": "user", "content": "x" * 2000}]}
    with serving(node, keys=Keys([HashedKey.of("bench", KEY)])) as served:
        with httpx2.Client(base_url=served.url, headers={"Authorization": f"Bearer {KEY}"}) as client:
            node.tokens = 1
            for name, method, path, body in (
                ("models", "GET", "/v1/models", None),
                ("chat of one token", "POST", "/v1/chat/completions", chat),
                ("streamed chat of one token", "POST", "/v1/chat/completions", {**chat, "stream": True}),
                ("submit a job", "POST", "/api/jobs", {"request": {"prompt": "x", "steps": 1}}),
                ("embedding", "POST", "/v1/embeddings", {"input": "x"}),
            ):
                figures = requests(served, client, method, path, options.requests, body)
                print(json.dumps({"figure": name, "requests": options.requests, **figures}), flush=True)
            node.tokens = options.tokens
            for rate in (options.rate, 0.0):
                node.rate = rate
                began = time.perf_counter()
                client.post("/v1/chat/completions", json={**chat, "stream": True}).raise_for_status()
                took = time.perf_counter() - began
                wanted = options.tokens / rate if rate else 0.0
                figures = {"tokens": options.tokens, "asked_per_s": rate, "per_s": round(options.tokens / took, 1)}
                share = {"lost_percent": round((took / wanted - 1) * 100, 2)} if wanted else {}
                print(json.dumps({"figure": "stream", **figures, **share}), flush=True)


if __name__ == "__main__":
    main()
