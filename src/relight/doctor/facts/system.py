"""How the doctor reads a machine: files under a root, the environment, rights and room. Tests give another root."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from relight.doctor.facts.registry import registry_values

MAX_TEXT_BYTES = 1 << 20


def room_on(path: Path) -> tuple[int, int]:
    """(free, total) bytes for this user."""
    usage = shutil.disk_usage(path)
    return usage.free, usage.total


@dataclass(frozen=True)
class System:
    """Paths are those of the machine looked at, absolute; nothing outside `root` is read. `may(path, mode)` as
    os.access, `owner` the number of the owning group, `registry(key)` values of a key of Windows' local machine."""

    root: Path = Path("/")
    platform: str = sys.platform
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    home: str = field(default_factory=lambda: str(Path.home()))
    may: Callable[[Path, int], bool] = os.access
    owner: Callable[[Path], int] = lambda path: path.stat().st_gid
    room: Callable[[Path], tuple[int, int]] = room_on
    registry: Callable[[str], Mapping[str, object]] = registry_values

    @property
    def is_windows(self) -> bool:
        return self.platform == "win32"

    def path(self, path: str | Path) -> Path:
        return self.root / str(path).lstrip("/")

    def text(self, path: str | Path) -> str | None:
        """What a file holds, without white space around it; None where it cannot be read."""
        try:
            with self.path(path).open("rb") as file:
                return file.read(MAX_TEXT_BYTES).decode(errors="replace").strip(" \t\r\n\0")
        except (OSError, ValueError):
            return None

    def number(self, path: str | Path) -> int | None:
        """A file's number, decimal or 0x...; None where there is none."""
        try:
            return int(self.text(path) or "", 0)
        except ValueError:
            return None

    def names(self, path: str | Path) -> list[str]:
        """In a folder, sorted; none where it cannot be read."""
        try:
            return sorted(os.listdir(self.path(path)))
        except OSError:
            return []

    def exists(self, path: str | Path) -> bool:
        return os.path.lexists(self.path(path))

    def parents(self, path: str) -> list[str]:
        """Folders above a path, the nearest first."""
        kind = PureWindowsPath if self.is_windows else PurePosixPath
        return [str(parent) for parent in kind(path).parents]

    def link(self, path: str | Path) -> str | None:
        """Where a symbolic link says it leads."""
        try:
            return os.readlink(self.path(path))
        except OSError:
            return None

    def resolved(self, path: str | Path) -> str:
        """The path without symbolic links, as long as they stay inside the root."""
        root, real = self.path("/").resolve(), self.path(path).resolve()
        return "/" + real.relative_to(root).as_posix() if real.is_relative_to(root) else str(path)
