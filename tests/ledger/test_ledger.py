"""A job's way through the ledger: accepted, begun, kept, ended once."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ledgers import HandClock, claim, new_job
from relight.errors import JobNotFound, KeyConflict, QueueFull
from relight.ledger import Cause, Ledger, Limits, NewResult

PICTURE = NewResult(b"a picture", "image/png", {"seed": 7})
DIED = Cause("worker_lost", "the worker ended with signal 9")


def test_a_job_comes_back_as_it_was_submitted(ledger: Ledger) -> None:
    new = new_job("a fox", chosen={"seed": 7}, inputs={"mask": b"\x00\x01"}, owner="ada", priority=2, key="k")
    job = ledger.submit(new)
    assert (job.kind, job.model, job.request, job.chosen) == ("image", "tiny", {"prompt": "a fox"}, {"seed": 7})
    assert (job.owner, job.priority, job.key, job.state, job.attempt) == ("ada", 2, "k", "queued", 0)
    assert ledger.input(job.id, "mask") == b"\x00\x01"
    assert ledger.get(job.id) == job


def test_what_is_no_json_is_refused_before_it_is_kept(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="JSON"):
        ledger.submit(new_job("nan", chosen={"cfg_scale": float("nan")}))
    assert ledger.jobs() == []


def test_what_comes_together_is_written_at_once_and_each_has_an_outcome_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger(tmp_path, Limits(queued=5)) as ledger:
        first = ledger.submit(new_job("first", key="k"))
        said: list[str] = []
        rows = ledger._database.rows
        monkeypatch.setattr(ledger._database, "rows", lambda sql, values=None: said.append(sql) or rows(sql, values))
        asked = {"new": "a", "k": "other", None: "b"}
        asks = [(new_job(prompt, key=key), False) for key, prompt in asked.items()]
        a, conflict, b, same, full = ledger.submit_all([*asks, asks[0], (new_job("c"), False)])
        assert said.count("COMMIT") == 1
        assert ledger.jobs() == [b, a, first] and same == a
        assert isinstance(conflict, KeyConflict) and isinstance(full, QueueFull)


def test_one_that_cannot_be_kept_leaves_those_beside_it_alone(ledger: Ledger) -> None:
    bad = new_job("nan", chosen={"cfg_scale": float("nan")})
    first, wrong, third = ledger.submit_all([(new_job("a"), False), (bad, False), (new_job("b"), False)])
    assert isinstance(wrong, ValueError)
    assert [job.request["prompt"] for job in ledger.jobs()] == ["b", "a"]
    assert ledger.jobs()[::-1] == [first, third]


def test_results_are_there_once_committed(ledger: Ledger) -> None:
    job = ledger.submit(new_job())
    results = [PICTURE, NewResult(b"another", "image/webp")]
    assert ledger.commit(claim(ledger), results, {"seconds": 1.5})
    finished = ledger.get(job.id)
    assert (finished.state, finished.report, finished.error) == ("finished", {"seconds": 1.5}, None)
    assert [(r.index, r.media_type, r.size, r.about) for r in finished.results] == [
        (0, "image/png", 9, {"seed": 7}),
        (1, "image/webp", 7, {}),
    ]
    assert ledger.result(job.id, 1) == (b"another", "image/webp")


def test_more_than_ten_results_keep_their_order(ledger: Ledger) -> None:
    job = ledger.submit(new_job())
    ledger.commit(claim(ledger), [NewResult(str(i).encode(), "text/plain") for i in range(12)], {})
    assert [ledger.result(job.id, result.index)[0] for result in ledger.get(job.id).results] == [
        str(i).encode() for i in range(12)
    ]


@pytest.mark.parametrize("ask", ["get", "cancel", "position", "checkpoints"])
def test_an_unknown_job_is_named(ledger: Ledger, ask: str) -> None:
    with pytest.raises(JobNotFound, match="job-none"):
        getattr(ledger, ask)("job-none")


def test_a_result_or_input_it_has_not_is_named(ledger: Ledger) -> None:
    job = ledger.submit(new_job())
    with pytest.raises(JobNotFound, match="no result 0"):
        ledger.result(job.id, 0)
    with pytest.raises(JobNotFound, match="no input mask"):
        ledger.input(job.id, "mask")


# ------------------------------------------------------------------------------------------------------- the queue


def test_higher_priority_goes_first_then_age(ledger: Ledger) -> None:
    first, second, urgent = (ledger.submit(new_job(str(i), priority=p)) for i, p in enumerate((0, 0, 5)))
    assert [ledger.position(job.id) for job in (urgent, first, second)] == [0, 1, 2]
    assert ledger.positions() == {urgent.id: 0, first.id: 1, second.id: 2}
    assert [claim(ledger).job.id for _ in range(3)] == [urgent.id, first.id, second.id]
    assert ledger.position(first.id) is None


def test_only_the_kinds_asked_for_are_claimed(ledger: Ledger) -> None:
    ledger.submit(new_job())
    assert ledger.claim(["upscale"], "w") is None
    assert ledger.claim([], "w") is None
    assert ledger.claim(["upscale", "image"], "w") is not None


def test_jobs_are_listed_newest_first_by_owner_state_and_page(ledger: Ledger) -> None:
    jobs = [ledger.submit(new_job(str(i), owner="ada" if i % 2 else "bob")) for i in range(6)]
    ids = [job.id for job in jobs]
    claim(ledger)
    assert [job.id for job in ledger.jobs()] == ids[::-1]
    assert [job.id for job in ledger.jobs(owner="ada")] == [ids[5], ids[3], ids[1]]
    assert [job.id for job in ledger.jobs(states={"running"})] == [ids[0]]
    assert ledger.jobs(states=()) == []
    assert [job.id for job in ledger.jobs(limit=2, before=ids[4])] == [ids[3], ids[2]]


# --------------------------------------------------------------------------------------------------- exactly once


def test_a_stale_attempt_commits_nothing(ledger: Ledger) -> None:
    job = ledger.submit(new_job())
    stale = claim(ledger)
    ledger.fail(stale, DIED, retry=True)
    fresh = claim(ledger)
    assert (stale.number, fresh.number) == (1, 2)
    assert not ledger.commit(stale, [PICTURE], {})
    assert not ledger.heartbeat(stale, {})
    assert not ledger.checkpoint(stale, "base", 1, {})
    assert ledger.fail(stale, DIED, retry=False).state == "running"
    assert ledger.release(stale).state == "running"
    assert ledger.commit(fresh, [NewResult(b"right", "image/png")], {})
    assert not ledger.commit(fresh, [PICTURE], {})
    assert ledger.result(job.id, 0)[0] == b"right"


def test_a_finished_result_wins_over_a_late_cancel(ledger: Ledger) -> None:
    job = ledger.submit(new_job())
    ledger.commit(claim(ledger), [PICTURE], {})
    assert ledger.cancel(job.id).state == "finished"
    assert ledger.result(job.id, 0)[0] == b"a picture"


def test_a_cancelled_job_stops_at_the_next_word_and_takes_no_result(ledger: Ledger) -> None:
    job = ledger.submit(new_job())
    attempt = claim(ledger)
    assert ledger.heartbeat(attempt, {"step": 1})
    assert ledger.cancel(job.id).state == "cancelled"
    assert not ledger.heartbeat(attempt, {"step": 2})
    assert not ledger.commit(attempt, [PICTURE], {})
    assert ledger.cancel(job.id) == ledger.get(job.id)
    assert ledger.get(job.id).results == ()


def test_a_queued_job_that_was_cancelled_is_never_begun(ledger: Ledger) -> None:
    ledger.cancel(ledger.submit(new_job()).id)
    assert ledger.claim(["image"], "w") is None


def test_a_failed_attempt_ends_the_job_with_its_cause(ledger: Ledger) -> None:
    ledger.submit(new_job())
    job = ledger.fail(claim(ledger), Cause("bad_picture", "only noise came out"), retry=False)
    assert (job.state, job.error) == ("failed", Cause("bad_picture", "only noise came out"))
    assert job.finished is not None


def test_the_third_worker_lost_sets_a_job_aside_and_the_others_go_on(ledger: Ledger) -> None:
    poison, other = ledger.submit(new_job("poison")), ledger.submit(new_job("other"))
    states = [ledger.fail(claim(ledger), DIED, retry=True).state for _ in range(3)]
    assert states == ["queued", "queued", "set_aside"]
    assert (ledger.get(poison.id).losses, ledger.get(poison.id).error) == (3, DIED)
    assert claim(ledger).job.id == other.id


def test_a_lost_job_keeps_its_place_and_says_why(ledger: Ledger) -> None:
    lost, other = ledger.submit(new_job("lost")), ledger.submit(new_job("other"))
    ledger.fail(claim(ledger), DIED, retry=True)
    assert ledger.get(lost.id).error == DIED
    assert (ledger.position(lost.id), ledger.position(other.id)) == (0, 1)
    ledger.commit(claim(ledger), [PICTURE], {})
    assert ledger.get(lost.id).error is None


def test_a_released_job_waits_again_and_nothing_is_counted(ledger: Ledger) -> None:
    ledger.submit(new_job())
    for _ in range(5):
        job = ledger.release(claim(ledger))
        assert (job.state, job.losses, job.worker) == ("queued", 0, None)


# ----------------------------------------------------------------------------------------------- keys and joining


def test_the_same_key_and_body_is_the_same_job_even_when_it_has_ended(ledger: Ledger) -> None:
    job = ledger.submit(new_job(key="k", owner="ada", chosen={"seed": 1}))
    assert ledger.submit(new_job(key="k", owner="ada", chosen={"seed": 2})).id == job.id
    ledger.commit(claim(ledger), [PICTURE], {})
    assert ledger.submit(new_job(key="k", owner="ada")).state == "finished"
    assert ledger.submit(new_job(key="k", owner="bob")).id != job.id


@pytest.mark.parametrize(
    "other", [new_job("a fox", key="k"), new_job(key="k", inputs={"image": b"x"})], ids=["prompt", "inputs"]
)
def test_the_same_key_with_another_body_is_a_conflict(ledger: Ledger, other: object) -> None:
    job = ledger.submit(new_job(key="k"))
    with pytest.raises(KeyConflict, match=job.id):
        ledger.submit(other)  # type: ignore[arg-type]
    assert len(ledger.jobs()) == 1


def test_an_identical_request_in_flight_is_joined_only_when_asked_and_only_by_its_owner(ledger: Ledger) -> None:
    job = ledger.submit(new_job(owner="ada", inputs={"image": b"x"}))
    claim(ledger)
    again = new_job(owner="ada", inputs={"image": b"x"})
    assert ledger.submit(again, join=True).id == job.id
    assert ledger.submit(new_job(owner="ada", inputs={"image": b"y"}), join=True).id != job.id
    assert ledger.submit(new_job(owner="bob", inputs={"image": b"x"}), join=True).id != job.id
    assert ledger.submit(again).id != job.id


def test_an_ended_request_is_not_joined(ledger: Ledger) -> None:
    job = ledger.submit(new_job())
    ledger.cancel(job.id)
    assert ledger.submit(new_job(), join=True).id != job.id


# ------------------------------------------------------------------------------------------ progress, checkpoints


def test_progress_is_seen_at_once_and_stays_with_the_ended_job(ledger: Ledger) -> None:
    job = ledger.submit(new_job())
    attempt = claim(ledger)
    ledger.heartbeat(attempt, {"step": 3, "of": 4})
    assert ledger.get(job.id).progress == {"step": 3, "of": 4}
    ledger.commit(attempt, [PICTURE], {})
    assert ledger.get(job.id).progress == {"step": 3, "of": 4}


def test_a_new_attempt_begins_without_progress(ledger: Ledger) -> None:
    ledger.submit(new_job())
    attempt = claim(ledger)
    ledger.heartbeat(attempt, {"step": 3})
    ledger.fail(attempt, DIED, retry=True)
    assert claim(ledger).job.progress == {}


def test_the_newest_checkpoint_of_each_part_is_kept(ledger: Ledger) -> None:
    job = ledger.submit(new_job())
    attempt = claim(ledger)
    latents = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for step in (1, 2):
        assert ledger.checkpoint(attempt, "base", step, {"latents": latents * step, "state/0": np.float64([step])})
    ledger.checkpoint(attempt, "hires", 5, {})
    found = ledger.checkpoints(job.id)
    assert {part: checkpoint.step for part, checkpoint in found.items()} == {"base": 2, "hires": 5}
    np.testing.assert_array_equal(found["base"].arrays["latents"], latents * 2)
    assert found["base"].arrays["latents"].dtype == np.float32
    assert found["base"].arrays["state/0"].tolist() == [2.0]
    assert ledger.usage().files == 2


def test_checkpoints_outlive_a_lost_attempt_and_go_with_the_job(ledger: Ledger) -> None:
    job = ledger.submit(new_job())
    attempt = claim(ledger)
    ledger.checkpoint(attempt, "base", 1, {"latents": np.ones(4)})
    ledger.fail(attempt, DIED, retry=True)
    assert ledger.checkpoints(job.id)["base"].step == 1
    ledger.commit(claim(ledger), [], {})
    assert ledger.checkpoints(job.id) == {}
    assert ledger.usage().files == 0
    assert ledger.verify().orphans == 0


def test_arrays_of_objects_are_refused(ledger: Ledger) -> None:
    ledger.submit(new_job())
    with pytest.raises(ValueError, match="pickle"):
        ledger.checkpoint(claim(ledger), "base", 1, {"x": np.array([object()])})


# --------------------------------------------------------------------------------------------- crashes and clocks


def test_what_ran_is_queued_again_when_the_ledger_is_opened(tmp_path: Path) -> None:
    with Ledger(tmp_path) as before:
        job = before.submit(new_job())
        stale = claim(before)
        before.checkpoint(stale, "base", 3, {"latents": np.ones(4)})
    with Ledger(tmp_path) as ledger:
        assert ledger.get(job.id).state == "queued"
        assert not ledger.commit(stale, [PICTURE], {})
        assert ledger.checkpoints(job.id)["base"].step == 3
        assert claim(ledger).number == 2
        assert not ledger.commit(stale, [PICTURE], {})


def test_a_job_under_which_the_node_always_ends_is_set_aside(tmp_path: Path) -> None:
    for _ in range(3):
        with Ledger(tmp_path, Limits(interruptions=3)) as ledger:
            if not ledger.jobs():
                ledger.submit(new_job())
            attempt = claim(ledger)
    with Ledger(tmp_path, Limits(interruptions=3)) as ledger:
        (job,) = ledger.jobs()
        assert (job.state, job.error and job.error.code) == ("set_aside", "interrupted")
        assert not ledger.commit(attempt, [PICTURE], {})


def test_a_job_that_gets_on_is_interrupted_as_often_as_need_be(tmp_path: Path) -> None:
    for step in range(6):
        with Ledger(tmp_path, Limits(interruptions=3)) as ledger:
            if not step:
                ledger.submit(new_job())
            ledger.checkpoint(claim(ledger), "base", step, {})
    with Ledger(tmp_path) as ledger:
        assert ledger.jobs()[0].state == "queued"


def test_a_silent_attempt_loses_its_lease_and_a_heard_one_does_not(ledger: Ledger, clock: HandClock) -> None:
    heard, silent = ledger.submit(new_job("heard")), ledger.submit(new_job("silent"))
    attempts = [claim(ledger), claim(ledger)]
    clock.advance(100)
    assert ledger.heartbeat(attempts[0], {})
    clock.advance(100)
    (lost,) = ledger.expire()
    assert (lost.id, lost.state, lost.losses) == (silent.id, "queued", 1)
    assert lost.error is not None and lost.error.code == "lease_expired"
    assert ledger.get(heard.id).state == "running"
    assert not ledger.heartbeat(attempts[1], {})


@pytest.mark.parametrize("jump", [3600, -3600, 86400, -86400], ids="{:+d} s".format)
def test_a_jump_of_the_clock_costs_no_lease_and_no_order(ledger: Ledger, clock: HandClock, jump: int) -> None:
    job = ledger.submit(new_job())
    attempt = claim(ledger)
    clock.jump(jump)
    assert ledger.expire() == []
    assert ledger.heartbeat(attempt, {})
    other = ledger.submit(new_job("other"))
    ledger.commit(attempt, [], {})
    job = ledger.get(job.id)
    assert job.started is not None and job.finished is not None
    assert job.created < job.started < other.created < job.finished


def test_times_stay_in_order_over_a_restart_with_the_clock_set_back(tmp_path: Path, clock: HandClock) -> None:
    with Ledger(tmp_path, clock=clock) as ledger:
        first = ledger.submit(new_job())
    clock.jump(-86400)
    with Ledger(tmp_path, clock=clock) as ledger:
        assert ledger.submit(new_job("later")).created > first.created


# --------------------------------------------------------------------------------------------------------- threads


def test_many_threads_lose_and_double_nothing(tmp_path: Path) -> None:
    ended: Counter[str] = Counter()
    accepted: list[str] = []

    def client(number: int) -> None:
        jobs = (new_job(f"{number}/{i}", inputs={"image": bytes([i])}) for i in range(10))
        accepted.extend(ledger.submit(job).id for job in jobs)

    def worker() -> None:
        while len(ended) < 40:
            attempt = ledger.claim(["image"], "w")
            if attempt:
                ledger.checkpoint(attempt, "base", 1, {"latents": np.ones(2)})
                content = ledger.input(attempt.job.id, "image")
                ended[attempt.job.id] += ledger.commit(attempt, [NewResult(content, "image/png")], {})

    with Ledger(tmp_path) as ledger:
        threads = [threading.Thread(target=client, args=(i,)) for i in range(4)]
        threads += [threading.Thread(target=worker) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert set(ended) == set(accepted) and set(ended.values()) == {1}
        assert ledger.verify().whole and ledger.verify().orphans == 0
