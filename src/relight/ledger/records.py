"""What goes into the ledger and what comes out of it: plain frozen records, without a database in sight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np

GIB = 1 << 30
DAY_S = 86400.0

State = Literal["queued", "running", "finished", "failed", "cancelled", "set_aside"]
ENDED: frozenset[State] = frozenset({"finished", "failed", "cancelled", "set_aside"})
"""States that a job never leaves."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is accepted, and how often a job is tried.

    `queued` jobs wait at most, their `queued_seconds` as predicted, their `input_bytes` on the disk; a job larger than
    a limit is accepted where nothing waits. Below `free_bytes` on the disk nothing is accepted. A job whose worker
    died `losses` times is set aside, or under which the node ended `interruptions` times with no checkpoint between.
    A running attempt that is silent for `lease_s` is lost.
    """

    queued: int = 256
    queued_seconds: float = 6 * 3600.0
    input_bytes: int = 4 * GIB
    free_bytes: int = GIB // 4
    losses: int = 3
    interruptions: int = 10
    lease_s: float = 120.0


@dataclass(frozen=True, kw_only=True)
class Keep:
    """How long ended jobs stay with their files: what is older than `age_s`, over `jobs` in number or over `size_bytes`
    together goes, the oldest first. The newest stays in any case."""

    age_s: float = 7 * DAY_S
    jobs: int = 10_000
    size_bytes: int = 8 * GIB


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What a client asks for.

    `request` is JSON. `chosen` is what was decided for it, such as a random seed: kept, but no part of what makes two
    requests the same. Higher `priority` runs first. `key` is the client's idempotency key, one of its `owner`'s.
    """

    kind: str
    model: str
    request: Mapping[str, Any]
    chosen: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, bytes] = field(default_factory=dict)
    owner: str = ""
    priority: int = 0
    key: str | None = None
    predicted_seconds: float = 0.0


@dataclass(frozen=True)
class Cause:
    """Why a job or an attempt ended badly: a word for programs, a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True)
class NewResult:
    """`about` is JSON: the seed, the size of a picture."""

    content: bytes
    media_type: str
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    index: int
    media_type: str
    size: int
    sha256: str
    about: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as it stands. `attempt` counts the times it was begun, `losses` the workers that died of it; `error` is the
    cause of its end, or of the last attempt lost. Times are UTC, and no two of a ledger are the same."""

    id: str
    kind: str
    model: str
    owner: str
    request: Mapping[str, Any]
    chosen: Mapping[str, Any]
    priority: int
    key: str | None
    predicted_seconds: float
    state: State
    attempt: int
    losses: int
    worker: str | None
    progress: Mapping[str, Any]
    created: datetime
    started: datetime | None
    finished: datetime | None
    error: Cause | None
    report: Mapping[str, Any]
    results: tuple[Result, ...]

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class Attempt:
    """One run of a job. `number` is the fencing token: of a job's attempts only the newest is heard."""

    job: Job
    number: int


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Where a part of a job goes on after `step` steps."""

    part: str
    step: int
    arrays: dict[str, np.ndarray]


@dataclass(frozen=True)
class Swept:
    """Ended jobs that went, and files that nothing names any more."""

    jobs: int
    files: int


@dataclass(frozen=True)
class Usage:
    """Jobs by state, and bytes on the disk."""

    jobs: Mapping[str, int]
    queued_seconds: float
    files: int
    file_bytes: int
    database_bytes: int


@dataclass(frozen=True)
class Damage:
    """A file that is not what was written, or not there."""

    job_id: str
    role: str
    name: str
    sha256: str
    reason: str


@dataclass(frozen=True)
class Verified:
    """What `verify` read: `database` is SQLite's own verdict, "ok" where all is well; `orphans` are files without a
    row, which the next sweep removes."""

    files: int
    file_bytes: int
    damaged: tuple[Damage, ...]
    orphans: int
    database: str

    @property
    def whole(self) -> bool:
        return not self.damaged and self.database == "ok"
