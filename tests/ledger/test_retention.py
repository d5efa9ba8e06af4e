"""What goes and what stays, and that nothing on the disk is other than was written."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from ledgers import HandClock, claim, new_job
from relight.errors import JobNotFound, LedgerDamaged
from relight.ledger import Job, Keep, Ledger, NewResult, Result


def finish(ledger: Ledger, content: bytes, prompt: str = "") -> Job:
    ledger.submit(new_job(prompt or repr(content)))
    attempt = claim(ledger)
    assert ledger.commit(attempt, [NewResult(content, "image/png")], {})
    return ledger.get(attempt.job.id)


def files(ledger: Ledger) -> list[Path]:
    return list((ledger.folder / "files").iterdir())


def keeping(folder: Path, clock: HandClock, **keep: float) -> Ledger:
    return Ledger(folder, keep=Keep(**keep), clock=clock)  # type: ignore[arg-type]


def test_old_results_go_with_their_job_and_its_files(tmp_path: Path, clock: HandClock) -> None:
    with keeping(tmp_path, clock, age_s=60) as ledger:
        old, waiting = finish(ledger, b"old"), ledger.submit(new_job("waits", priority=-1))
        clock.advance(50)
        newer = finish(ledger, b"newer")
        clock.advance(20)
        swept = ledger.sweep()
        assert (swept.jobs, swept.files) == (1, 1)
        with pytest.raises(JobNotFound, match="not kept for ever"):
            ledger.get(old.id)
        assert {job.id for job in ledger.jobs()} == {waiting.id, newer.id}
        assert len(files(ledger)) == 1


def test_the_oldest_go_when_there_are_too_many(tmp_path: Path, clock: HandClock) -> None:
    with keeping(tmp_path, clock, jobs=3) as ledger:
        ids = [finish(ledger, bytes([i])).id for i in range(5)]
        assert ledger.sweep().jobs == 2
        assert [job.id for job in ledger.jobs()] == ids[:1:-1]


def test_the_oldest_go_when_they_are_too_large_and_the_newest_stays(tmp_path: Path, clock: HandClock) -> None:
    with keeping(tmp_path, clock, size_bytes=250) as ledger:
        ids = [finish(ledger, bytes([i]) * 100).id for i in range(5)]
        assert ledger.sweep().jobs == 3
        assert [job.id for job in ledger.jobs()] == [ids[4], ids[3]]
        large = finish(ledger, bytes(1000))
        ledger.sweep()
        assert [job.id for job in ledger.jobs()] == [large.id]
        assert ledger.usage().file_bytes == 1000


def test_many_go_in_several_transactions(tmp_path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relight.ledger.retention.AT_A_TIME", 3)
    with keeping(tmp_path, clock, jobs=1) as ledger:
        for i in range(9):
            finish(ledger, bytes([i]))
        assert ledger.sweep().jobs == 8
        assert ledger.sweep().jobs == 0


def test_jobs_that_have_not_ended_stay_however_old(tmp_path: Path, clock: HandClock) -> None:
    with keeping(tmp_path, clock, age_s=1, jobs=0, size_bytes=0) as ledger:
        running, queued = ledger.submit(new_job("1", inputs={"image": b"in"})), ledger.submit(new_job("2"))
        ledger.checkpoint(claim(ledger), "base", 1, {"latents": np.ones(9)})
        clock.advance(1e6)
        assert ledger.sweep().jobs == 0
        assert {job.id for job in ledger.jobs()} == {running.id, queued.id}
        assert ledger.verify().whole


def test_a_clock_set_forward_makes_nothing_old(tmp_path: Path, clock: HandClock) -> None:
    with keeping(tmp_path, clock, age_s=3600) as ledger:
        finish(ledger, b"1")
        finish(ledger, b"2")
        clock.jump(86400)
        assert ledger.sweep().jobs == 0


def test_a_file_of_two_jobs_stays_until_both_have_gone(tmp_path: Path, clock: HandClock) -> None:
    with keeping(tmp_path, clock, jobs=1) as ledger:
        finish(ledger, b"same", "1")
        second = finish(ledger, b"same", "2")
        assert len(files(ledger)) == 1
        ledger.sweep()
        assert ledger.result(second.id, 0)[0] == b"same"
        finish(ledger, b"other")
        ledger.sweep()
        assert len(files(ledger)) == 1


def test_orphans_are_counted_then_swept(ledger: Ledger) -> None:
    finish(ledger, b"kept")
    (ledger.folder / "files" / ("0" * 64)).write_bytes(b"nobody's")
    (ledger.folder / "files" / f"{'1' * 64}.7.part").write_bytes(b"half")
    assert ledger.verify().orphans == 2
    assert ledger.sweep().files == 2
    assert ledger.verify().orphans == 0 and len(files(ledger)) == 1


def test_what_is_being_written_is_no_orphan(ledger: Ledger) -> None:
    with ledger._files.hold([b"on its way"]):
        assert ledger.sweep().files == 0
        assert len(files(ledger)) == 1
    assert ledger.sweep().files == 1


def damage(ledger: Ledger, result: Result, content: bytes) -> None:
    (ledger.folder / "files" / result.sha256).write_bytes(content)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"PICTURE", "not those that were written"), (b"pic", "3 bytes, 7 were written")]
)
def test_damaged_bytes_are_found_and_never_served(ledger: Ledger, content: bytes, reason: str) -> None:
    job, whole = finish(ledger, b"picture"), finish(ledger, b"whole")
    assert ledger.verify().whole
    damage(ledger, job.results[0], content)
    verified = ledger.verify()
    (found,) = verified.damaged
    assert (found.job_id, found.role, found.name) == (job.id, "result", "0")
    assert reason in found.reason
    assert not verified.whole and verified.files == 2
    with pytest.raises(LedgerDamaged, match=reason):
        ledger.result(job.id, 0)
    assert ledger.result(whole.id, 0)[0] == b"whole"


def test_a_missing_file_is_found(ledger: Ledger) -> None:
    job = finish(ledger, b"picture")
    (ledger.folder / "files" / job.results[0].sha256).unlink()
    assert [each.reason for each in ledger.verify().damaged] == ["is missing"]
    with pytest.raises(LedgerDamaged, match="result 0 is missing"):
        ledger.result(job.id, 0)


def test_the_same_bytes_written_again_mend_a_damaged_file(ledger: Ledger) -> None:
    job = finish(ledger, b"picture", "1")
    damage(ledger, job.results[0], b"PICTURE")
    finish(ledger, b"picture", "2")
    assert ledger.verify().whole


def test_a_damaged_checkpoint_is_passed_over(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    job = ledger.submit(new_job())
    attempt = claim(ledger)
    for part in ("base", "hires"):
        ledger.checkpoint(attempt, part, 1, {part: np.ones(9)})
    row = next(row for row in ledger._database.rows("SELECT * FROM files WHERE name = 'hires'"))
    (ledger.folder / "files" / row["sha256"]).write_bytes(b"broken")
    with caplog.at_level(logging.WARNING):
        assert set(ledger.checkpoints(job.id)) == {"base"}
    assert "checkpoint hires is passed over" in caplog.text
