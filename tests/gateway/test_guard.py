"""Who is let in, over the whole table of routes: a new route is tested as soon as it stands there."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection

import httpx2
import pytest

from gateway.serving import Served, serving
from relight.gateway.keys import HashedKey, Keys
from relight.gateway.routes import ROUTES, Route, paths

KEY, OTHER = "rl-0123456789abcdef0123456789abcdef", "rl-fedcba9876543210fedcba9876543210"
PAGE = "https://page.example"
OPEN = {"/healthz", "/readyz"}
"""Of all there is, only these may be asked without a key."""
VALUES = {"{model:path}": "painter", "{job}": "job-0", "{index:int}": "0"}
TABLE = [(route, path) for route in ROUTES for path in paths(route)]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
STRANGE_HOSTS = (
    "evil.example",
    "evil.example:8188",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "localhost.",
    "localhost@evil.example",
    "evil.example#localhost",
    "localhost,evil.example",
    "[::1",
    "::1",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "2130706433",
    "127.1",
    "localhost:port",
    "localhost:123456",
    "[fe80::1%25eth0]",
    "",
    "*",
    "%6cocalhost",
)


def path_of(path: str) -> str:
    for template, value in VALUES.items():
        path = path.replace(template, value)
    return path


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    keys = Keys([HashedKey.of("ann", KEY), HashedKey.of("bob", OTHER)])
    with serving(keys=keys, origins=(PAGE,), hostnames=("relight.lan",)) as running:
        yield running


@pytest.fixture
def client(served: Served) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=served.url) as each:
        yield each


def assert_error(answer: httpx2.Response, status: int, code: str | None = None) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert code is None or error["code"] == code


def test_the_open_routes_are_those_that_were_decided() -> None:
    assert {route.path for route in ROUTES if route.access == "open"} == OPEN


@pytest.mark.parametrize(("route", "path"), TABLE, ids=[f"{route.method} {path}" for route, path in TABLE])
def test_every_route_but_health_needs_a_key(client: httpx2.Client, route: Route, path: str) -> None:
    for headers in ({}, {"Authorization": f"Bearer {KEY}x"}, {"X-Api-Key": "x"}, {"Authorization": f"Basic {KEY}"}):
        answer = client.request(route.method, path_of(path), headers=headers)
        if route.access == "open":
            assert answer.status_code == 200
        else:
            assert_error(answer, 401, "invalid_api_key")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer  {KEY}"}, {"X-Api-Key": KEY}):
        assert client.request(route.method, path_of(path), headers=headers).status_code not in (401, 403)


@pytest.mark.parametrize(("route", "path"), TABLE, ids=[f"{route.method} {path}" for route, path in TABLE])
def test_no_other_method_or_spelling_gets_by_the_key(
    client: httpx2.Client, served: Served, route: Route, path: str
) -> None:
    plain = path_of(path)
    for method in METHODS:
        status = client.request(method, plain).status_code
        assert status == 401 or (route.access == "open" and status in (200, 405)), method
    odd = (
        f"/{plain}",
        plain.upper(),
        f"{plain}/",
        f"/x/..{plain}",
        f"/./{plain}",
        plain.replace("a", "%61"),
        f"{plain};x",
    )
    connection = HTTPConnection("127.0.0.1", served.port)  # which sends what it is told
    for spelling in odd:
        connection.request(route.method, spelling)
        with connection.getresponse() as answer:
            assert answer.read() and answer.status in (400, 401), spelling
    connection.close()


@pytest.mark.parametrize(("route", "path"), TABLE, ids=[f"{route.method} {path}" for route, path in TABLE])
def test_a_strange_host_is_refused_on_every_route_and_method(client: httpx2.Client, route: Route, path: str) -> None:
    for method in METHODS:
        headers = {"Host": "evil.example", "Authorization": f"Bearer {KEY}"}
        answer = client.request(method, path_of(path), headers=headers)
        assert answer.status_code == 421
    assert_error(client.request(route.method, path_of(path), headers={"Host": "evil.example"}), 421, "unknown_host")


@pytest.mark.parametrize("host", STRANGE_HOSTS)
def test_hosts_that_only_look_right_are_refused(client: httpx2.Client, host: str) -> None:
    headers = {"Host": host, "Authorization": f"Bearer {KEY}"}
    assert client.get("/v1/models", headers=headers).status_code in (400, 421)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8188", "192.168.1.7:80", "Relight.LAN"]
)
def test_addresses_and_named_hosts_are_taken(client: httpx2.Client, host: str) -> None:
    assert client.get("/v1/models", headers={"Host": host, "X-Api-Key": KEY}).status_code == 200


@pytest.mark.parametrize(("route", "path"), TABLE, ids=[f"{route.method} {path}" for route, path in TABLE])
def test_other_web_pages_are_refused_on_every_route(client: httpx2.Client, route: Route, path: str) -> None:
    pages = (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": f"{PAGE}.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    )
    for headers in pages:
        for method in (route.method, "OPTIONS"):
            answer = client.request(method, path_of(path), headers={"X-Api-Key": KEY, **headers})
            assert_error(answer, 403, "forbidden_origin")
            assert "access-control-allow-origin" not in answer.headers


def test_two_origins_are_none_that_is_named(client: httpx2.Client) -> None:
    headers = [("Origin", PAGE), ("Origin", "https://evil.example"), ("X-Api-Key", KEY)]
    assert client.get("/v1/models", headers=headers).status_code == 403


def test_a_link_may_be_followed_but_no_form_sent(client: httpx2.Client) -> None:
    navigated = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.get("/readyz", headers=navigated).status_code == 200
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain"):
        headers = {**navigated, "Content-Type": kind, "X-Api-Key": KEY}
        assert client.post("/api/jobs", headers=headers, content=b"a=b").status_code == 403


def test_a_named_page_is_told_that_it_may(client: httpx2.Client) -> None:
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    preflight = client.options("/v1/chat/completions", headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert "access-control-allow-credentials" not in preflight.headers
    answer = client.get("/v1/models", headers={"Origin": PAGE, "X-Api-Key": KEY})
    assert answer.headers["access-control-allow-origin"] == PAGE and answer.headers["vary"] == "Origin"
    assert_error(client.get("/v1/models", headers={"Origin": PAGE}), 401)


def test_the_servers_own_page_is_let_in(client: httpx2.Client, served: Served) -> None:
    headers = {"Origin": served.url, "Sec-Fetch-Site": "same-origin", "X-Api-Key": KEY}
    assert client.get("/v1/models", headers=headers).status_code == 200


def test_every_answer_forbids_sniffing_framing_and_keeping(client: httpx2.Client) -> None:
    for answer in (client.get("/readyz"), client.get("/v1/models"), client.get("/x", headers={"X-Api-Key": KEY})):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-request-id"]


def test_what_is_no_route_needs_a_key_too_and_then_is_not_found(client: httpx2.Client) -> None:
    assert_error(client.get("/nothing"), 401)
    assert_error(client.get("/nothing", headers={"X-Api-Key": KEY}), 404, "route_not_found")
    answer = client.put("/api/jobs", headers={"X-Api-Key": KEY})
    assert_error(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "POST, GET, HEAD"


def test_a_job_is_its_owners_alone(client: httpx2.Client, served: Served) -> None:
    ann, bob = {"X-Api-Key": KEY}, {"X-Api-Key": OTHER}
    job = client.post("/api/jobs", headers=ann, json={"request": {"prompt": "x"}}).json()["id"]
    served.until(lambda: not served.node.running(), "the job's end")
    for suffix in ("", "/result", "/results/0", "/events"):
        missing = client.get("/api/jobs/nobodys" + suffix, headers=bob)
        hidden = client.get(f"/api/jobs/{job}{suffix}", headers=bob)
        assert (hidden.status_code, hidden.content) == (404, missing.content)
        assert client.get(f"/api/jobs/{job}{suffix}", headers=ann).status_code == 200
    assert client.delete(f"/api/jobs/{job}", headers=bob).status_code == 404
    assert client.get("/api/jobs", headers=bob).json() == {"jobs": []}
    assert [each["id"] for each in client.get("/api/jobs", headers=ann).json()["jobs"]] == [job]


def test_the_log_tells_who_and_what_but_no_secret(
    client: httpx2.Client, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    headers = {"X-Api-Key": KEY, "X-Request-Id": "mine-1"}
    client.get("/api/jobs/secret-path?token=secret-query%0d%0aGET", headers=headers)
    served.until(served.idle, "the log's line")
    (line,) = [each.getMessage() for each in caplog.records if "mine-1" in each.getMessage()]
    assert line.startswith("GET /api/jobs/{job} 404 ") and "key:ann" in line
    assert "secret" not in line and KEY not in line


@pytest.mark.parametrize("keys", [None, Keys([HashedKey.of("ann", KEY)])], ids=["without keys", "with keys"])
def test_a_checker_of_such_servers_finds_nothing(keys: Keys | None) -> None:
    """Of the Local Image Generation Security Profile: asks for this server alone, on every address of this machine."""
    with serving(**({} if keys is None else {"keys": keys})) as running:
        checker = [sys.executable, "-m", "ligsp", "check", running.url, "--json", "-"]
        done = subprocess.run(checker, stdout=subprocess.PIPE, timeout=60)
    report = json.loads(done.stdout)
    found = {each["id"]: each["status"] for each in report["targets"][0]["results"]}
    assert done.returncode == 0 and report["summary"]["fail"] == report["summary"]["warn"] == 0, found
    assert found["NET-1"] == found["WEB-2"] == "pass"
