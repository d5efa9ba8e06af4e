"""A hub on the loopback that speaks the real one's protocol, and misbehaves as told.

Files are asked for at /OWNER/REPO/resolve/REVISION/PATH on one host; large ones are redirected to another (the CDN).
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "c0ffee" + "0" * 34
RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    host: str
    path: str
    range: str | None
    token: str | None


@dataclass
class Fault:
    """Something to go wrong once: a status, a body cut after `cut` bytes, or other bytes."""

    status: int = 0
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    body: bytes | None = None
    ignore_range: bool = False
    hold: threading.Event | None = None


class Hub:
    """`large` and `small` files by (repository, path); `faults` by (method, path), each used once, in order."""

    def __init__(self) -> None:
        self.large: dict[tuple[str, str], bytes] = {}
        self.small: dict[tuple[str, str], bytes] = {}
        self.faults: defaultdict[tuple[str, str], list[Fault]] = defaultdict(list)
        self.asked: list[Asked] = []
        self.gated: set[str] = set()
        self.sending = threading.Event()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub.answer(self)

            do_GET = do_HEAD

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.cdn = f"http://localhost:{self.server.server_port}"

    @contextmanager
    def serving(self) -> Iterator[Hub]:
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()

    def gets(self, name: str) -> list[Asked]:
        """Requests for a file's bytes, as the CDN or, for small files, the hub got them."""
        return [
            each for each in self.asked if each.method == "GET" and each.path.endswith(name) and self._has_bytes(each)
        ]

    def _has_bytes(self, each: Asked) -> bool:
        match = RESOLVE.fullmatch(each.path)
        return match is None or (match["repo"], match["path"]) in self.small

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path, headers = request.path, request.headers
        host = headers.get("Host", "").split(":")[0]
        self.asked.append(Asked(request.command, host, path, headers.get("Range"), headers.get("Authorization")))
        match = RESOLVE.fullmatch(path)
        key = (match["repo"], match["path"]) if match else tuple(path.removeprefix("/cdn/").split("/-/", 1))
        faults = self.faults[request.command, key[-1]]
        if match is None and not path.startswith("/cdn/"):
            return self._plain(request, 404, {})
        if match and match["repo"] in self.gated and headers.get("Authorization") != "Bearer hf_right":
            return self._plain(request, 401, {"X-Error-Code": "GatedRepo"})
        # A fault of a large file's body happens where the body is, at the CDN.
        at_cdn_only = request.command == "GET" and match is not None and key in self.large
        fault = faults.pop(0) if faults and not at_cdn_only else Fault()
        if fault.status:
            return self._plain(request, fault.status, {"X-Error-Code": fault.code} | fault.headers)
        if match is None:
            return self._body(request, self.large[key], fault)
        return self._file(request, match["revision"], key, fault)

    def _file(self, request: BaseHTTPRequestHandler, revision: str, key: Any, fault: Fault) -> None:
        common = {"X-Repo-Commit": COMMIT}
        if revision not in ("main", COMMIT):
            return self._plain(request, 404, {"X-Error-Code": "RevisionNotFound"})
        if key in self.large:
            body = self.large[key]
            linked = {"X-Linked-Etag": f'"{sha256(body)}"', "X-Linked-Size": str(len(body))}
            return self._plain(request, 302, common | linked | {"Location": f"{self.cdn}/cdn/{key[0]}/-/{key[1]}"})
        if key in self.small:
            body = self.small[key]
            return self._body(request, body, fault, common | {"ETag": f'"{git_sha1(body)}"'})
        known = any(repository == key[0] for repository, _ in [*self.large, *self.small])
        return self._plain(request, 404, common | {"X-Error-Code": "EntryNotFound" if known else "RepoNotFound"})

    def _body(self, request: BaseHTTPRequestHandler, body: bytes, fault: Fault, headers: Any = None) -> None:
        body = fault.body if fault.body is not None else body
        begins = 0
        if (asked := request.headers.get("Range")) and not fault.ignore_range:
            begins = int(asked.removeprefix("bytes=").rstrip("-"))
        request.send_response(206 if begins else 200)
        if begins:
            request.send_header("Content-Range", f"bytes {begins}-{len(body) - 1}/{len(body)}")
        for name, value in (headers or {}).items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body) - begins))
        request.end_headers()
        if request.command == "GET":
            end = len(body) if fault.cut is None else begins + fault.cut
            request.wfile.write(body[begins:end])
            request.wfile.flush()
            self.sending.set()
            if fault.hold is not None:
                fault.hold.wait(20)
            if end < len(body):
                request.close_connection = True

    def _plain(self, request: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
        request.send_response(status)
        for name, value in headers.items():
            if value:
                request.send_header(name, value)
        request.send_header("Content-Length", "0")
        request.end_headers()


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def git_sha1(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
