"""One file from the hub to its place: resumed where it stopped, hashed, under its name only when it is right."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from relight.errors import JobCancelled, StoreError
from relight.store import hub
from relight.store.hub import Described, Interrupted

MAX_TRIES = 6
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 120.0
READ_BYTES = 4 << 20
SHA_OF_GIT = 40
"""Digits of git's sha1, by which the hub names small files."""

Advance = Callable[[int], None]
"""Told of bytes as they come; of a negative number where bytes had to be thrown away."""


@dataclass
class Transfer:
    """How transfers wait and stop. `pause` sleeps, and returns True when the transfer shall end instead."""

    stop: threading.Event
    advance: Advance = lambda count: None
    say: Callable[[str], None] = lambda line: None
    pause: Callable[[float], bool] | None = None

    def wait(self, seconds: float) -> None:
        pause = self.stop.wait if self.pause is None else self.pause
        if pause(seconds):
            raise JobCancelled("stopped")

    def check(self, count: int = 0) -> None:
        if self.stop.is_set():
            raise JobCancelled("stopped")


def partial_path(place: Path, described: Described) -> Path:
    """Where the bytes gather; another version of the file gathers elsewhere."""
    return place.with_name(f"{place.name}.{described.etag[:16]}.part")


def fetched_before(place: Path, described: Described) -> int:
    """Bytes that need not be fetched again."""
    part = partial_path(place, described)
    return min(part.stat().st_size, described.size) if part.exists() else 0


def patiently[T](what: str, transfer: Transfer, attempt: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
    """Run `attempt` until it passes; after six in a row without progress raise StoreError with the last reason."""
    tries, wait, before = 0, FIRST_WAIT_S, progress()
    while True:
        transfer.check()
        try:
            return attempt()
        except Interrupted as error:
            now = progress()
            tries, wait, before = (1, FIRST_WAIT_S, now) if now > before else (tries + 1, wait * 2, before)
            seconds = error.wait_s or min(wait, LONGEST_WAIT_S)
            if tries >= MAX_TRIES or error.wait_s > LONGEST_WAIT_S:
                asked = f" and asks for {error.wait_s:.0f} s of patience" if error.wait_s else ""
                raise StoreError(
                    f"{what}: {error}{asked}; run the same command later, it goes on where it stopped"
                ) from error
            if error.wait_s:
                transfer.say(f"{what}: {error}, waiting {seconds:.0f} s as it asks")
            transfer.wait(seconds)


def download(described: Described, place: Path, expected: str | None, transfer: Transfer) -> str:
    """Fetch a file to `place` and return its sha256. `expected` is the published one, beside the hub's own.

    Raises StoreError when the hub refuses, the disk does, or the bytes are wrong; those are removed.
    """
    part = partial_path(place, described)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        for old in part.parent.glob(f"{place.name}.*.part"):
            if old != part:
                old.unlink()
        with part.open("ab", buffering=0) as out:
            patiently(
                described.remote.name,
                transfer,
                lambda: _append(described, out, transfer),
                lambda: os.fstat(out.fileno()).st_size,
            )
            os.fsync(out.fileno())
        sha256 = _verified(described, part, expected, transfer)
        part.replace(place)
    except OSError as error:
        reason = error.strerror or error
        raise StoreError(f"{place}: cannot be written: {reason}; free space or set RELIGHT_MODELS") from error
    return sha256


def _append(described: Described, out: BinaryIO, transfer: Transfer) -> None:
    """Bring the file to its full size. Raises Interrupted when the bytes end before."""
    have = os.fstat(out.fileno()).st_size
    if have > described.size:
        _cut(out, 0, have, transfer)
        have = 0
    if have == described.size:
        return
    with hub.stream(described, have) as (begins, chunks):
        if begins != have:
            _cut(out, begins, have, transfer)
            have = begins
        for chunk in chunks:
            transfer.check()
            out.write(chunk)
            have += len(chunk)
            transfer.advance(len(chunk))
            if have > described.size:
                break
    if have != described.size:
        raise Interrupted(f"{have} of {described.size} bytes came")


def _cut(out: BinaryIO, size: int, before: int, transfer: Transfer) -> None:
    out.truncate(size)
    transfer.advance(size - before)


def _verified(described: Described, part: Path, expected: str | None, transfer: Transfer) -> str:
    """The sha256 of the bytes on disk, which must be the hub's and the published one."""
    sha256 = digest(part, hashlib.sha256(), transfer.check)
    if sha256 != (expected or sha256) or not is_right(described, part, sha256, transfer.check):
        part.unlink()
        raise StoreError(
            f"{described.remote.name}: the bytes that came have the hash {sha256}, and {expected or described.etag} is "
            f"right; they were removed. Pull again; if it stays so, the mirror or proxy changes files"
        )
    return sha256


def is_right(described: Described, path: Path, sha256: str, each: Callable[[int], None]) -> bool:
    """Whether the file is the one the hub names, by its sha256 or, for small files, by git's sha1."""
    named = git_blob_sha1(path, each) if len(described.etag) == SHA_OF_GIT else sha256
    return named == described.etag


def digest(path: Path, hasher: hashlib._Hash, each: Callable[[int], None] = lambda count: None) -> str:
    """The hash of a file, read in pieces; `each` is told how many bytes each had."""
    with path.open("rb", buffering=0) as file:
        piece = memoryview(bytearray(READ_BYTES))
        while count := file.readinto(piece):
            hasher.update(piece[:count])
            each(count)
    return hasher.hexdigest()


def git_blob_sha1(path: Path, each: Callable[[int], None] = lambda count: None) -> str:
    """The name git gives a file's content: the hub's etag for small files."""
    return digest(path, hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False), each)
