"""When a model is left alone, for how long, and what ends that."""

from __future__ import annotations

import pytest

from relight.errors import ModelStopped
from relight.node.breaker import BACK_OFF_S, DEATHS, LONGEST_PAUSE_S, PAUSE_S, WITHIN_S, Breaker


class Hand:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def breaker(hand: Hand) -> Breaker:
    return Breaker(hand)


def kill(breaker: Breaker, times: int = DEATHS) -> None:
    for _ in range(times):
        breaker.lost("sick")


def test_five_deaths_stop_that_model_only(breaker: Breaker) -> None:
    kill(breaker, DEATHS - 1)
    breaker.lost("other")
    assert breaker.stopped() == {}
    breaker.check("sick")
    kill(breaker, 1)
    assert breaker.stopped() == {"sick": PAUSE_S} and breaker.blocked({}) == ["sick"]
    with pytest.raises(ModelStopped, match=r"sick is stopped .* tried again in 60 s") as caught:
        breaker.check("sick")
    assert caught.value.retry_after_s == PAUSE_S + 1
    breaker.check("other")
    assert breaker.deaths() == {"sick": DEATHS, "other": 1}


def test_deaths_far_apart_stop_nothing(breaker: Breaker, hand: Hand) -> None:
    for _ in range(3 * DEATHS):
        breaker.lost("sick")
        hand.now += WITHIN_S / (DEATHS - 1) + 0.1
    assert breaker.stopped() == {}


def test_hanging_stops_it_though_each_takes_long_to_be_found_out(breaker: Breaker, hand: Hand) -> None:
    for _ in range(DEATHS):
        assert breaker.stopped() == {}
        hand.now += 10 * WITHIN_S
        breaker.lost("sick", 10 * WITHIN_S)
    assert breaker.stopped() == {"sick": PAUSE_S}


def test_a_picture_between_begins_the_count_anew(breaker: Breaker) -> None:
    for _ in range(3 * DEATHS):
        breaker.lost("sick")
        breaker.worked("sick")
    assert breaker.stopped() == {} and breaker.deaths() == {"sick": 3 * DEATHS}


def test_after_the_pause_one_job_is_tried_and_its_picture_closes_it(breaker: Breaker, hand: Hand) -> None:
    kill(breaker)
    hand.now += PAUSE_S
    assert breaker.stopped() == {"sick": 0.0}
    assert breaker.blocked({"other": 3}) == [] and breaker.blocked({"sick": 1}) == ["sick"]
    breaker.check("sick")
    breaker.worked("sick")
    assert breaker.stopped() == {} and breaker.blocked({"sick": 1}) == []


def test_another_death_stops_it_for_twice_as_long(breaker: Breaker, hand: Hand) -> None:
    kill(breaker)
    pauses = []
    for _ in range(6):
        pauses.append(breaker.stopped()["sick"])
        hand.now += pauses[-1] + 1
        breaker.lost("sick")
    assert pauses == [60, 120, 240, 480, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


def test_jobs_that_were_at_work_when_it_was_stopped_do_not_prolong_that(breaker: Breaker, hand: Hand) -> None:
    kill(breaker, DEATHS)
    hand.now += 1
    kill(breaker, 2)
    assert breaker.stopped() == {"sick": PAUSE_S - 1} and breaker.deaths() == {"sick": DEATHS + 2}


def test_workers_are_started_again_with_growing_pauses(breaker: Breaker, hand: Hand) -> None:
    kill(breaker, 1)
    assert breaker.blocked({}) == [], "the first death may be a chance"
    for doubled in range(3):
        kill(breaker, 1)
        pause = BACK_OFF_S * 2**doubled
        hand.now += pause * 0.99
        assert breaker.blocked({}) == ["sick"]
        hand.now += pause * 0.02
        assert breaker.blocked({}) == []
