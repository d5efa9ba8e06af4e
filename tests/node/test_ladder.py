"""Which way a picture is tried after failures, and what is remembered of that."""

from __future__ import annotations

from relight.jobs.engine import EngineSettings
from relight.jobs.rungs import CAREFUL_SHARE, RUNGS, following
from relight.node.ladder import FORGET_S, Ladder


def test_each_failure_of_a_job_is_answered_by_a_safer_way() -> None:
    ladder = Ladder()
    assert [ladder.rung("kind", losses) for losses in range(4)] == [*RUNGS, RUNGS[-1]]
    assert [following(rung) for rung in RUNGS] == [*RUNGS[1:], None]


def test_want_of_memory_is_remembered_at_once_and_a_death_the_second_time() -> None:
    ladder = Ladder()
    ladder.worked("large", RUNGS[1], sure=True)
    ladder.worked("small", RUNGS[2], sure=False)
    assert ladder.rung("large", 0) is RUNGS[1] and ladder.rung("large", 1) is RUNGS[2]
    assert ladder.rung("small", 0) is RUNGS[0]
    ladder.worked("small", RUNGS[1], sure=False)
    assert ladder.rung("small", 0) is RUNGS[1], "what was needed both times"


def test_after_an_hour_the_better_way_is_tried_again() -> None:
    now = 0.0
    ladder = Ladder(lambda: now)
    ladder.worked("kind", RUNGS[2], sure=True)
    now = FORGET_S
    assert ladder.rung("kind", 0) is RUNGS[2]
    now = FORGET_S + 1
    assert ladder.rung("kind", 0) is RUNGS[0]


def test_the_careful_way_leaves_some_of_the_card_and_keeps_a_smaller_share() -> None:
    assert RUNGS[1].settings(EngineSettings()).max_vram_share == CAREFUL_SHARE
    assert RUNGS[1].settings(EngineSettings(max_vram_share=0.5)).max_vram_share == 0.5
    assert RUNGS[0].settings(EngineSettings()).max_vram_share is None
