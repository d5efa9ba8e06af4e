"""What strangers send: hostile requests, generated ones, clients that leave, and secrets that must not be seen again.

Counts by environment: RELIGHT_FAULTS_HOSTILE, _GENERATED, _DISCONNECTS.
"""

from __future__ import annotations

import collections
import json
import logging
import random
import re
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from faults.http_corpus import KINDS, Hostile, corpus
from faults.http_schema import Described, described_operations, request_of
from gateway.fake_node import FakeNode, picture
from gateway.serving import Served, serving
from relight.gateway.keys import HashedKey, Keys
from relight.gateway.openapi import ERRORS
from relight.gateway.settings import Limits

Count = Callable[[str, int], int]
Figure = Callable[[str], None]

SLOWEST_S = 0.1
LARGEST_GROWTH = 32 << 20
IN_VAIN = {"mutated"}
"""Kinds that may turn out to be fine requests."""


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(limits=Limits(body_s=0.3, header_s=0.3)) as running:
        yield running


def wrong(hostile: Hostile, status: str, body: bytes) -> str | None:
    """What is not as it should be with an answer."""
    if hostile.kind not in IN_VAIN and not "400" <= status < "500":
        return f"no refusal but {status}"
    if "500" <= status <= "599":
        return "broken"
    if "400" <= status < "500" and body and set(json.loads(body)["error"]) != {"message", "type", "param", "code"}:
        return "another shape"
    return None


def exchanged(port: int, request: bytes) -> bytes:
    """The first answer on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        read = b""
        try:
            connection.sendall(request)
        except OSError:
            pass  # it has heard enough
        try:
            while not whole(read) and (chunk := connection.recv(65536)):
                read += chunk
        except ConnectionResetError:
            pass
        return read[: length(read)]


def whole(answer: bytes) -> bool:
    return (size := length(answer)) is not None and len(answer) >= size


def length(answer: bytes) -> int | None:
    """Of the first answer, its head with it; None for one that only the connection's end ends."""
    head, end, _ = answer.partition(b"\r\n\r\n")
    stated = re.search(rb"content-length: (\d+)", head)
    return len(head) + len(end) + int(stated[1]) if stated and end else None


def test_hostile_requests_are_refused_in_words(served: Served, count: Count, figure: Figure) -> None:
    requests = corpus(count("HOSTILE", 600))
    exchanged(served.port, requests[0].request)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    began, statuses, slowest = time.monotonic(), collections.Counter[str](), 0.0
    failures: list[str] = []
    for hostile in requests:
        start = time.perf_counter()
        answer = exchanged(served.port, hostile.request)
        took = time.perf_counter() - start
        status = answer[9:12].decode() or "cut"
        statuses[status] += 1
        if why := wrong(hostile, status, answer.partition(b"\r\n\r\n")[2]):
            failures.append(f"{why}: {hostile.kind}: {hostile.request[:300]!r} -> {answer[:600]!r}")
        if status != "408":
            slowest = max(slowest, took)
    assert failures == []
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before
    served.until(served.idle, "nothing left of them")
    assert httpx2.get(f"{served.url}/healthz").status_code == 200
    kinds = collections.Counter(each.kind for each in requests)
    if len(requests) >= 600:
        assert all(kinds[kind] >= 5 for kind in KINDS)
    figure(
        f"R9: {len(requests)} hostile requests of {len(kinds)} kinds in {time.monotonic() - began:.1f} s: "
        f"{dict(sorted(statuses.items()))}, slowest {slowest * 1e3:.0f} ms, memory +{growth >> 20} MiB"
    )
    assert growth <= LARGEST_GROWTH
    assert slowest <= SLOWEST_S * 5  # the machine is shared; the figure is what counts


def test_generated_requests_never_break_the_server(served: Served, count: Count, figure: Figure) -> None:
    cases = count("GENERATED", 2000)
    statuses: collections.Counter[int] = collections.Counter()
    operations = described_operations(httpx2.get(f"{served.url}/openapi.json").json())
    began = time.monotonic()
    with httpx2.Client(base_url=served.url, timeout=30) as client:

        @settings(
            max_examples=cases,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def ask(data: st.DataObject) -> None:
            operation: Described = data.draw(st.sampled_from(operations))
            answer = client.send(client.build_request(**request_of(operation, data)))
            statuses[answer.status_code] += 1
            assert answer.status_code == operation.success or answer.status_code in ERRORS
            assert answer.status_code < 500, (operation, answer.text)
            if answer.status_code >= 400:
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
            else:
                kind = answer.headers.get("content-type", "").partition(";")[0]
                assert kind in operation.gives

        ask()
    served.until(lambda: not served.app.gateway.running, "the last answer")
    assert any(status < 300 for status in statuses) and statuses[400]
    took = time.monotonic() - began
    figure(f"R10: {sum(statuses.values())} generated requests in {took:.1f} s: {dict(sorted(statuses.items()))}")


ASKED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a b c d e f"}]}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a b c d e f"}], "stream": True}),
    ("/v1/completions", {"prompt": ["a b c", "d e f"]}),
    ("/v1/completions", {"prompt": "a b c d e f", "stream": True}),
    ("/v1/images/generations", {"prompt": "x", "steps": 6}),
    ("/v1/images/generations", {"prompt": "x", "steps": 6, "stream": True, "partial_images": 2}),
    ("/v1/embeddings", {"input": ["a", "b"]}),
)


def test_clients_that_leave_at_any_moment_leave_nothing(count: Count, figure: Figure) -> None:
    leaving, lot = count("DISCONNECTS", 1000), random.Random(13)
    node = FakeNode(step_s=0.002)
    began, slowest = time.monotonic(), 0.0
    with serving(node) as served:
        for batch in range(0, leaving, 20):
            connections = [leave_some(served.port, lot) for _ in range(min(20, leaving - batch))]
            for connection in lot.sample(connections, len(connections)):
                threading_pause(lot)
                connection.close()
            left = time.monotonic()
            served.until(served.idle, "nothing left", 2.0)
            slowest = max(slowest, time.monotonic() - left)
        states = collections.Counter(each.view.state for each in node.jobs_by_id.values())
        assert httpx2.get(f"{served.url}/readyz").status_code == 200
    assert states["cancelled"] > 0 and set(states) <= {"cancelled", "finished"}
    took = time.monotonic() - began
    figure(
        f"R13: {leaving} disconnects in {took:.1f} s, all work gone after at most {slowest:.2f} s, jobs {dict(states)}"
    )


def leave_some(port: int, lot: random.Random) -> socket.socket:
    """A connection with a whole request, or the first part of one; half of them will be reset instead of closed."""
    path, body = lot.choice(ASKED)
    content = json.dumps({**body, "seed": lot.randrange(1000)}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    )
    request = head.encode() + b"\r\n\r\n" + content
    connection = socket.create_connection(("127.0.0.1", port))
    if lot.random() < 0.5:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.sendall(request[: lot.randrange(1, len(request))] if lot.random() < 0.2 else request)
    return connection


def threading_pause(lot: random.Random) -> None:
    """Up to a step of the fake node."""
    deadline = time.perf_counter() + lot.random() * 0.002
    while time.perf_counter() < deadline:
        pass


def test_secrets_are_seen_in_no_log_metric_or_error(caplog: pytest.LogCaptureFixture, figure: Figure) -> None:
    caplog.set_level(logging.INFO)
    canary = "canary-7f3a"
    key = f"rl-{canary}-0123456789abcdef"
    node = FakeNode()
    answers: list[str] = []
    with serving(node, keys=Keys([HashedKey.of("ann", key)])) as served:
        with httpx2.Client(base_url=served.url, headers={"Authorization": f"Bearer {key}"}) as client:
            for failure in (None, RuntimeError(f"tokenizer broke at '{canary}'"), ValueError(canary)):
                node.fails_with = failure
                answers += [each.text for each in secret_requests(client, canary)]
            answers.append(client.get("/metrics").text)
            answers.append(httpx2.get(f"{served.url}/v1/models", headers={"X-Api-Key": f"{key}x"}).text)
        served.until(served.idle, "the last line of the log")
    logged = "\n".join(
        caplog.handler.format(each) for each in caplog.records if not each.name.startswith(("httpx", "httpcore"))
    )
    assert "unexpected RuntimeError" in logged and "relight_http_requests_total" in answers[-2]
    assert canary not in logged
    assert [answer for answer in answers if canary in answer] == []
    figure(f"R20: {len(answers)} answers and {len(logged.splitlines())} lines of log without a secret")


def secret_requests(client: httpx2.Client, canary: str) -> Iterator[httpx2.Response]:
    """Prompts, names of files, of fields and of models, wrong in all ways, and right where the answer does not repeat
    the prompt."""
    for body in (
        {"prompt": canary, "n": 99},
        {"prompt": canary, "model": canary},
        {"prompt": canary, "size": canary},
        {"prompt": canary, "sampler": canary * 30},
        {"prompt": canary},
    ):
        yield client.post("/v1/images/generations", json=body)
    message = {"role": "user", "content": canary}
    tool = {"type": "function", "function": {"name": f"{canary} {canary}"}}
    wrong: tuple[dict[str, Any], ...] = ({"tools": [tool]}, {"stop": [""], "x": canary}, {"response_format": canary})
    for extra in wrong:
        yield client.post("/v1/chat/completions", json={"messages": [message], **extra})
    files = {"image": (f"{canary}.png", b"broken")}
    yield client.post("/v1/images/edits", data={"prompt": canary}, files=files)
    yield client.post("/v1/images/edits", data={"prompt": canary}, files={canary: (canary, picture())})
    yield client.post("/api/jobs", json={"request": {"prompt": "x"}, "inputs": {canary.upper(): canary}})
    yield client.post("/api/jobs", json={"request": {"prompt": canary, canary: 1}})
    yield client.post("/v1/chat/completions", content=canary.encode(), headers={"Content-Type": "application/json"})
    yield client.get(f"/v1/models/{canary}", params={"q": canary})
    yield client.get(f"/{canary}", headers={"Referer": canary, "User-Agent": canary, "Origin": f"http://{canary}"})
    yield client.post("/v1/embeddings", json={"input": canary})
