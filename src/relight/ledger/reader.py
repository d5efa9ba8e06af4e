"""A ledger as it can be read: by any number of processes, also while another one writes it."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from relight.errors import JobNotFound, LedgerDamaged, LedgerError
from relight.ledger import arrays, clock
from relight.ledger.database import DATABASE_NAME, Database, Row
from relight.ledger.disk import Disk
from relight.ledger.files import Files, Stored
from relight.ledger.records import Cause, Checkpoint, Damage, Job, Result, State, Usage, Verified

log = logging.getLogger("relight.ledger")

MOST_LISTED = 1000


class Reader:
    """Thread-safe, as is Ledger. Every method raises LedgerError where the disk or the database refuses."""

    def __init__(self, folder: Path, *, disk: Disk | None = None) -> None:
        """Raises LedgerError where there is none, or one of another schema."""
        if not (folder / DATABASE_NAME).is_file():
            raise LedgerError(f"{folder}: no jobs are kept here; `relight serve` begins to")
        self._attach(folder, disk or Disk(), read_only=True)

    def _attach(self, folder: Path, disk: Disk, *, read_only: bool) -> None:
        self.folder, self._disk = folder, disk
        self._files = Files(folder, disk)
        self._database = Database(folder, disk, read_only=read_only)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    def get(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        return self._one("SELECT * FROM jobs WHERE id = :job", {"job": job_id}, job_id)

    def jobs(
        self,
        *,
        owner: str | None = None,
        states: Collection[State] | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[Job]:
        """The newest first, 1,000 at most; `before` is the id of a job, and only those accepted earlier are meant.

        Raises JobNotFound for `before`.
        """
        values: dict[str, object] = {"limit": max(0, min(limit, MOST_LISTED)), "owner": owner}
        conditions = ["owner = :owner"] if owner is not None else []
        if states is not None:
            conditions.append(f"state IN ({_names('state', states, values)})")
        if before is not None:
            values["seq"] = self._seq(before)
            conditions.append("seq < :seq")
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        with self._database.lock:
            return self._jobs(self._database.rows(f"SELECT * FROM jobs {where} ORDER BY seq DESC LIMIT :limit", values))

    def position(self, job_id: str) -> int | None:
        """How many jobs are before this one, 0 for the next; None when it does not wait. Raises JobNotFound."""
        sql = """
            SELECT job.state, COUNT(other.seq) AS before FROM jobs AS job
            LEFT JOIN jobs AS other ON job.state = 'queued' AND other.state = 'queued'
                AND (other.priority > job.priority OR (other.priority = job.priority AND other.seq < job.seq))
            WHERE job.id = :job
            GROUP BY job.seq
        """
        rows = self._database.rows(sql, {"job": job_id})
        if not rows:
            raise _not_found(job_id)
        return int(rows[0]["before"]) if rows[0]["state"] == "queued" else None

    def positions(self) -> dict[str, int]:
        """Of all that wait, by id."""
        rows = self._database.rows("SELECT id FROM jobs WHERE state = 'queued' ORDER BY priority DESC, seq")
        return {row["id"]: before for before, row in enumerate(rows)}

    def input(self, job_id: str, name: str) -> bytes:
        """Raises JobNotFound, also for a name it has no input of, or LedgerDamaged."""
        return self._read(job_id, "input", name)[0]

    def result(self, job_id: str, index: int) -> tuple[bytes, str]:
        """Content and media type, compared with the hash written. Raises JobNotFound, also for an index it has no
        result of, or LedgerDamaged."""
        content, about = self._read(job_id, "result", str(index))
        return content, about["media_type"]

    def checkpoints(self, job_id: str) -> dict[str, Checkpoint]:
        """The newest of each part; a damaged one is left out with a warning, and its part begins anew.

        Raises JobNotFound.
        """
        found = {}
        for row in self._file_rows(self._seq(job_id), "checkpoint"):
            try:
                content = self._files.read(Stored(row["sha256"], row["size"]))
                checkpoint = Checkpoint(row["name"], json.loads(row["about"])["step"], arrays.from_bytes(content))
            except (FileNotFoundError, LedgerDamaged) as error:
                log.warning("job %s: checkpoint %s is passed over: %s", job_id, row["name"], error)
            else:
                found[checkpoint.part] = checkpoint
        return found

    def usage(self) -> Usage:
        with self._database.lock:
            states = self._database.rows("SELECT state, COUNT(*) AS jobs FROM jobs GROUP BY state")
            (files,) = self._database.rows(
                "SELECT COUNT(*) AS count, SUM(size) AS bytes FROM (SELECT DISTINCT sha256, size FROM files)"
            )
            (queued,) = self._database.rows("SELECT SUM(predicted_seconds) AS s FROM jobs WHERE state = 'queued'")
        names = (DATABASE_NAME, f"{DATABASE_NAME}-wal", f"{DATABASE_NAME}-shm")
        return Usage(
            jobs={row["state"]: row["jobs"] for row in states},
            queued_seconds=queued["s"] or 0.0,
            files=files["count"],
            file_bytes=files["bytes"] or 0,
            database_bytes=sum(self._disk.size(self.folder / name) for name in names),
        )

    def verify(self) -> Verified:
        """Read every file that a job names and compare it with its hash; let SQLite look at its own."""
        verdict = "; ".join(str(row["integrity_check"]) for row in self._database.rows("PRAGMA integrity_check"))
        rows = self._database.rows("SELECT jobs.id AS job_id, files.* FROM files JOIN jobs ON jobs.seq = files.job")
        reasons = {row["sha256"]: self._why_damaged(row) for row in rows}
        damaged = [
            Damage(row["job_id"], row["role"], row["name"], row["sha256"], reason)
            for row in rows
            if (reason := reasons[row["sha256"]])
        ]
        sizes = {row["sha256"]: row["size"] for row in rows}
        orphans = set(self._files.names()) - {row["sha256"] for row in self._database.rows("SELECT sha256 FROM files")}
        return Verified(len(sizes), sum(sizes.values()), tuple(damaged), len(orphans), verdict)

    def _why_damaged(self, row: Row) -> str | None:
        try:
            self._files.read(Stored(row["sha256"], row["size"]))
        except FileNotFoundError:
            still = "SELECT 1 FROM files WHERE sha256 = :sha256"
            return "is missing" if self._database.rows(still, {"sha256": row["sha256"]}) else None
        except LedgerDamaged as error:
            return str(error)
        return None

    def _seq(self, job_id: str) -> int:
        rows = self._database.rows("SELECT seq FROM jobs WHERE id = :job", {"job": job_id})
        if not rows:
            raise _not_found(job_id)
        return int(rows[0]["seq"])

    def _file_rows(self, seq: int, role: str) -> list[Row]:
        sql = "SELECT * FROM files WHERE job = :seq AND role = :role"
        return self._database.rows(sql, {"seq": seq, "role": role})

    def _read(self, job_id: str, role: str, name: str) -> tuple[bytes, dict[str, Any]]:
        for row in self._file_rows(self._seq(job_id), role):
            if row["name"] == name:
                try:
                    return self._files.read(Stored(row["sha256"], row["size"])), json.loads(row["about"])
                except FileNotFoundError as error:
                    self._seq(job_id)  # it may have gone meanwhile
                    raise LedgerDamaged(f"job {job_id}: its {role} {name} is missing on the disk") from error
        raise JobNotFound(f"job {job_id} has no {role} {name}")

    def _one(self, sql: str, values: Mapping[str, object], job_id: str) -> Job:
        with self._database.lock:
            jobs = self._jobs(self._database.rows(sql, values))
        if not jobs:
            raise _not_found(job_id)
        return jobs[0]

    def _jobs(self, rows: Iterable[Row]) -> list[Job]:
        """With their results; under the database's lock, so that both are of one moment."""
        rows = tuple(rows)
        values: dict[str, object] = {}
        ended = [row["seq"] for row in rows if row["state"] == "finished"]
        sql = f"SELECT * FROM files WHERE role = 'result' AND job IN ({_names('seq', ended, values)})"
        results: dict[int, list[Result]] = {seq: [] for seq in ended}
        for row in self._database.rows(sql, values) if ended else ():
            results[row["job"]].append(_result(row))
        return [_job(row, sorted(results.get(row["seq"], ()), key=lambda result: result.index)) for row in rows]


def _names(prefix: str, members: Iterable[object], values: dict[str, object]) -> str:
    """Named parameters for the members, put into `values`."""
    named = {f"{prefix}{i}": member for i, member in enumerate(members)}
    values |= named
    return ", ".join(f":{name}" for name in named)


def _not_found(job_id: str) -> JobNotFound:
    return JobNotFound(f"job {job_id}: there is none; it may have gone, since ended jobs are not kept for ever")


def _result(row: Row) -> Result:
    about = json.loads(row["about"])
    return Result(int(row["name"]), about["media_type"], row["size"], row["sha256"], about["about"])


def _job(row: Row, results: Iterable[Result]) -> Job:
    return Job(
        id=row["id"],
        kind=row["kind"],
        model=row["model"],
        owner=row["owner"],
        request=json.loads(row["request"]),
        chosen=json.loads(row["chosen"]),
        priority=row["priority"],
        key=row["key"],
        predicted_seconds=row["predicted_seconds"],
        state=row["state"],
        attempt=row["attempt"],
        losses=row["losses"],
        worker=row["worker"],
        progress=json.loads(row["progress"]),
        created=clock.as_datetime(row["created"]),
        started=None if row["started"] is None else clock.as_datetime(row["started"]),
        finished=None if row["finished"] is None else clock.as_datetime(row["finished"]),
        error=None if row["error_code"] is None else Cause(row["error_code"], row["error_message"]),
        report=json.loads(row["report"]),
        results=tuple(results),
    )
