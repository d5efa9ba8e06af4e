"""What a check says: how bad, what was seen, why it matters here, what helps and how to undo that."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

GIB = 1 << 30
MIB = 1 << 20


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Remedy:
    """`does` in a few words, `do` the command or setting as it is typed, `undo` likewise."""

    does: str
    do: str
    undo: str


@dataclass(frozen=True)
class Finding:
    """One line of the report. `numbers` are what was measured, for programs; bytes and seconds."""

    check: str
    level: Level
    seen: str
    why: str = ""
    remedies: tuple[Remedy, ...] = ()
    numbers: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def ok(check: str, seen: str, **numbers: Any) -> Finding:
    return Finding(check, Level.OK, seen, numbers=numbers)


def warn(check: str, seen: str, why: str, *remedies: Remedy, **numbers: Any) -> Finding:
    return Finding(check, Level.WARN, seen, why, remedies, numbers)


def fail(check: str, seen: str, why: str, *remedies: Remedy, **numbers: Any) -> Finding:
    return Finding(check, Level.FAIL, seen, why, remedies, numbers)


def variable(name: str, value: str, does: str) -> Remedy:
    """An environment variable for relight's process."""
    return Remedy(does, f"export {name}={value}", f"unset {name}")


def without_variable(name: str, value: str, does: str) -> Remedy:
    return Remedy(does, f"unset {name}", f"export {name}={value}")


def size(count: float) -> str:
    """`256 MiB`, `8.0 GiB`."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"


def duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 120 else f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
