"""What goes: ended jobs by age, number and bytes, the files that no row names."""

from __future__ import annotations

from collections.abc import Iterable

from relight.ledger.database import Database
from relight.ledger.files import Files
from relight.ledger.records import Keep, Swept

AT_A_TIME = 200
"""Jobs of one transaction, so that nobody waits long for the lock."""

SURPLUS = """
    SELECT seq FROM (
        SELECT seq, finished, ROW_NUMBER() OVER newest AS place, SUM(bytes) OVER newest AS total
        FROM (
            SELECT seq, finished, (SELECT COALESCE(SUM(size), 0) FROM files WHERE job = seq) AS bytes
            FROM jobs WHERE state IN ('finished', 'failed', 'cancelled', 'set_aside')
        )
        WINDOW newest AS (ORDER BY finished DESC)
    )
    WHERE place > 1 AND (finished < :oldest OR place > :jobs OR total > :size_bytes)
    ORDER BY finished LIMIT :limit
"""


def sweep(database: Database, files: Files, keep: Keep, now: int) -> Swept:
    """`now` in microseconds. Rows first, then files: a cut between the two leaves orphans and no row without its file.

    A job's bytes count wholly also where two share a file, so what is kept is at most `keep.size_bytes` and the newest.
    """
    values = {
        "oldest": now - int(keep.age_s * 1e6),
        "jobs": keep.jobs,
        "size_bytes": keep.size_bytes,
        "limit": AT_A_TIME,
    }
    jobs = 0
    while surplus := _delete(database, values):
        jobs += surplus
        if surplus < AT_A_TIME:
            break
    with database.lock:
        kept = {row["sha256"] for row in database.rows("SELECT DISTINCT sha256 FROM files")}
        return Swept(jobs, files.discard([name for name in files.names() if name not in kept], lambda name: False))


def discard(database: Database, files: Files, names: Iterable[str]) -> None:
    """Remove those of the files that no row names any more."""
    named = "SELECT COUNT(*) FROM files WHERE sha256 = :name"
    with database.lock:
        files.discard(names, lambda name: database.number(named, {"name": name}) > 0)


def _delete(database: Database, values: dict[str, int]) -> int:
    with database.transaction():
        seqs = [int(row["seq"]) for row in database.rows(SURPLUS, values)]
        for seq in seqs:
            database.rows("DELETE FROM jobs WHERE seq = :seq", {"seq": seq})
        return len(seqs)
