"""Slow work: kept alive, joined by its repetition, ended when nobody waits, and in order when the server stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from gateway.fake_node import FakeNode
from gateway.serving import Served, serving
from relight.gateway.node import Check, Health, JobError, Ready
from relight.gateway.settings import Limits

CHAT = {"model": "talker", "messages": [{"role": "user", "content": "one two three"}]}
IMAGE = {"model": "painter", "prompt": "x", "steps": 3}
RETRY = {"x-stainless-retry-count": "1"}


@pytest.fixture
def held() -> Iterator[Served]:
    """A gateway whose node stops in its second step until `release`; short pauses."""
    with serving(patience_s=0.05, ping_s=0.05, drain_s=1.0, health_every_s=0.0) as served:
        served.node.hold = served.do(asyncio.Event)
        try:
            yield served
        finally:
            release(served)


def release(served: Served) -> None:
    assert served.node.hold is not None
    if served.thread.is_alive():
        served.do(served.node.hold.set)


def raw(served: Served, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> socket.socket:
    """A request sent, and its connection."""
    content = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(content)}", *(f"{name}: {value}" for name, value in (headers or {}).items())]
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=10)
    connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
    return connection


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    read = b""
    while mark not in read:
        chunk = connection.recv(65536)
        assert chunk, f"ended without {mark!r}: {read[-500:]!r}"
        read += chunk
    return read


def in_thread(work: Any) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def test_a_long_json_answer_is_kept_alive_by_spaces(held: Served) -> None:
    connection = raw(held, "/v1/chat/completions", CHAT)
    started = read_until(connection, b"\r\n1\r\n \r\n1\r\n \r\n")
    assert started.startswith(b"HTTP/1.1 200")
    release(held)
    assert b'"content":"one two three"' in read_until(connection, b"\r\n0\r\n\r\n")
    connection.close()


def test_the_official_client_reads_a_long_answer(held: Served) -> None:
    with OpenAI(base_url=held.url, api_key="x", max_retries=0, timeout=10) as client:
        thread, results = in_thread(lambda: client.images.generate(model="painter", prompt="x"))
        held.until(lambda: bool(held.node.running()), "a job")
        release(held)
        thread.join(10)
    assert results[0].data[0].b64_json


def test_a_stream_is_kept_alive_by_comments(held: Served) -> None:
    connection = raw(held, "/v1/chat/completions", {**CHAT, "stream": True})
    assert b"data: " in read_until(connection, b": ping\n\n")
    release(held)
    assert b"data: [DONE]\n\n" in read_until(connection, b"\r\n0\r\n\r\n")
    connection.close()


def test_a_late_failure_is_no_whole_answer_and_its_repetition_gets_the_status(held: Served) -> None:
    held.node.job_fails_with = JobError("worker_lost", "the worker ended by signal 9; see /var/lib/relight/log")
    connection = raw(held, "/v1/images/generations", IMAGE)
    read_until(connection, b"\r\n1\r\n \r\n")
    release(held)
    read = b""
    while chunk := connection.recv(65536):
        read += chunk
    connection.close()
    assert b'"code": "worker_lost"' in read and not read.endswith(b"0\r\n\r\n")
    again = httpx2.post(f"{held.url}/v1/images/generations", json=IMAGE, headers=RETRY)
    # json.dumps of the test and of the client differ in spaces, so this one is another request
    assert again.status_code == 500 and held.node.submitted == 2
    content = json.dumps(IMAGE).encode()
    headers = {**RETRY, "Content-Type": "application/json"}
    again = httpx2.post(f"{held.url}/images/generations", content=content, headers=headers)
    assert again.status_code == 500 and again.json()["error"]["code"] == "worker_lost"
    assert "/var/lib" not in again.text
    assert held.node.submitted == 2, "the repetition was answered from what is known"


def test_the_official_client_learns_of_a_late_failure(held: Served) -> None:
    held.node.job_fails_with = JobError("worker_lost", "the worker ended")
    with OpenAI(base_url=held.url, api_key="x", max_retries=1) as client:
        thread, results = in_thread(lambda: client.images.generate(model="painter", prompt="x"))
        held.until(lambda: bool(held.node.watching), "a waiting client")
        held.until(lambda: held.app.gateway.running == 1, "the answer's begin")
        threading.Event().wait(0.2)  # past the patience, so that the answer has begun
        release(held)
        thread.join(10)
    assert isinstance(results[0], openai.InternalServerError)
    assert results[0].code == "worker_lost" and held.node.submitted == 1


def test_a_repeated_request_joins_the_one_in_the_works(held: Served) -> None:
    asked = (("/images/generations", IMAGE), ("/chat/completions", CHAT))
    first = [raw(held, f"/v1{path}", body) for path, body in asked]
    held.until(lambda: held.node.watching == 1 and held.node.talking == 1, "work")
    second = [raw(held, path, body, RETRY) for path, body in asked]
    held.until(lambda: held.node.watching == 2 and held.app.gateway.running == 4, "two who wait")
    for connection in first:
        connection.close()
    held.until(lambda: held.app.gateway.running == 2, "the first ones' leaving")
    release(held)
    for connection in second:
        assert b"HTTP/1.1 200" in read_until(connection, b"\r\n\r\n")
        connection.close()
    assert held.node.submitted == 1
    assert sum(ask.__class__.__name__ == "ChatAsk" for ask in held.node.asked) == 1


def test_the_same_request_without_a_retry_count_is_work_of_its_own(held: Served) -> None:
    connections = [raw(held, "/v1/images/generations", IMAGE) for _ in range(2)]
    held.until(lambda: held.node.submitted == 2, "two jobs")
    for connection in connections:
        connection.close()
    held.until(held.idle, "nothing left")


def test_whoever_leaves_ends_what_nobody_else_waits_for(held: Served) -> None:
    bodies = (
        ("/v1/images/generations", IMAGE),
        ("/v1/images/generations", {**IMAGE, "stream": True}),
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", {**CHAT, "stream": True}),
        ("/v1/completions", {"prompt": ["a b", "c d"]}),
        ("/v1/completions", {"prompt": "a b", "stream": True}),
    )
    connections = [raw(held, path, body) for path, body in bodies]
    held.until(lambda: len(held.node.running()) == 2 and held.node.talking == 5, "work")
    for connection in connections:
        connection.close()
    held.until(held.idle, "nothing left", 2.0)
    assert {each.view.state for each in held.node.jobs_by_id.values()} == {"cancelled"}


def test_a_request_repeated_after_its_end_is_worked_on_again(held: Served) -> None:
    for path, body in (("/v1/images/generations", IMAGE), ("/v1/chat/completions", CHAT)):
        connection = raw(held, path, body)
        held.until(lambda: bool(held.node.watching or held.node.talking), "work")
        connection.close()
        held.until(held.idle, "the work's end")
        release(held)
        headers = {**RETRY, "Content-Type": "application/json"}
        answer = httpx2.post(held.url + path, content=json.dumps(body).encode(), headers=headers)
        assert answer.status_code == 200, answer.text
        held.node.hold = held.do(asyncio.Event)


def test_a_client_that_reads_nothing_has_left() -> None:
    node = FakeNode()
    with serving(node, limits=Limits(write_s=0.2)) as served:
        said = {"messages": [{"role": "user", "content": "word " * 100_000}], "stream": True}
        with raw(served, "/v1/chat/completions", said):
            served.until(lambda: node.talking == 1, "a chat")
            served.until(served.idle, "its end")


def test_a_submitted_job_goes_on_without_those_who_watch(held: Served) -> None:
    job = httpx2.post(f"{held.url}/api/jobs", json={"request": {"prompt": "x"}}).json()["id"]
    connection = socket.create_connection(("127.0.0.1", held.port))
    connection.sendall(f"GET /api/jobs/{job}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    read_until(connection, b"event: job\n")
    connection.close()
    held.until(lambda: not held.app.gateway.running and not held.node.watching, "the leaving")
    release(held)
    held.until(lambda: held.node.jobs_by_id[job].view.state == "finished", "the job's end")


def test_work_with_a_key_of_its_own_goes_on_and_is_there_later(held: Served) -> None:
    key = {"Idempotency-Key": "k-1"}
    raw(held, "/v1/images/generations", IMAGE, key).close()
    held.until(lambda: held.node.submitted == 1 and not held.app.gateway.running, "a job left alone")
    release(held)
    headers = {**key, "Content-Type": "application/json"}
    answer = httpx2.post(f"{held.url}/v1/images/generations", content=json.dumps(IMAGE).encode(), headers=headers)
    assert answer.status_code == 200 and held.node.submitted == 1
    other = httpx2.post(f"{held.url}/v1/images/generations", json={**IMAGE, "steps": 2}, headers=key)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")


def test_a_key_joins_chats_and_refuses_other_ones(held: Served) -> None:
    key = {"Idempotency-Key": "k-2"}
    connection = raw(held, "/v1/chat/completions", CHAT, key)
    held.until(lambda: held.node.talking == 1, "a chat")
    other = httpx2.post(f"{held.url}/v1/chat/completions", json={**CHAT, "seed": 1}, headers=key)
    assert other.status_code == 422
    release(held)
    read_until(connection, b"one two three")
    connection.close()


def test_events_tell_a_job_from_its_queue_to_its_end_and_again_only_what_is_new(held: Served) -> None:
    asked = {"prompt": "x", "steps": 2, "preview_every": 1}
    job = httpx2.post(f"{held.url}/api/jobs", json={"request": asked}).json()
    assert (job["state"], job["position"]) == ("queued", 0)
    release(held)
    with httpx2.stream("GET", f"{held.url}/api/jobs/{job['id']}/events") as answer:
        blocks = [block for block in answer.read().decode().split("\n\n") if block]
    events = [json.loads(block.partition("data: ")[2]) for block in blocks]
    assert events[-1]["state"] == "finished"
    shown = [event["preview"] for event in events if event["preview"]]
    assert all(each.startswith("data:image/png;base64,") for each in shown)
    last = blocks[-1].partition("id: ")[2].split("\n")[0]
    again = httpx2.get(f"{held.url}/api/jobs/{job['id']}/events", headers={"Last-Event-ID": last})
    assert again.status_code == 200 and again.text == ""


def test_cancelling_ends_the_wait_with_a_status_nobody_repeats(held: Served) -> None:
    connection = raw(held, "/v1/images/generations", {**IMAGE, "stream": True})
    read_until(connection, b": ping\n\n")
    (job,) = held.node.running()
    assert httpx2.delete(f"{held.url}/api/jobs/{job.view.id}").json()["state"] == "cancelled"
    assert b'"code":"cancelled"' in read_until(connection, b"\r\n0\r\n\r\n")
    connection.close()


def test_stopping_refuses_new_work_at_once_and_ends_streams_with_an_error(held: Served) -> None:
    stream = raw(held, "/v1/chat/completions", {**CHAT, "stream": True})
    image = raw(held, "/v1/images/generations", {**IMAGE, "stream": True})
    whole = raw(held, "/v1/chat/completions", CHAT)
    read_until(stream, b"data: ")
    held.until(lambda: held.node.watching == 1 and held.node.talking == 2, "waiting clients")
    held.server.stop()
    held.until(lambda: held.app.gateway.stopping, "stopping", 0.1)
    for method, path, body in (("GET", "/readyz", None), ("POST", "/v1/chat/completions", CHAT)):
        answer = httpx2.request(method, held.url + path, json=body)
        assert answer.status_code == 503 and 1 <= int(answer.headers["Retry-After"]) <= 120
    held.thread.join(5)
    assert not held.thread.is_alive()
    assert b'"code":"stopping"' in read_until(stream, b"\r\n0\r\n\r\n")
    assert b'"code":"stopping"' in read_until(image, b"\r\n0\r\n\r\n")
    assert [each.view.state for each in held.node.jobs_by_id.values()] == ["running"], "jobs are durable and go on"
    assert b'"code": "stopping"' in read_until(whole, b"}}")
    for connection in (stream, image, whole):
        connection.close()


def test_what_ends_in_time_is_answered_while_stopping(held: Served) -> None:
    connection = raw(held, "/v1/chat/completions", CHAT)
    held.until(lambda: held.node.talking == 1, "a chat")
    held.server.stop()
    held.until(lambda: held.app.gateway.stopping, "stopping")
    release(held)
    assert b"one two three" in read_until(connection, b"one two three")
    connection.close()
    held.thread.join(5)
    assert not held.thread.is_alive()


def test_who_waits_for_what_is_not_begun_any_more_does_not_hold_the_stop_up() -> None:
    with serving(FakeNode(step_s=60.0), drain_s=60.0) as served, raw(served, "/v1/images/generations", IMAGE) as image:
        served.until(lambda: bool(served.app.gateway.holds.jobs()), "waited for")
        assert 0 < served.app.drain_left() <= 60
        served.stop()
        assert b'"code": "stopping"' in read_until(image, b"}}")


def test_a_second_order_to_stop_does_not_wait(held: Served) -> None:
    with raw(held, "/v1/chat/completions", CHAT) as chat:
        held.until(lambda: held.node.talking == 1, "the chat")
        held.server.stop()
        held.until(lambda: held.app.gateway.stopping, "stopping")
        held.stop()
        assert held.app.drain_left() == 0
        assert b"stopping" in read_until(chat, b"}}")


def test_health_is_asked_of_the_node_once_for_all_and_shows_no_detail(held: Served) -> None:
    assert httpx2.get(f"{held.url}/healthz").json()["status"] == "ok"
    held.node.health_now = Health((Check("vulkan0", True), Check("cpu", False, 1.0, "canary detail")))
    answer = httpx2.get(f"{held.url}/healthz")
    assert answer.status_code == 503 and "canary" not in answer.text
    assert [check["ok"] for check in answer.json()["checks"]] == [True, False]


def test_health_that_hangs_has_failed() -> None:
    with serving(FakeNode(step_s=30), health_s=0.1) as served:
        assert httpx2.get(f"{served.url}/healthz").status_code == 503


def test_a_node_that_is_not_ready_says_when(held: Served) -> None:
    held.node.ready_now = Ready(False, "models load", 400)
    for method, path, body in (("GET", "/readyz", None), ("POST", "/v1/images/generations", IMAGE)):
        answer = httpx2.request(method, held.url + path, json=body)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "120")
        assert "models load" in answer.json()["error"]["message"]


def test_a_head_and_a_body_that_do_not_come_are_not_waited_for() -> None:
    with serving(limits=Limits(header_s=0.1, body_s=0.1)) as served:
        for sent in (b"", b"GET /readyz HTTP/1.1\r\nHost: loc"):
            with socket.create_connection(("127.0.0.1", served.port), timeout=5) as connection:
                connection.sendall(sent)
                assert b"HTTP/1.1 408" in read_until(connection, b"head_timeout")
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
            head = "POST /api/plan HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9"
            connection.sendall(head.encode() + b"\r\n\r\n{")
            assert b"HTTP/1.1 408" in read_until(connection, b"body_timeout")


def test_one_address_has_only_so_many_connections() -> None:
    with serving(limits=Limits(connections_per_peer=3)) as served, contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
        with socket.create_connection(("127.0.0.1", served.port), timeout=5) as fourth:
            assert b"HTTP/1.1 503" in read_until(fourth, b"too_many_connections")
