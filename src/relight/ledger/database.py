"""One connection to SQLite, shared by threads through a lock; its errors in relight's words."""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from relight.errors import DiskFull, LedgerDamaged, LedgerError
from relight.ledger import schema
from relight.ledger.disk import Disk

DATABASE_NAME = "jobs.sqlite3"
NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
MAYBE_FULL = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
BARELY_FREE = 1 << 20
"""Bytes; with less, these errors of SQLite are taken for a full disk."""

Row = dict[str, Any]
Values = Mapping[str, object]


class Database:
    """`lock` may be held around several statements; transactions take it themselves.

    Every method raises LedgerError: DiskFull where there is no room, LedgerDamaged where the file is not a database.
    """

    def __init__(self, folder: Path, disk: Disk, *, read_only: bool) -> None:
        self.lock = threading.RLock()
        self._folder, self._disk, self._read_only = folder, disk, read_only
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        _check_sqlite(sqlite3.sqlite_version_info)
        try:
            self._check_schema()
            if not read_only:
                self._migrate()
        except BaseException:
            self.close()
            raise

    def rows(self, sql: str, values: Values | None = None) -> list[Row]:
        """Of one statement, which is a transaction of its own outside of `transaction`."""
        with self.lock:
            if self._closed:
                raise LedgerError(f"{self._folder}: this ledger was closed")
            try:
                self._connection = self._connection or self._connect()
                cursor = self._connection.execute(sql, values or {})
                names = [column[0] for column in cursor.description or ()]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            except sqlite3.Error as error:
                raise self._named(error) from error

    def number(self, sql: str, values: Values | None = None) -> int:
        """The first column of the first row, 0 where there is none."""
        found = self.rows(sql, values)
        return int(next(iter(found[0].values())) or 0) if found else 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block or nothing; durable when it ends."""
        with self.lock:
            self.rows("BEGIN IMMEDIATE")
            try:
                yield
                self.rows("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def close(self) -> None:
        with self.lock:
            self._closed = True
            if self._connection is not None:
                with suppress(sqlite3.Error):
                    self._connection.close()
                self._connection = None

    def _roll_back(self) -> None:
        """A connection that cannot is given up: the next statement opens another, and SQLite recovers."""
        connection = self._connection
        if connection is None or not connection.in_transaction:
            return
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                connection.close()
            self._connection = None

    def _connect(self) -> sqlite3.Connection:
        connection = self._disk.connect(self._folder / DATABASE_NAME, read_only=self._read_only)
        try:
            if not self._read_only:
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
                if mode != "wal":
                    raise LedgerError(f"{self._folder}: its file system has no shared memory for SQLite; name another")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA journal_size_limit = 16777216")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_schema(self) -> None:
        written, known = self.number("PRAGMA user_version"), len(schema.MIGRATIONS)
        if written > known:
            raise LedgerError(
                f"{self._folder}: kept by a newer relight (schema {written}, this one knows {known}); "
                "use that one or name another folder"
            )
        if self._read_only and written < known:
            raise LedgerError(
                f"{self._folder}: kept by an older relight (schema {written} of {known}); `relight serve` brings it up"
            )

    def _migrate(self) -> None:
        for number in range(self.number("PRAGMA user_version"), len(schema.MIGRATIONS)):
            with self.transaction():
                for statement in schema.MIGRATIONS[number]:
                    self.rows(statement)
                self.rows(f"PRAGMA user_version = {number + 1}")

    def _named(self, error: sqlite3.Error) -> LedgerError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return LedgerDamaged(f"{self._folder / DATABASE_NAME}: {error}; restore a copy or name another folder")
        if code == sqlite3.SQLITE_FULL or (code in MAYBE_FULL and self._barely_free()):
            return no_room(self._folder)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return LedgerError(f"{self._folder / DATABASE_NAME}: another program has held it for 5 s; stop that one")
        return LedgerError(f"{self._folder / DATABASE_NAME}: {error}")

    def _barely_free(self) -> bool:
        try:
            return self._disk.free_bytes(self._folder) < BARELY_FREE
        except OSError:
            return False


def no_room(folder: Path) -> DiskFull:
    return DiskFull(f"{folder}: the disk is full; free some space, what was accepted is kept")


@contextmanager
def naming(folder: Path) -> Iterator[None]:
    """OSError of the block as LedgerError."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise no_room(folder) from error
        raise LedgerError(f"{error.filename or folder}: {error.strerror or error}") from error


def _check_sqlite(version: tuple[int, ...]) -> None:
    if version < schema.MINIMUM_SQLITE:
        needs, has = (".".join(map(str, each)) for each in (schema.MINIMUM_SQLITE, version))
        raise LedgerError(f"jobs are kept in SQLite {needs} or newer, and this Python has {has}; use a newer Python")
