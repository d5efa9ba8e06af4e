"""Which slot a prompt gets."""

from __future__ import annotations

from typing import Any

from relight.llm.slots import Slot, best_slot, common_prefix

BUSY: Any = object()


def test_common_prefix_counts_what_is_equal_at_the_beginning() -> None:
    assert [common_prefix([1, 2, 3], other) for other in ([], [1], [1, 2, 4], [1, 2, 3, 4], [9])] == [0, 1, 2, 3, 0]


def test_the_slot_that_remembers_most_is_taken() -> None:
    slots = [Slot(0, [1, 9]), Slot(1, [1, 2, 3]), Slot(2)]
    assert best_slot(slots, [1, 2, 3, 4]) == (slots[1], 3)


def test_a_busy_slot_is_left_alone() -> None:
    slots = [Slot(0, [1, 2], turn=BUSY), Slot(1)]
    assert best_slot(slots, [1, 2, 3]) == (slots[1], 0)
    slots[1].turn = BUSY
    assert best_slot(slots, [1, 2, 3]) is None


def test_a_short_common_beginning_does_not_take_a_long_conversation_away() -> None:
    slots = [Slot(0, [1, 2, *range(100, 120)]), Slot(1)]
    assert best_slot(slots, [1, 2, 3]) == (slots[1], 0)


def test_where_nothing_fits_the_longest_unused_goes() -> None:
    slots = [Slot(0, [5], used=2.0), Slot(1, [6], used=1.0)]
    assert best_slot(slots, [7]) == (slots[1], 0)
