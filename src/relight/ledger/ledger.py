"""The one writer of a ledger: takes jobs in, hands them out, and keeps what becomes of them."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from relight.errors import KeyConflict, LedgerError, RelightError
from relight.ledger import arrays, retention
from relight.ledger.admission import Admission, Asked, Load
from relight.ledger.changes import Changes, Listener
from relight.ledger.clock import Clock, Stamps
from relight.ledger.database import Row, naming, no_room
from relight.ledger.disk import Disk
from relight.ledger.files import FILES_NAME, Stored
from relight.ledger.leases import Leases
from relight.ledger.reader import Reader
from relight.ledger.records import Attempt, Cause, Job, Keep, Limits, NewJob, NewResult, State, Swept

log = logging.getLogger("relight.ledger")

RUNNING, IN_FLIGHT = "('running')", "('queued', 'running')"


class Arrival:
    """A submission on its way: what it asks, and what becomes of it once that is known."""

    def __init__(self, new: NewJob, join: bool) -> None:
        self.new, self.join, self.inputs = new, join, dict(new.inputs)
        input_bytes = sum(map(len, self.inputs.values()))
        self.asked = Asked((new.owner, _digest(new)), new.predicted_seconds, input_bytes)
        self.outcome: Job | Exception | None = None


class Ledger(Reader):
    """Blocking and thread-safe. What a method did is durable when it returns, and has not happened when it raises
    (after an I/O error at the very end of a change, a crash may bring that change to light)."""

    def __init__(
        self,
        folder: Path,
        limits: Limits | None = None,
        keep: Keep | None = None,
        *,
        disk: Disk | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Opens or creates. Jobs that ran when the last writer ended are queued again, or set aside where that has
        happened too often. Raises LedgerLocked, or LedgerError for a newer schema, an older SQLite, a disk that
        refuses."""
        disk, clock = disk or Disk(), clock or Clock()
        self._limits, self._keep = limits or Limits(), keep or Keep()
        self._leases = Leases(self._limits.lease_s, clock)
        self._admission = Admission(self._limits, clock)
        self._changes = Changes()
        with ExitStack() as undo, naming(folder):
            disk.make_folder(folder / FILES_NAME)
            self._unlock = disk.lock(folder)
            undo.callback(self._unlock)
            self._attach(folder, disk, read_only=False)
            undo.callback(self._database.close)
            disk.sync_folder(folder)  # SQLite does it for its log, where it was built to
            self._stamps = Stamps(clock, self._last_stamp())
            self._recover()
            self._tidy(self.sweep)
            undo.pop_all()

    def close(self) -> None:
        """Attempts that still run count as interrupted; `release` them before."""
        super().close()
        self._unlock()

    # ---------------------------------------------------------------------------------------------------- clients

    def submit(self, new: NewJob, *, join: bool = False) -> Job:
        """Accept a job, or find the one that this is again: by its key, or with `join` one of the same owner, kind,
        model, request and inputs that still waits or runs.

        Raises QueueFull, KeyConflict for a key that came with another body, or DiskFull.
        """
        (outcome,) = self.submit_all([(new, join)])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def submit_all(self, asks: Sequence[tuple[NewJob, bool]]) -> list[Job | Exception]:
        """`submit` of several at once, each with its `join`: the job of each, or what `submit` would raise. One commit
        is for all of them, since most of what a submission takes is the disk's time."""
        arrivals: list[Arrival] = []
        try:
            arrivals += [Arrival(new, join) for new, join in asks]
            self._accept(arrivals)
        except Exception as error:  # nothing has happened of those without an outcome: each alone, for its own reason
            if len(asks) == 1:
                return [error]
            done = [each.outcome for each in arrivals] or [None] * len(asks)
            return [was or self.submit_all([ask])[0] for was, ask in zip(done, asks, strict=True)]
        return [each.outcome for each in arrivals if each.outcome is not None]

    def _accept(self, arrivals: Sequence[Arrival]) -> None:
        """Gives each its outcome; raises what concerns those that are left without one."""
        going: list[Arrival] = []
        try:
            with self._database.lock:
                load = self._load()
                going += [each for each in arrivals if self._let_in(each, load)]
            with ExitStack() as held:
                stored = [held.enter_context(self._files.hold(each.inputs.values())) for each in going]
                if going:
                    self._insert_all(going, stored)
        finally:
            if going:
                with self._database.lock:
                    self._let_go(going)

    def _let_in(self, each: Arrival, load: Load) -> bool:
        """Whether it is new and may wait; then it counts until it is let go."""
        try:
            each.outcome = self._find_same(each)
            if each.outcome is None:
                self._check_room()
                self._admission.admit(each.asked, load)
        except RelightError as error:
            each.outcome = error
        return each.outcome is None

    def _insert_all(self, going: list[Arrival], stored: Sequence[Sequence[Stored]]) -> None:
        jobs: list[Job] = []
        accepted = list(going)
        with self._change() as changed:
            for each, files in zip(accepted, stored, strict=True):
                if there := self._find_same(each):
                    jobs.append(there)
                    continue
                (row,) = self._insert(each)
                self._name_files(row["seq"], "input", zip(each.inputs, files, [{}] * len(files), strict=True))
                changed += self._jobs([row])
                jobs.append(changed[-1])
            self._let_go(going)  # those that are in are counted by their rows
        for each, job in zip(accepted, jobs, strict=True):
            each.outcome = job

    def _let_go(self, going: list[Arrival]) -> None:
        while going:
            self._admission.arrived(going.pop().asked)

    def same(self, new: NewJob, *, join: bool = False) -> Job | None:
        """The job that `submit` would find it to be again; None where it would be a new one. Raises KeyConflict."""
        return self._find_same(Arrival(new, join))

    def cancel(self, job_id: str) -> Job:
        """End a job that waits or runs; one that has ended stays as it is. Raises JobNotFound."""
        return self._end(job_id, None, "cancelled", {}, states=IN_FLIGHT) or self.get(job_id)

    def predict(self, seconds: Callable[[Job], float]) -> None:
        """Predict anew how long the waiting jobs take: what refused clients are told comes of it."""
        with self._change():
            self._admission.predicted_anew()
            for job in self._jobs(self._database.rows("SELECT * FROM jobs WHERE state = 'queued'")):
                values = {"id": job.id, "seconds": float(seconds(job))}
                if values["seconds"] != job.predicted_seconds:
                    self._database.rows("UPDATE jobs SET predicted_seconds = :seconds WHERE id = :id", values)

    def watch(self, job_id: str | None, listener: Listener) -> Callable[[], None]:
        """Tell `listener` of every change of a job, or of all, in order; returns how to stop.

        It is called in the thread of some change and outside of all locks: it may ask the ledger, and must be quick.
        """
        return self._changes.watch(job_id, listener)

    def wait(self, job_id: str, timeout_s: float) -> Job:
        """The job once it has ended, or as it stands after so many seconds. Raises JobNotFound."""
        ended = threading.Event()

        def listen(job: Job) -> None:
            if job.ended:
                ended.set()

        stop = self.watch(job_id, listen)
        try:
            if not (job := self.get(job_id)).ended:
                ended.wait(timeout_s)
                job = self.get(job_id)
            return job
        finally:
            stop()

    # ---------------------------------------------------------------------------------------------------- workers

    def claim(self, kinds: Collection[str], worker: str, *, without: Collection[str] = ()) -> Attempt | None:
        """Begin the next job of these kinds, by priority, then by age; None where none waits. Those of the models
        `without` are left waiting."""
        self.expire()
        values: dict[str, object] = {f"kind{i}": kind for i, kind in enumerate(kinds)}
        values |= {f"model{i}": model for i, model in enumerate(without)}
        with self._change() as changed:
            values |= {"worker": worker, "now": self._stamps.next()}
            rows = self._database.rows(
                f"""
                UPDATE jobs SET state = 'running', attempt = attempt + 1, worker = :worker, progress = '{{}}',
                    started = COALESCE(started, :now)
                WHERE seq = (
                    SELECT seq FROM jobs
                    WHERE state = 'queued' AND kind IN ({", ".join(f":kind{i}" for i in range(len(kinds)))})
                        AND model NOT IN ({", ".join(f":model{i}" for i in range(len(without)))})
                    ORDER BY priority DESC, seq LIMIT 1
                )
                RETURNING *
                """,
                values,
            )
            changed += self._jobs(rows)
        return Attempt(changed[0], changed[0].attempt) if changed else None

    def heartbeat(self, attempt: Attempt, progress: Mapping[str, Any]) -> bool:
        """Still at work, and how far. False: the job was cancelled or given to another attempt, so stop."""
        if not self._leases.hear(attempt, dict(progress)):
            return False
        if self._leases.save_is_due(attempt):
            self._tidy(lambda: self._move(attempt.job.id, attempt.number, RUNNING, {}))
        with self._database.lock:
            self._changes.add([self.get(attempt.job.id)])
        self._changes.tell()
        return True

    def checkpoint(self, attempt: Attempt, part: str, step: int, arrays_: Mapping[str, np.ndarray]) -> bool:
        """Keep where a part of the job is, in place of what was kept of it before. False: as for `heartbeat`."""
        if not self._leases.hear(attempt):
            return False
        content = arrays.to_bytes(arrays_)
        with self._files.hold([content]) as stored:
            with self._change():
                row = self._move(attempt.job.id, attempt.number, RUNNING, {"interruptions": 0})
                if row is None:
                    return False
                old = [each["sha256"] for each in self._file_rows(row["seq"], "checkpoint") if each["name"] == part]
                self._name_files(row["seq"], "checkpoint", [(part, stored[0], {"step": step})])
        self._discard(set(old) - {stored[0].sha256})
        return True

    def commit(self, attempt: Attempt, results: Sequence[NewResult], report: Mapping[str, Any]) -> bool:
        """The job is finished, with these results: true once for a job. False: it was cancelled, is finished, or a
        newer attempt has it. Where it raises, the attempt still runs, and may commit again."""
        if not self._leases.hear(attempt):
            return False
        about = [{"media_type": result.media_type, "about": dict(result.about)} for result in results]
        with self._files.hold(result.content for result in results) as stored:
            named = list(zip(map(str, range(len(results))), stored, about, strict=True))
            columns = {"report": _json(report)}
            return self._end(attempt.job.id, attempt.number, "finished", columns, named) is not None

    def fail(self, attempt: Attempt, cause: Cause, *, retry: bool) -> Job:
        """The attempt came to nothing. With `retry` its worker died: the job waits for another, or is set aside when
        that was the last it may have. A stale attempt changes nothing."""
        losses = self.get(attempt.job.id).losses + retry  # while this attempt runs nobody else counts
        columns = {"error_code": cause.code, "error_message": cause.message, "losses": losses}
        if retry and losses < self._limits.losses:
            moved = self._requeue(attempt, columns)
        else:
            moved = self._end(attempt.job.id, attempt.number, "set_aside" if retry else "failed", columns)
        return moved or self.get(attempt.job.id)

    def release(self, attempt: Attempt) -> Job:
        """Give the job back unfinished, which is nobody's fault: the node stops, or something else goes first."""
        return self._requeue(attempt, {}) or self.get(attempt.job.id)

    def expire(self) -> list[Job]:
        """Take jobs from attempts that were silent for too long, as lost with their workers."""
        silent = self._leases.silent()
        cause = Cause("lease_expired", f"its worker was silent for {self._limits.lease_s:.0f} s")
        return [self.fail(Attempt(self.get(job_id), number), cause, retry=True) for job_id, number in silent.items()]

    def sweep(self) -> Swept:
        """Let go of what need not be kept, and of files that no job names."""
        return retention.sweep(self._database, self._files, self._keep, self._stamps.for_ages())

    # ---------------------------------------------------------------------------------------------------- changes

    @contextmanager
    def _change(self) -> Iterator[list[Job]]:
        """A transaction. The jobs put into the list are told of once it is durable, in the order of changes."""
        changed: list[Job] = []
        with self._database.lock:
            with self._database.transaction():
                yield changed
            for job in changed:
                self._leases.follow(job)
            self._changes.add(changed)
        self._changes.tell()

    def _move(self, job_id: str, number: int | None, states: str, columns: Mapping[str, object]) -> Row | None:
        """Set columns, and the progress last heard of, of a job that is in one of the states and, where a number is
        given, in that attempt."""
        progress = self._leases.progress(job_id)
        values = dict(columns) | ({} if progress is None else {"progress": _json(progress)})
        sql = f"""
            UPDATE jobs SET {", ".join(f"{name} = :{name}" for name in values)}
            WHERE id = :id AND state IN {states} AND (:number IS NULL OR attempt = :number)
            RETURNING *
        """
        rows = self._database.rows(sql, values | {"id": job_id, "number": number})
        return rows[0] if rows else None

    def _end(
        self,
        job_id: str,
        number: int | None,
        ending: State,
        columns: Mapping[str, object],
        results: Iterable[tuple[str, Stored, Mapping[str, Any]]] = (),
        *,
        states: str = RUNNING,
    ) -> Job | None:
        """A job's last change, after which it needs no checkpoints; None where it was not to be made."""
        with self._change() as changed:
            last = {"state": ending, "finished": self._stamps.next(), "error_code": None, "error_message": None}
            row = self._move(job_id, number, states, last | dict(columns))
            if row is None:
                return None
            old = [each["sha256"] for each in self._file_rows(row["seq"], "checkpoint")]
            self._database.rows("DELETE FROM files WHERE job = :seq AND role = 'checkpoint'", {"seq": row["seq"]})
            self._name_files(row["seq"], "result", results)
            changed += self._jobs([row])
        self._discard(old)
        return changed[0]

    def _requeue(self, attempt: Attempt, columns: Mapping[str, object]) -> Job | None:
        with self._change() as changed:
            back = {"state": "queued", "worker": None}
            row = self._move(attempt.job.id, attempt.number, RUNNING, back | dict(columns))
            changed += self._jobs([row] if row else [])
        return changed[0] if changed else None

    def _recover(self) -> None:
        """Nothing runs when a ledger is opened: what did was interrupted."""
        cause = Cause("interrupted", f"the node ended {self._limits.interruptions} times while this ran")
        with self._change() as changed:
            values = {"most": self._limits.interruptions, "code": cause.code, "message": cause.message}
            for row in self._database.rows("SELECT * FROM jobs WHERE state = 'running' ORDER BY seq"):
                log.info("job %s: attempt %d was interrupted", row["id"], row["attempt"])
                last = row["interruptions"] + 1 >= self._limits.interruptions
                ending = "state = 'set_aside', finished = :now, error_code = :code, error_message = :message"
                changed += self._jobs(
                    self._database.rows(
                        f"""
                        UPDATE jobs SET interruptions = interruptions + 1, worker = NULL,
                            {ending if last else "state = 'queued'"}
                        WHERE seq = :seq RETURNING *
                        """,
                        values | {"seq": row["seq"], "now": self._stamps.next()},
                    )
                )
            self._database.rows(
                "DELETE FROM files WHERE role = 'checkpoint' "
                "AND job IN (SELECT seq FROM jobs WHERE state = 'set_aside')"
            )

    def _last_stamp(self) -> int:
        return self._database.number("SELECT MAX(MAX(created, COALESCE(started, 0), COALESCE(finished, 0))) FROM jobs")

    # ------------------------------------------------------------------------------------------------------ rows

    def _find_same(self, each: Arrival) -> Job | None:
        new = each.new
        values = {"owner": new.owner, "key": new.key, "digest": each.asked.who[1]}
        with self._database.lock:
            if new.key is not None:
                rows = self._database.rows("SELECT * FROM jobs WHERE owner = :owner AND key = :key", values)
                if rows and rows[0]["digest"] != values["digest"]:
                    raise KeyConflict(
                        f"the idempotency key was used for another request, job {rows[0]['id']}; take another key"
                    )
            elif each.join:
                sql = f"SELECT * FROM jobs WHERE owner = :owner AND digest = :digest AND state IN {IN_FLIGHT}"
                rows = self._database.rows(f"{sql} ORDER BY seq LIMIT 1", values)
            else:
                rows = []
            return self._jobs(rows)[0] if rows else None

    def _insert(self, each: Arrival) -> list[Row]:
        new, asked = each.new, each.asked
        values: dict[str, object] = {
            "id": f"job-{secrets.token_hex(12)}",
            "kind": new.kind,
            "model": new.model,
            "owner": new.owner,
            "request": _json(new.request),
            "chosen": _json(new.chosen),
            "digest": asked.who[1],
            "priority": new.priority,
            "key": new.key,
            "predicted_seconds": float(new.predicted_seconds),
            "input_bytes": asked.input_bytes,
            "state": "queued",
            "created": self._stamps.next(),
        }
        sql = f"INSERT INTO jobs ({', '.join(values)}) VALUES ({', '.join(f':{name}' for name in values)}) RETURNING *"
        return self._database.rows(sql, values)

    def _name_files(self, seq: int, role: str, files: Iterable[tuple[str, Stored, Mapping[str, Any]]]) -> None:
        for name, stored, about in files:
            values = {"seq": seq, "role": role, "name": name, "sha256": stored.sha256, "size": stored.size}
            self._database.rows(
                "INSERT OR REPLACE INTO files (job, role, name, sha256, size, about) "
                "VALUES (:seq, :role, :name, :sha256, :size, :about)",
                values | {"about": _json(about)},
            )

    def _jobs(self, rows: Iterable[Row]) -> list[Job]:
        """As read, with the progress last heard of."""
        jobs = super()._jobs(rows)
        heard = {job.id: self._leases.progress(job.id, job.attempt) for job in jobs if job.state == "running"}
        return [replace(job, progress=progress) if (progress := heard.get(job.id)) else job for job in jobs]

    def _load(self) -> Load:
        (row,) = self._database.rows(
            "SELECT COUNT(*) AS jobs, SUM(predicted_seconds) AS s, SUM(input_bytes) AS b "
            "FROM jobs WHERE state = 'queued'"
        )
        return Load(row["jobs"], row["s"] or 0.0, row["b"] or 0, self._leases.next_begin_s())

    def _check_room(self) -> None:
        with naming(self.folder):
            if self._disk.free_bytes(self.folder) < self._limits.free_bytes:
                raise no_room(self.folder)

    def _discard(self, names: Iterable[str]) -> None:
        self._tidy(lambda: retention.discard(self._database, self._files, names))

    def _tidy(self, task: Callable[[], object]) -> None:
        """What can as well be done later does not fail what was asked."""
        try:
            task()
        except LedgerError as error:
            log.warning("%s", error)


def _json(value: Mapping[str, Any]) -> str:
    """Raises TypeError or ValueError for what is no JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True)


def _digest(new: NewJob) -> str:
    """Of what makes two requests the same."""
    inputs = {name: hashlib.sha256(content).hexdigest() for name, content in new.inputs.items()}
    body = {"kind": new.kind, "model": new.model, "request": dict(new.request), "inputs": inputs}
    return hashlib.sha256(_json(body).encode()).hexdigest()
