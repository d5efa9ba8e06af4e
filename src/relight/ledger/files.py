"""The files of jobs, named by their SHA-256: written whole, durable before a row names them, checked when read."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from relight.errors import LedgerDamaged
from relight.ledger.database import naming
from relight.ledger.disk import Disk

FILES_NAME, PARTIAL = "files", ".part"


@dataclass(frozen=True)
class Stored:
    sha256: str
    size: int


class Files:
    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder, self._disk = folder / FILES_NAME, disk
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._numbers = itertools.count()

    @contextmanager
    def hold(self, contents: Iterable[bytes]) -> Iterator[list[Stored]]:
        """Write files, which are durable when the block begins and stay at least until it ends.

        Raises DiskFull or another LedgerError, with nothing but orphans left behind. A file that is there already is
        written again: that mends it where the disk has damaged it.
        """
        contents = list(contents)
        stored = [Stored(hashlib.sha256(content).hexdigest(), len(content)) for content in contents]
        names = Counter(each.sha256 for each in stored)
        with self._lock:
            self._held.update(names)
        try:
            with naming(self.folder):
                for each, content in zip(stored, contents, strict=True):
                    self._write(each.sha256, content)
                if stored:
                    self._disk.sync_folder(self.folder)
            yield stored
        finally:
            with self._lock:
                self._held -= names

    def read(self, stored: Stored) -> bytes:
        """Raises FileNotFoundError, LedgerDamaged where the bytes are not those written, or another LedgerError."""
        try:
            content = self._disk.read(self.folder / stored.sha256)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise LedgerDamaged(f"{self.folder / stored.sha256}: {error.strerror or error}") from error
        if len(content) != stored.size:
            raise LedgerDamaged(f"{self.folder / stored.sha256}: {len(content)} bytes, {stored.size} were written")
        if hashlib.sha256(content).hexdigest() != stored.sha256:
            raise LedgerDamaged(f"{self.folder / stored.sha256}: its bytes are not those that were written")
        return content

    def names(self) -> list[str]:
        with naming(self.folder):
            return self._disk.names(self.folder)

    def discard(self, names: Iterable[str], named: Callable[[str], bool]) -> int:
        """Remove those that no row names and nobody holds; says how many. The database's lock must be held: what is
        being written gets its row before it is let go."""
        removed = 0
        for name in names:
            with self._lock, naming(self.folder):
                if not self._held[name.split(".")[0]] and not named(name):
                    self._disk.remove(self.folder / name)
                    removed += 1
        return removed

    def _write(self, name: str, content: bytes) -> None:
        partial = self.folder / f"{name}.{next(self._numbers)}{PARTIAL}"
        try:
            descriptor = self._disk.create(partial)
            try:
                self._disk.write(descriptor, content)
                self._disk.sync(descriptor)
            finally:
                self._disk.close(descriptor)
            self._disk.rename(partial, self.folder / name)
        except OSError:
            with suppress(OSError):
                self._disk.remove(partial)
            raise
