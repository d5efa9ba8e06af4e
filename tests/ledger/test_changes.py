"""Listeners: every change, in order, outside of the locks."""

from __future__ import annotations

import threading

import pytest

from ledgers import claim, new_job
from relight.errors import JobNotFound
from relight.ledger import Cause, Job, Ledger


def test_every_change_is_told_in_order(ledger: Ledger) -> None:
    told: list[tuple[str, int, object]] = []
    ledger.watch(None, lambda job: told.append((job.state, job.attempt, dict(job.progress))))
    ledger.submit(new_job())
    attempt = claim(ledger)
    ledger.heartbeat(attempt, {"step": 1})
    ledger.fail(attempt, Cause("worker_lost", ""), retry=True)
    ledger.commit(claim(ledger), [], {})
    assert told == [
        ("queued", 0, {}),
        ("running", 1, {}),
        ("running", 1, {"step": 1}),
        ("queued", 1, {"step": 1}),
        ("running", 2, {}),
        ("finished", 2, {}),
    ]


def test_a_listener_of_one_job_hears_of_no_other_and_of_nothing_once_stopped(ledger: Ledger) -> None:
    told: list[str] = []
    job, other = ledger.submit(new_job("1")), ledger.submit(new_job("2"))
    stop = ledger.watch(job.id, lambda job: told.append(job.state))
    ledger.cancel(other.id)
    claim(ledger)
    stop()
    stop()
    ledger.cancel(job.id)
    assert told == ["running"]


def test_a_change_that_did_not_happen_is_not_told(ledger: Ledger) -> None:
    told: list[Job] = []
    job = ledger.submit(new_job(key="k"))
    ledger.cancel(job.id)
    ledger.watch(None, told.append)
    ledger.cancel(job.id)
    ledger.submit(new_job(key="k"))
    assert ledger.claim(["image"], "w") is None
    assert told == []


def test_a_listener_may_ask_and_change_the_ledger_also_from_another_thread(ledger: Ledger) -> None:
    told: list[str] = []

    def listen(job: Job) -> None:
        told.append(job.state)
        if job.state == "queued":
            thread = threading.Thread(target=ledger.get, args=(job.id,))
            thread.start()
            thread.join(10)
            assert not thread.is_alive(), "the ledger's lock is held while listeners are told"
            ledger.cancel(job.id)

    ledger.watch(None, listen)
    job = ledger.submit(new_job())
    assert ledger.get(job.id).state == "cancelled"
    assert told == ["queued", "cancelled"]


@pytest.mark.parametrize("change", ["fail", "lose", "release", "cancel", "expire"])
def test_no_change_tells_under_the_lock(ledger: Ledger, change: str) -> None:
    ledger.submit(new_job())
    attempt = claim(ledger)
    reached: list[bool] = []

    def listen(job: Job) -> None:
        thread = threading.Thread(target=lambda: reached.append(bool(ledger.get(job.id))))
        thread.start()
        thread.join(10)

    ledger.watch(None, listen)
    if change == "expire":
        ledger._leases._leases[attempt.job.id].heard -= 1e6
    {
        "fail": lambda: ledger.fail(attempt, Cause("x", ""), retry=False),
        "lose": lambda: ledger.fail(attempt, Cause("x", ""), retry=True),
        "release": lambda: ledger.release(attempt),
        "cancel": lambda: ledger.cancel(attempt.job.id),
        "expire": ledger.expire,
    }[change]()
    assert reached == [True]


def test_a_listeners_fault_reaches_neither_the_change_nor_the_others(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Job] = []
    ledger.watch(None, lambda job: 1 / 0)  # type: ignore[arg-type, return-value]
    ledger.watch(None, told.append)
    assert ledger.submit(new_job()) == told[0]
    assert "a listener failed" in caplog.text


def test_waiting_ends_with_the_job(ledger: Ledger) -> None:
    job = ledger.submit(new_job())
    ender = threading.Thread(target=lambda: ledger.commit(claim(ledger), [], {}))
    ender.start()
    assert ledger.wait(job.id, 30).state == "finished"
    ender.join()
    assert ledger.wait(job.id, 30).state == "finished"


def test_waiting_ends_with_the_time(ledger: Ledger) -> None:
    job = ledger.submit(new_job())
    assert ledger.wait(job.id, 0.01).state == "queued"
    with pytest.raises(JobNotFound):
        ledger.wait("job-none", 1)
    assert not ledger._changes._listeners
