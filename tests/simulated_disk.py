"""A disk in memory that forgets what was not synced when its power is cut, and fails on command.

What SQLite and the ledger write lands in one model of a file system: per file the bytes on the platter and the writes
since the last sync, per folder likewise the names. A cut keeps some of what was not synced: nothing, all, whole writes
by lot, or sectors of 512 bytes by lot, each in any of its states since the sync; names go by lot or in order; a file
that has grown without its bytes holds garbage. As SQLite does by default, it is taken for granted that writing bytes
leaves the bytes beside them alone. Locks are nobody's: one process, one connection.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from relight.ledger.disk import Disk

SECTOR = 512
ROOT = Path("/simulated")
FREE = 1 << 40
READING = {"read", "read database", "list"}
"""What a full disk does as well as any."""


class PowerCut(BaseException):
    """Nothing of the process is left to catch it."""


@dataclass(eq=False)
class Inode:
    """`unsynced`: offset and bytes of writes, or the new size of a truncation."""

    folder: bool = False
    durable: bytes = b""
    content: bytearray = field(default_factory=bytearray)
    unsynced: list[tuple[int, bytes | None]] = field(default_factory=list)

    def put(self, offset: int, piece: bytes | None) -> None:
        self.unsynced.append((offset, piece))
        apply(self.content, offset, piece)

    def after_cut(self, lot: random.Random) -> bytes:
        kept = bytearray(self.durable)
        way = lot.choice(("nothing", "all", "writes", "sectors"))
        if way in ("all", "writes"):
            for offset, piece in self.unsynced:
                if way == "all" or lot.random() < 0.5:
                    apply(kept, offset, piece, lot)
        elif way == "sectors":
            states = [bytes(kept)]
            current = bytearray(kept)
            for offset, piece in self.unsynced:
                apply(current, offset, piece)
                states.append(bytes(current))
            kept = bytearray(lot.randbytes(len(lot.choice(states))))
            for start in range(0, len(kept), SECTOR):
                there = list(dict.fromkeys(state[start : start + SECTOR] for state in states if len(state) > start))
                if there:
                    apply(kept, start, lot.choice(there)[: len(kept) - start])
        return bytes(kept)


def apply(content: bytearray, offset: int, piece: bytes | None, lot: random.Random | None = None) -> None:
    """A write, or a truncation; where it leaves a gap, garbage fills it if there is a lot to draw it from."""
    if piece is None:
        del content[offset:]
        return
    if gap := max(0, offset - len(content)):
        content += lot.randbytes(gap) if lot else bytes(gap)
    content[offset : offset + len(piece)] = piece


class SimulatedDisk(Disk):
    """`cut_at`, `fail_at`: at which operation from now the power goes, or the disk fails once with `error`; with
    `heals_after` it goes on failing for so many operations. `operations` counts them."""

    def __init__(self) -> None:
        self.tree: dict[str, Inode] = {str(ROOT): Inode(folder=True)}
        self.durable_tree = dict(self.tree)
        self.unsynced_names: list[tuple[str, Inode | None, str | None]] = []
        self.operations = 0
        self.cut_at: int | None = None
        self.fail_at: int | None = None
        self.heals_after = 1
        self.error = errno.EIO
        self.failed: list[str] = []
        self.autocheckpoint = 1000
        self.dead = False
        self._was_full = False
        self._descriptors: dict[int, str] = {}
        self._numbers = itertools.count(3)

    def after_cut(self, lot: random.Random) -> SimulatedDisk:
        """What is there when the power is back."""
        there = SimulatedDisk()
        names = dict(self.durable_tree)
        in_order = lot.random() < 0.5
        kept = lot.randrange(len(self.unsynced_names) + 1)
        for i, change in enumerate(self.unsynced_names):
            if i < kept if in_order else lot.random() < 0.5:
                rename(names, *change)
        for path, inode in sorted(names.items()):
            if path == str(ROOT) or os.path.dirname(path) in there.tree:
                content = inode.after_cut(lot) if inode.unsynced else inode.durable
                there.tree[path] = Inode(inode.folder, content, bytearray(content))
        there.durable_tree = dict(there.tree)
        return there

    def copy(self) -> SimulatedDisk:
        """As it is, with everything synced."""
        there = SimulatedDisk()
        for path, inode in self.tree.items():
            there.tree[path] = Inode(inode.folder, bytes(inode.content), bytearray(inode.content))
        there.durable_tree = dict(there.tree)
        return there

    def step(self, operation: str) -> None:
        """Counts an operation; here the power goes, here the disk fails."""
        if self.dead:
            raise PowerCut
        self.operations += 1
        if self.operations == self.cut_at:
            self.dead = True
            raise PowerCut
        if self.fails() and not (self.error == errno.ENOSPC and operation in READING):
            self.failed.append(operation)
            self._was_full = self.error == errno.ENOSPC
            raise OSError(self.error, os.strerror(self.error), operation)

    def fails(self) -> bool:
        return self.fail_at is not None and self.fail_at <= self.operations < self.fail_at + self.heals_after

    # ------------------------------------------------------------------------------------------------- as a Disk

    def make_folder(self, folder: Path) -> None:
        if str(folder) not in self.tree:
            self.make_folder(folder.parent)
            self.step(f"mkdir {folder.name}")
            self.rename_in_tree(str(folder), Inode(folder=True))
            self.sync_folder(folder.parent)

    def create(self, path: Path) -> int:
        self.step("create")
        self.rename_in_tree(str(path), Inode())
        descriptor = next(self._numbers)
        self._descriptors[descriptor] = str(path)
        return descriptor

    def write(self, descriptor: int, content: bytes) -> None:
        inode = self.tree[self._descriptors[descriptor]]
        self.write_at(inode, len(inode.content), content, "write")

    def write_at(self, inode: Inode, offset: int, piece: bytes, operation: str = "write database") -> None:
        """Half of it is written when the disk fails or the power goes."""
        if not self.dead:
            inode.put(offset, piece[: len(piece) // 2])
            self.step(operation)
            inode.put(offset + len(piece) // 2, piece[len(piece) // 2 :])

    def sync(self, descriptor: int) -> None:
        self.sync_inode(self.tree[self._descriptors[descriptor]], "sync")

    def close(self, descriptor: int) -> None:
        del self._descriptors[descriptor]

    def rename(self, old: Path, new: Path) -> None:
        self.step("rename")
        self.rename_in_tree(str(new), self.tree[str(old)], str(old))

    def sync_folder(self, folder: Path) -> None:
        self.step("sync folder")
        self.sync_names(str(folder))

    def read(self, path: Path) -> bytes:
        self.step("read")
        if str(path) not in self.tree:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return bytes(self.tree[str(path)].content)

    def remove(self, path: Path) -> None:
        self.step("remove")
        if str(path) in self.tree:
            self.rename_in_tree(str(path), None)

    def names(self, folder: Path) -> list[str]:
        self.step("list")
        return [name for parent, name in map(os.path.split, self.tree) if parent == str(folder)]

    def size(self, path: Path) -> int:
        return len(self.tree[str(path)].content) if str(path) in self.tree else 0

    def free_bytes(self, folder: Path) -> int:
        """Who asks after a failure learns its cause; who only asks sees the disk healed in the end."""
        if self.error == errno.ENOSPC and (self._was_full or self.fails()):
            self.operations += self.fails()
            self._was_full = False
            return 0
        return FREE

    def lock(self, folder: Path) -> Callable[[], None]:
        return lambda: None

    def connect(self, path: Path, *, read_only: bool) -> Any:
        return Connection(self, path)

    def sync_inode(self, inode: Inode, operation: str) -> None:
        """As Linux does, a sync that fails leaves what it should have written in the cache, and for ever there."""
        try:
            self.step(operation)
        except OSError:
            inode.unsynced = []
            raise
        durable = bytearray(inode.durable)
        for offset, piece in inode.unsynced:
            apply(durable, offset, piece)
        inode.durable, inode.unsynced = bytes(durable), []

    def rename_in_tree(self, path: str, inode: Inode | None, old: str | None = None) -> None:
        self.unsynced_names.append((path, inode, old))
        rename(self.tree, path, inode, old)

    def sync_names(self, folder: str) -> None:
        later = []
        for change in self.unsynced_names:
            if os.path.dirname(change[0]) == folder:
                rename(self.durable_tree, *change)
            else:
                later.append(change)
        self.unsynced_names = later


def rename(names: dict[str, Inode], path: str, inode: Inode | None, old: str | None) -> None:
    """A name made, moved from `old`, or, without an inode, removed."""
    if old is not None:
        names.pop(old, None)
    if inode is None:
        names.pop(path, None)
    else:
        names[path] = inode


# --------------------------------------------------------------------------------------------------------- for SQLite


class Connection:
    """What the ledger uses of sqlite3.Connection, over apsw and the simulated disk."""

    def __init__(self, disk: SimulatedDisk, path: Path) -> None:
        self._disk = disk
        self._vfs = Vfs(disk)
        with self._errors():
            self._connection = apsw.Connection(str(path), vfs=self._vfs.name)
            # No shared memory without files: the log's index is in the heap, what is written is the same.
            self.execute("PRAGMA locking_mode = EXCLUSIVE")
            self.execute("PRAGMA temp_store = MEMORY")
            self._connection.set_wal_hook(self._checkpoint)

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, sql: str, values: Any = ()) -> Cursor:
        with self._errors():
            cursor = self._connection.cursor()
            described: list[tuple[str, ...]] = []
            cursor.exec_trace = lambda traced, _sql, _values: described.extend(traced.get_description()) or True
            rows = cursor.execute(sql, values or None).fetchall()
            if self._disk.dead:
                raise PowerCut
            return Cursor(described, rows)

    def close(self) -> None:
        with self._errors():
            self._connection.close()

    def _checkpoint(self, connection: apsw.Connection, name: str, pages: int) -> int:
        """As SQLite does by itself: what fails here is done at the next opportunity, the commit stands. (apsw would
        raise at the commit.)"""
        if pages >= self._disk.autocheckpoint:
            with suppress(apsw.Error):
                connection.wal_checkpoint(name)
        return int(apsw.SQLITE_OK)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except apsw.Error as error:
            if self._disk.dead:
                raise PowerCut from error
            translated = sqlite3.OperationalError(str(error))
            translated.sqlite_errorcode = error.extendedresult
            raise translated from error


@dataclass
class Cursor:
    description: list[tuple[str, ...]]
    rows: list[Any]

    def fetchall(self) -> list[Any]:
        return self.rows

    def fetchone(self) -> Any:
        return self.rows[0] if self.rows else None


class Vfs(apsw.VFS):
    numbers = itertools.count()

    def __init__(self, disk: SimulatedDisk) -> None:
        self.name = f"simulated-{next(Vfs.numbers)}"
        self._disk = disk
        super().__init__(self.name, "")

    def xFullPathname(self, name: str) -> str:
        return name

    def xAccess(self, path: str, flags: int) -> bool:
        return path in self._disk.tree

    def xDelete(self, path: str, sync_folder: bool) -> None:
        with sqlite_error(apsw.IOError, apsw.SQLITE_IOERR_DELETE):
            self._disk.remove(Path(path))
            if sync_folder:
                self._disk.sync_folder(Path(path).parent)

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        with sqlite_error(apsw.CantOpenError, apsw.SQLITE_CANTOPEN):
            self._disk.step("open database" if flags[0] & apsw.SQLITE_OPEN_MAIN_DB else "open log")
            if path is None:
                return VfsFile(self._disk, None, Inode())
            created = path not in self._disk.tree
            if created:
                if not flags[0] & apsw.SQLITE_OPEN_CREATE:
                    raise OSError(errno.ENOENT, path)
                self._disk.rename_in_tree(path, Inode())
        flags[1] = flags[0]
        # As SQLite's own: a log that was made is in its folder for good once it is synced.
        sync_folder = created and not flags[0] & apsw.SQLITE_OPEN_MAIN_DB
        return VfsFile(self._disk, path if sync_folder else None, self._disk.tree[path])


class VfsFile:
    def __init__(self, disk: SimulatedDisk, new: str | None, inode: Inode) -> None:
        self._disk, self._new, self._inode = disk, new, inode

    def xRead(self, amount: int, offset: int) -> bytes:
        with sqlite_error(apsw.IOError, apsw.SQLITE_IOERR_READ):
            self._disk.step("read database")
        return bytes(self._inode.content[offset : offset + amount])

    def xWrite(self, piece: bytes, offset: int) -> None:
        with sqlite_error(apsw.IOError, apsw.SQLITE_IOERR_WRITE):
            self._disk.write_at(self._inode, offset, bytes(piece))

    def xTruncate(self, size: int) -> None:
        with sqlite_error(apsw.IOError, apsw.SQLITE_IOERR_TRUNCATE):
            self._disk.step("truncate database")
            self._inode.put(size, None)

    def xSync(self, flags: int) -> None:
        with sqlite_error(apsw.IOError, apsw.SQLITE_IOERR_FSYNC):
            self._disk.sync_inode(self._inode, "sync database")
            if self._new:
                self._disk.sync_folder(Path(self._new).parent)
                self._new = None

    def xFileSize(self) -> int:
        return len(self._inode.content)

    def xSectorSize(self) -> int:
        return 4096

    def xDeviceCharacteristics(self) -> int:
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE

    def xFileControl(self, operation: int, pointer: int) -> bool:
        return False

    def xCheckReservedLock(self) -> bool:
        return False

    def xLock(self, level: int) -> None: ...

    def xUnlock(self, level: int) -> None: ...

    def xClose(self) -> None: ...


@contextmanager
def sqlite_error(kind: type[apsw.Error], code: int) -> Iterator[None]:
    """What SQLite's own functions make of errno: a write for which there is no room is FULL."""
    try:
        yield
    except (OSError, PowerCut) as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC and code == apsw.SQLITE_IOERR_WRITE
        translated = (apsw.FullError if full else kind)(str(error))
        translated.extendedresult = apsw.SQLITE_FULL if full else code
        raise translated from None
