"""The operations by which the ledger touches a disk, one method each: fault tests put a disk of their own here."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from relight.errors import LedgerLocked

LOCK_NAME, PID_NAME = "writer.lock", "writer.pid"


class Disk:
    """The real one. Everything raises OSError but `connect`, which raises sqlite3.Error, and `lock`."""

    def make_folder(self, folder: Path) -> None:
        """With its parents; durable when it returns."""
        if not folder.is_dir():
            self.make_folder(folder.parent)
            folder.mkdir(mode=0o700, exist_ok=True)
            self.sync_folder(folder.parent)

    def create(self, path: Path) -> int:
        """A new file, as a descriptor; one of that name is overwritten."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)

    def write(self, descriptor: int, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        old.replace(new)

    def sync_folder(self, folder: Path) -> None:
        """Names in a folder become durable; Windows has no call for it, and keeps them in its journal."""
        if os.name == "nt":
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def names(self, folder: Path) -> list[str]:
        return os.listdir(folder)

    def size(self, path: Path) -> int:
        """0 where there is no such file."""
        return path.stat().st_size if path.exists() else 0

    def free_bytes(self, folder: Path) -> int:
        return shutil.disk_usage(folder).free

    def connect(self, path: Path, *, read_only: bool) -> sqlite3.Connection:
        address = path.absolute().as_uri() + ("?mode=ro" if read_only else "?mode=rwc")
        return sqlite3.connect(address, uri=True, timeout=5, isolation_level=None, check_same_thread=False)

    def lock(self, folder: Path) -> Callable[[], None]:
        """Be the folder's only writer until the returned function is called or the process ends, however it ends.

        Raises LedgerLocked with the process id of the other.
        """
        lock = FileLock(folder / LOCK_NAME, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise LedgerLocked(folder, _written_pid(folder / PID_NAME)) from error
        try:
            (folder / PID_NAME).write_text(f"{os.getpid()}\n")
        except OSError:
            lock.release()
            raise
        return lock.release


def _written_pid(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
