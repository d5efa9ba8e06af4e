"""Opening: schema, SQLite's version, one writer, any number of readers; SQLite's errors in words."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ledgers import claim, new_job
from relight.errors import LedgerDamaged, LedgerError, LedgerLocked
from relight.ledger import Ledger, NewResult, Reader, schema
from relight.ledger.database import DATABASE_NAME, Database, _check_sqlite
from relight.ledger.disk import Disk


def test_the_disk_is_asked_to_keep_every_commit(ledger: Ledger) -> None:
    pragmas = {name: ledger._database.number(f"PRAGMA {name}") for name in ("synchronous", "foreign_keys")}
    assert pragmas == {"synchronous": 2, "foreign_keys": 1}
    assert ledger._database.rows("PRAGMA journal_mode") == [{"journal_mode": "wal"}]


def test_debian_12s_sqlite_is_new_enough_and_an_older_one_is_refused_in_words() -> None:
    assert (3, 37, 0) <= schema.MINIMUM_SQLITE <= (3, 40, 1)
    assert sqlite3.sqlite_version_info >= schema.MINIMUM_SQLITE
    _check_sqlite((3, 37, 0))
    with pytest.raises(LedgerError, match=r"SQLite 3\.37\.0 or newer, and this Python has 3\.34\.1"):
        _check_sqlite((3, 34, 1))


def test_a_newer_schema_is_refused_in_words_and_left_alone(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.submit(new_job())
        ledger._database.rows("PRAGMA user_version = 99")
    before = (tmp_path / DATABASE_NAME).read_bytes()
    for open_it in (Ledger, Reader):
        with pytest.raises(LedgerError, match=r"newer relight \(schema 99, this one knows 1\)"):
            open_it(tmp_path)
    assert (tmp_path / DATABASE_NAME).read_bytes() == before


def test_an_older_schema_is_brought_up_with_its_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger(tmp_path) as ledger:
        job = ledger.submit(new_job())
    later = (*schema.MIGRATIONS, ("ALTER TABLE jobs ADD COLUMN note TEXT", "UPDATE jobs SET note = 'kept'"))
    monkeypatch.setattr(schema, "MIGRATIONS", later)
    with pytest.raises(LedgerError, match=r"older relight \(schema 1 of 2\)"):
        Reader(tmp_path)
    with Ledger(tmp_path) as ledger:
        assert ledger.get(job.id).request == job.request
        assert ledger._database.rows("SELECT note FROM jobs") == [{"note": "kept"}]
        assert ledger._database.number("PRAGMA user_version") == 2


@pytest.mark.parametrize("broken", range(2))
def test_a_migration_that_fails_leaves_the_old_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    with Ledger(tmp_path) as ledger:
        job = ledger.submit(new_job())
    statements = ["ALTER TABLE jobs ADD COLUMN note TEXT", "UPDATE jobs SET note = 'kept'"]
    statements[broken] = "no SQL"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, tuple(statements)))
        with pytest.raises(LedgerError, match="syntax error"):
            Ledger(tmp_path)
    with Ledger(tmp_path) as ledger:
        assert ledger.get(job.id) == job


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).write_bytes(b"something else entirely" * 100)
    with pytest.raises(LedgerDamaged, match=DATABASE_NAME):
        Ledger(tmp_path)


def test_a_second_writer_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    with Ledger(tmp_path):
        with pytest.raises(LedgerLocked, match=f"process {os.getpid()} keeps its jobs here") as error:
            Ledger(tmp_path)
        assert error.value.pid == os.getpid()
        with pytest.raises(LedgerLocked):
            Ledger(tmp_path)
    Ledger(tmp_path).close()


def test_a_killed_writer_leaves_no_lock(tmp_path: Path) -> None:
    script = "import os, signal, sys; from pathlib import Path; from relight.ledger import Ledger\n"
    script += "ledger = Ledger(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    killed = subprocess.run([sys.executable, "-c", script, tmp_path], check=False)
    assert killed.returncode == -9
    Ledger(tmp_path).close()


def test_readers_see_what_the_writer_has_committed(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger, Reader(tmp_path) as first, Reader(tmp_path) as second:
        job = ledger.submit(new_job())
        assert first.get(job.id) == second.get(job.id) == job
        assert first.position(job.id) == 0
        ledger.commit(claim(ledger), [NewResult(b"picture", "image/png")], {})
        assert second.result(job.id, 0) == (b"picture", "image/png")
        assert first.jobs()[0].state == "finished"
        assert first.verify().whole
    with Reader(tmp_path) as alone:
        assert alone.get(job.id).state == "finished"
        assert alone.usage().jobs == {"finished": 1}


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    Ledger(tmp_path).close()
    with Reader(tmp_path) as reader, pytest.raises(LedgerError, match="readonly"):
        reader._database.rows("DELETE FROM jobs")


def test_a_folder_without_a_ledger_is_no_ledger_to_a_reader(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no jobs are kept here"):
        Reader(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_closed_ledger_says_so(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        ledger.submit(new_job())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="file"):
        Ledger(tmp_path / "file" / "jobs")


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_prompts_and_pictures_are_the_users_own(tmp_path: Path) -> None:
    with Ledger(tmp_path / "jobs") as ledger:
        ledger.submit(new_job(inputs={"image": b"x"}))
        assert (tmp_path / "jobs").stat().st_mode & 0o077 == 0


def test_a_transaction_that_fails_leaves_nothing_and_the_next_goes_on(tmp_path: Path) -> None:
    database = Database(tmp_path, Disk(), read_only=False)
    with pytest.raises(ZeroDivisionError), database.transaction():
        database.rows("CREATE TABLE other (x)")
        _ = 1 / 0
    assert database.number("SELECT COUNT(*) FROM sqlite_master WHERE name = 'other'") == 0
    with database.transaction():
        database.rows("CREATE TABLE other (x)")
    database.close()
