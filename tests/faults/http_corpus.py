"""Hostile requests of the kinds that broke other servers, made by a script; each is bytes for the socket."""

from __future__ import annotations

import base64
import io
import itertools
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import Image

type Json = dict[str, object]

CHAT: Json = {"model": "talker", "messages": [{"role": "user", "content": "x"}]}
PICTURE: Json = {"model": "painter", "prompt": "x"}
TRAVERSALS = (
    "../../../etc/passwd",
    "..\\..\\windows\\win.ini",
    "/etc/passwd",
    "....//....//etc/passwd",
    "%2e%2e%2fetc%2fpasswd",
    "painter/../../x",
    "file:///etc/passwd",
    "painter\0.gguf",
    "C:\\x.gguf",
    "~/.ssh/id_rsa",
    "/dev/random",
    "\\\\host\\share",
    "sha256:../../x",
)
ELSEWHERE = (
    "http://169.254.169.254/latest/meta-data",
    "https://page.example\\@10.0.0.1/x.png",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_x",
    "http://[::ffff:127.0.0.1]/",
    "//10.0.0.1/x.png",
    "ftp://x/y.png",
    "https://page.example/a.png",
    "data:text/html;base64,PGI+",
    "data:image/svg+xml;base64,PHN2Zz4=",
    "data:image/png,plain",
    "DATA:IMAGE/PNG;BASE64,%%%",
    "http://0x7f000001/",
    "jar:file:///x",
)


@dataclass(frozen=True)
class Hostile:
    kind: str
    request: bytes


def request(
    method: str, path: str, headers: list[tuple[str, str]], body: bytes = b"", length: str | None = None
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1"]
    if not any(name.lower() == "host" for name, _ in headers):
        lines.append("Host: localhost")
    lines += [f"{name}: {value}" for name, value in headers]
    if body or length is not None:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "Connection: close"]).encode("latin-1") + b"\r\n\r\n" + body


def as_json(path: str, value: object) -> bytes:
    return raw_json(path, json.dumps(value).encode())


def raw_json(path: str, body: bytes, *headers: tuple[str, str]) -> bytes:
    return request("POST", path, [("Content-Type", "application/json"), *headers], body)


def form(path: str, parts: list[bytes], boundary: str = "b", end: bytes = b"--b--\r\n") -> bytes:
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end
    return request("POST", path, [("Content-Type", f"multipart/form-data; boundary={boundary}")], body)


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    file = f'; filename="{filename}"' if filename is not None else ""
    return f'Content-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose head says what it likes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def animated() -> bytes:
    out = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), (80 * i, 0, 0)) for i in range(3)]
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:])
    return out.getvalue()


def other_formats() -> Iterator[bytes]:
    for kind in ("GIF", "BMP", "TIFF", "PPM", "ICO"):
        out = io.BytesIO()
        Image.new("RGB", (64, 64)).save(out, kind)
        yield out.getvalue()


def broken_pictures(lot: random.Random) -> Iterator[bytes]:
    """Bombs, lies in the head, other formats, garbage."""
    yield from (png(40_000, 40_000), png(2**31 - 1, 2**31 - 1), png(0, 5), png(20_000, 64), animated())
    yield from (b"", b"\x89PNG\r\n\x1a\n", b"RIFF\xff\xff\xff\xffWEBPVP8 ", b"\xff\xd8\xff\xe0" + b"\xff" * 64)
    yield from (b"%PDF-1.7", b"<svg xmlns='x'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"SIMPLE  =", b"GGUF" + b"\xff" * 64)
    yield from other_formats()
    yield lot.randbytes(200)
    yield b"\x89PNG\r\n\x1a\n" + lot.randbytes(100)


def pictures(lot: random.Random) -> Iterator[bytes]:
    for content in broken_pictures(lot):
        url = "data:image/png;base64," + base64.b64encode(content).decode()
        yield form("/v1/images/edits", [part("prompt", b"x"), part("image", content, "a.png")])
        yield form("/v1/images/variations", [part("image", content, "a.png")])
        yield as_json("/api/jobs", {"request": {"prompt": "x", "redraw": {"image": "a"}}, "inputs": {"a": url}})
        look = [{"type": "image_url", "image_url": {"url": url}}]
        yield as_json("/v1/chat/completions", {"model": "seer", "messages": [{"role": "user", "content": look}]})


def urls(lot: random.Random) -> Iterator[bytes]:
    for url in ELSEWHERE:
        look = [{"type": "image_url", "image_url": {"url": url}}]
        yield as_json("/v1/chat/completions", {"model": "seer", "messages": [{"role": "user", "content": look}]})
        yield as_json("/api/jobs", {"request": {"prompt": "x", "redraw": {"image": "a"}}, "inputs": {"a": url}})


def names(lot: random.Random) -> Iterator[bytes]:
    for name in TRAVERSALS:
        yield as_json("/v1/chat/completions", {**CHAT, "model": name})
        yield as_json("/v1/images/generations", {**PICTURE, "model": name})
        yield as_json("/api/plan", {"model": name})
        yield as_json("/v1/embeddings", {"model": name, "input": "x"})
        yield as_json("/api/jobs", {"request": {"prompt": "x"}, "inputs": {name: ""}})
        quoted = "".join(f"%{byte:02x}" for byte in name.encode())
        yield request("GET", f"/v1/models/{quoted}", [])
        yield request("GET", f"/api/jobs/{quoted}/results/0", [])


def numbers(lot: random.Random) -> Iterator[bytes]:
    bad = ("-5", "-2147483649", "9223372036854775808", "1e999", "-1e999", "NaN", "Infinity", '"x"', "[]", "{}", "1.5")
    for value in bad:
        for field in ("steps", "n", "output_compression", "partial_images", "clip_skip"):
            yield raw_json("/v1/images/generations", f'{{"prompt": "x", "{field}": {value}}}'.encode())
        for field in ("max_tokens", "n", "top_logprobs", "top_k"):
            body = json.dumps(CHAT)[:-1] + f', "{field}": {value}}}'
            yield raw_json("/v1/chat/completions", body.encode())
    for size in ("0x0", "-1x5", "99999x99999", "4096x4096x2", "1024", "8192x8192", "x", "1e3x64", "64x63", "６４x64"):
        yield as_json("/v1/images/generations", {**PICTURE, "size": size})
    yield as_json("/v1/images/generations", {**PICTURE, "size": "4096x4096", "n": 10})
    for value in ("9" * 5000, "9" * 400, "1" + "0" * 30):
        yield raw_json("/v1/images/generations", f'{{"prompt": "x", "seed": {value}}}'.encode())


def deep(lot: random.Random) -> Iterator[bytes]:
    for depth in (100, 1000, 100_000):
        for opening, closing in (("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")):
            nested = opening * depth + "1" + closing * depth
            yield raw_json("/v1/chat/completions", nested.encode())
            yield raw_json("/v1/images/generations", f'{{"prompt": "x", "extra": {nested}}}'.encode())
            yield raw_json("/api/jobs", (opening * depth).encode())


def schemas(lot: random.Random) -> Iterator[bytes]:
    chain: Json = {"type": "object"}
    for _ in range(40):
        chain = {"type": "object", "properties": {"a": chain}}
    wide: Json = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(5000)}}
    choices: Json = {"enum": [str(i) for i in range(10_000)]}
    for schema in (chain, wide, choices):
        shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        yield as_json("/v1/chat/completions", {**CHAT, "response_format": shape})
        tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
        yield as_json("/v1/chat/completions", {**CHAT, "tools": [tool]})
    for name in ("", "a b", "x" * 200, "../f", "f\n"):
        yield as_json("/v1/chat/completions", {**CHAT, "tools": [{"type": "function", "function": {"name": name}}]})
    for wrong in (
        "json",
        5,
        {"type": "xml"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"schema": 5}},
    ):
        yield as_json("/v1/chat/completions", {**CHAT, "response_format": wrong})


def messages(lot: random.Random) -> Iterator[bytes]:
    bad: list[object] = [[], None, "x", [None], [{}], [{"role": "root", "content": "x"}], [{"role": "user"}], {"a": 1}]
    bad += [[{"role": "tool", "content": "x"}], [{"role": "user", "content": [{"type": "input_audio"}]}]]
    bad += [[{"role": "user", "content": 5}], [{"role": "user", "content": "x"}] * 5000, [[]] * 100]
    for value in bad:
        yield as_json("/v1/chat/completions", {"messages": value})
    yield as_json("/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * 2_100_000}]})
    for value in ([], [[]], [["x"]], {}, None, [-1], [2**40], ["x"] * 5000):
        yield as_json("/v1/embeddings", {"input": value})
        yield as_json("/v1/completions", {"prompt": value})
    yield as_json("/v1/embeddings", {"input": ""})


def bodies(lot: random.Random) -> Iterator[bytes]:
    broken = (b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a": "\xff"}', b'{"prompt": "\\ud800"}', b"{'a': 1}", b"a=b")
    for body in (*broken, b'{"prompt": "x"', b'{"prompt": "x"} {}', b"\0" * 100, b"\xef\xbb\xbf{}", lot.randbytes(500)):
        for path in ("/v1/images/generations", "/v1/chat/completions", "/api/jobs"):
            yield raw_json(path, body)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "", "application/json5", "multipart/form-data"):
        yield request("POST", "/v1/chat/completions", [("Content-Type", kind)], json.dumps(CHAT).encode())
    for encoding in ("gzip", "zstd", "br", "deflate", "gzip, gzip"):
        packed = zlib.compress(b"0" * 1_000_000)
        yield raw_json("/v1/chat/completions", packed, ("Content-Encoding", encoding))
    many = b'{"prompt": "x", "a": [' + b"1," * 600_000 + b"1]}"
    yield raw_json("/v1/images/generations", many)
    for length in ("999999999999", "9" * 30):
        yield request("POST", "/api/jobs", [("Content-Type", "application/json")], b"{}", length)


def forms(lot: random.Random) -> Iterator[bytes]:
    image = part("image", png(64, 64), "a.png")
    path = "/v1/images/edits"
    yield form(path, [part("prompt", b"x")])
    yield form(path, [part(f"f{i}", b"x") for i in range(200)])
    yield form(path, [part("image", b"x", f"{i}.png") for i in range(100)])
    yield form(path, [part("prompt", b"x" * 1_200_000), image])
    yield form(path, [part("prompt", b"x" * 40_000), image])
    for boundary in ("", '"', "x" * 5000, "other", "b\tb", '"b'):
        yield form(path, [image], boundary)
    yield form(path, [image], end=b"")
    yield form(path, [image, image])
    for head in (b"", b"Content-Disposition: form-data", b"X" * 20_000, b"Content-Disposition: form-data; name=\xff"):
        yield form(path, [head + b"\r\n\r\nx"])
    for field, value in itertools.product(("n", "steps", "strength", "size"), (b"x", b"-1", b"9" * 5000, b"\xff\xfe")):
        yield form(path, [part("prompt", b"x"), part(field, value), image])


def heads(lot: random.Random) -> Iterator[bytes]:
    """Of HTTP itself: smuggling, giants, line breaks, odd targets."""
    yield request("GET", "/v1/models", [("X-Big", "x" * 100_000)])
    yield request("GET", "/" + "a" * 100_000, [])
    yield b"GET /v1/models HTTP/1.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n"
    yield b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    yield b"GET /v1/models HTTP/1.1\r\n\r\n"
    yield b"GET /v1/models HTTP/9.9\r\nHost: localhost\r\n\r\n"
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + lot.randbytes(200) + b"\r\n\r\n"
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield b"GET  /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    yield b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n folded: x\r\nA : b\r\n\r\n"
    both = [("Transfer-Encoding", "chunked"), ("Content-Type", "application/json")]
    for length in ("5", "-5", "5, 6", "0x5", "+5"):
        yield (
            request("POST", "/v1/chat/completions", both[1:], b"12345", length)
            if length != "5"
            else request("POST", "/v1/chat/completions", both, b"zzzz\r\n\r\n", length)
        )
    for coding in ("chunked, identity", "identity", "xchunked", "gzip"):
        yield request("POST", "/v1/chat/completions", [("Transfer-Encoding", coding)], b"")
    for target in (
        "http://evil.example/v1/models",
        "*",
        "//evil.example/v1/models",
        "/v1/%00",
        "/v1/..%2f",
        "/v1/models/%0d%0aX:y",
    ):
        yield request("GET", target, [])
    for method in ("TRACE", "CONNECT", "PATCH", "PROPFIND", "GETT", "get"):
        yield request(method, "/v1/chat/completions", [])
    for host in ("evil.example", "localhost:99999999", "localhost\x0b", "a" * 5000):
        yield request("GET", "/v1/models", [("Host", host)])
    for origin in ("null", "http://evil.example", "http://localhost.evil.example", "file://"):
        yield request("POST", "/api/jobs", [("Origin", origin), ("Content-Type", "text/plain")], b"{}")
    for key in ("", "x" * 300, "\x01", "\xff"):
        yield raw_json("/v1/images/generations", json.dumps(PICTURE).encode(), ("Idempotency-Key", key))


def jobs(lot: random.Random) -> Iterator[bytes]:
    for query in ("state=x", "limit=0", "limit=-1", "limit=99999999", "limit=x", "limit=٣", "before=../x", "state="):
        yield request("GET", "/api/jobs?" + "".join(c if c.isascii() else "%d9%a3" for c in query), [])
    for suffix in ("", "/result", "/results/0", "/results/-1", "/results/99999999999999999999", "/events", "/cancel"):
        for job in ("x", "..%2f..", "job-99999", "a" * 300):
            yield request("GET", f"/api/jobs/{job}{suffix}", [])
    for field, value in (("lora", []), ("path", "/x"), ("__class__", {}), ("sigmas", [1]), ("batch", 65), ("tile", 1)):
        yield as_json("/api/jobs", {"request": {"prompt": "x", field: value}})
    for control in (
        {"model": "../x"},
        {"image": "a"},
        {"model": "m", "image": "../a"},
        {"model": "m", "image": "a", "canny": [1]},
    ):
        yield as_json("/api/jobs", {"request": {"prompt": "x", "controls": [control]}})


KINDS: dict[str, Callable[[random.Random], Iterator[bytes]]] = {
    each.__name__: each
    for each in (pictures, urls, names, numbers, deep, schemas, messages, bodies, forms, heads, jobs)
}


def corpus(count: int, seed: int = 6) -> list[Hostile]:
    """`count` requests, of every kind at least five. Beyond the scripted ones, scripted ones with bytes changed."""
    lot = random.Random(seed)
    scripted = [Hostile(kind, each) for kind, make in KINDS.items() for each in make(lot)]
    lot.shuffle(scripted)
    kept = scripted[:count]
    while len(kept) < count:
        kept.append(mutated(lot, lot.choice(scripted)))
    return kept


def mutated(lot: random.Random, hostile: Hostile) -> Hostile:
    changed = bytearray(hostile.request)
    for _ in range(lot.randint(1, 8)):
        changed[lot.randrange(len(changed))] = lot.randrange(256)
    return Hostile("mutated", bytes(changed))
