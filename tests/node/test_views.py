"""Jobs as the gateway sees them: predictions of what is left, and the newest word of each."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from relight.jobs.events import Advanced, Planned, Previewed, Warned
from relight.ledger import Cause, Job
from relight.node.views import DECODE_SHARE, ROUGH_S, Live, Lives, Pace, event, kind_of, seconds_left, view

QUEUED = Job(
    id="job-1",
    kind="image",
    model="tiny",
    owner="me",
    request={"prompt": "a cat", "width": 64, "height": 64, "steps": 10},
    chosen={},
    priority=0,
    key=None,
    predicted_seconds=1.0,
    state="queued",
    attempt=0,
    losses=0,
    worker=None,
    progress={},
    created=datetime.now(UTC),
    started=None,
    finished=None,
    error=None,
    report={},
    results=(),
)


def running(since_s: float) -> Job:
    return replace(QUEUED, state="running", attempt=1, started=datetime.now(UTC) - timedelta(seconds=since_s))


def test_nothing_is_known_at_first_and_then_the_mean_of_what_was() -> None:
    pace = Pace()
    assert pace.expected("a") == ROUGH_S
    pace.took("a", 10, 100)
    pace.took("a", 20, 200)
    assert pace.expected("a") == 15 and pace.expected("another") == 15
    for number in range(Pace.KEPT):
        pace.took("a", 40, 300 + 100 * number)
    assert pace.expected("a") == 40, "old ones are forgotten"


def test_pictures_that_are_made_side_by_side_are_apart_by_less_than_they_take() -> None:
    pace = Pace()
    assert pace.apart("a") == ROUGH_S
    for ended in (100, 110, 120, 130):
        pace.took("a", 30, ended)
    assert pace.expected("a") == 30 and pace.apart("a") == (30 + 3 * 10) / 4
    for number in range(Pace.KEPT):
        pace.took("a", 20, 1000 * (number + 1))
    assert pace.apart("a") == 20, "one that was alone took all of its time"


def test_a_prediction_is_wrong_where_pictures_turned_out_otherwise() -> None:
    pace = Pace()
    pace.took(kind_of(QUEUED), 10, 100)
    assert pace.wrong(replace(QUEUED, predicted_seconds=ROUGH_S)) and pace.wrong(replace(QUEUED, predicted_seconds=5))
    assert not pace.wrong(replace(QUEUED, predicted_seconds=11))


def test_one_that_waits_needs_what_is_ahead_of_it_too() -> None:
    pace = Pace()
    pace.took(kind_of(QUEUED), 10, 100)
    assert seconds_left(QUEUED, Live(), 25.0, pace) == 35.0


def test_one_that_runs_needs_its_steps_that_are_left_and_the_decode() -> None:
    pace, live = Pace(), Live(stage="denoise", step=4, of=10, step_seconds=[9.0, 2.0, 2.0, 2.0])
    pace.took(kind_of(QUEUED), 20, 100)
    assert seconds_left(running(8), live, 0.0, pace) == pytest.approx(6 * 2.0 + DECODE_SHARE * 20)
    live.stage, live.step, live.of = "load vae", 1000, 29000
    assert seconds_left(running(8), live, 0.0, pace) == pytest.approx(DECODE_SHARE * 20), "bytes are no steps"


def test_one_before_its_first_step_needs_what_others_took_less_its_time_so_far() -> None:
    pace = Pace()
    pace.took(kind_of(QUEUED), 20, 100)
    assert seconds_left(running(5), Live(), 0.0, pace) == pytest.approx(15, abs=0.5)
    assert seconds_left(running(50), Live(), 0.0, pace) == 1.0


def test_one_that_has_ended_needs_nothing() -> None:
    assert seconds_left(replace(QUEUED, state="cancelled"), Live(), 9.0, Pace()) is None


def test_each_event_counts_and_the_last_step_is_kept() -> None:
    lives = Lives()
    lives.tell("a", Planned({}, {}, "on the CPU"))
    assert (lives.get("a").stage, lives.get("a").step) == ("plan", None)
    lives.tell("a", Advanced("denoise", 3, 10, 0.5))
    lives.tell("a", Warned("a word"))
    live = lives.tell("a", Previewed(0, 3, 10, np.zeros((1, 1, 3), np.uint8)), b"png")
    assert (live.number, live.stage, live.step, live.of, live.preview) == (4, "denoise", 3, 10, b"png")
    assert lives.get("b").number == 0
    lives.forget("a")
    assert lives.get("a").number == 0


def test_only_its_own_event_carries_a_preview() -> None:
    live = Live(number=7, stage="denoise", step=3, of=10, preview=b"png")
    seen = view(running(1), live, None, 4.0)
    assert event(seen, live, with_preview=True).preview == b"png"
    plain = event(seen, live, with_preview=False)
    assert (plain.preview, plain.number, plain.step, plain.seconds_left) == (None, 7, 3, 4.0)


def test_the_cause_of_a_lost_attempt_is_no_error_of_a_job_that_goes_on() -> None:
    lost = replace(running(1), error=Cause("worker_lost", "it ended"))
    assert view(lost, Live(), None, None).error is None
    failed = view(replace(lost, state="failed"), Live(), None, None)
    assert failed.error is not None and failed.error.code == "worker_lost"
