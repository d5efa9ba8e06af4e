"""The card's arbiter: never more given out than there is, and nobody is sent away who is at work."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relight.errors import DoesNotFit
from relight.node.card import Card


class Tenant:
    def __init__(self) -> None:
        self.busy, self.willing = False, True
        self.left = 0

    def leave(self, *, wholly: bool = False) -> bool:
        assert not self.busy
        self.left += self.willing
        return self.willing


def card(total: int = 100, **free: object) -> tuple[Card, Tenant, Tenant]:
    pictures, chat = Tenant(), Tenant()
    ours = Card(total)
    ours.join("pictures", pictures)
    ours.join("chat", chat)
    return ours, pictures, chat


def test_both_stay_where_both_fit() -> None:
    ours, pictures, chat = card()
    ours.take("pictures", 60)
    ours.take("chat", 40)
    assert ours.held() == {"pictures": 60, "chat": 40} and not pictures.left


def test_an_idle_one_leaves_for_another() -> None:
    ours, pictures, chat = card()
    ours.take("pictures", 60)
    ours.take("chat", 41)
    assert pictures.left == 1 and ours.held() == {"pictures": 0, "chat": 41}


def test_one_at_work_stays_and_the_other_is_told_what_is_left() -> None:
    ours, pictures, chat = card()
    ours.take("pictures", 60)
    pictures.busy = True
    assert ours.room("chat") == 40
    with pytest.raises(DoesNotFit, match="chat needs .*pictures"):
        ours.take("chat", 41)
    assert ours.held()["pictures"] == 60 and not pictures.left


def test_one_that_has_become_busy_meanwhile_stays() -> None:
    ours, pictures, _ = card()
    ours.take("pictures", 60)
    pictures.willing = False
    with pytest.raises(DoesNotFit, match="in use: pictures"):
        ours.take("chat", 41)
    assert ours.held() == {"pictures": 60, "chat": 0} and ours.leave_if_idle(0) == []


def test_one_that_waits_gets_its_turn() -> None:
    ours, pictures, chat = card()
    ours.take("chat", 80)
    chat.busy = True
    waiting = threading.Thread(target=ours.take_when_idle, args=("pictures", 60, lambda: False))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive() and ours.held()["pictures"] == 0
    chat.busy = False
    waiting.join(5)
    assert ours.held() == {"pictures": 60, "chat": 0} and chat.left == 1


def test_what_will_never_fit_is_refused_at_once() -> None:
    ours, _, chat = card()
    ours.join("chat", chat, pinned=True)
    ours.take("chat", 50)
    with pytest.raises(DoesNotFit):
        ours.take_when_idle("pictures", 60, lambda: False)


def test_memory_is_waited_for_until_the_device_says_it_is_free() -> None:
    said = iter([0, 0, 60])
    asked: list[int] = []

    def free() -> int:
        asked.append(next(said))
        return asked[-1]

    ours = Card(100, free)
    ours.join("pictures", Tenant())
    ours.join("chat", Tenant())
    ours.take("chat", 80)
    ours.take("pictures", 60)
    assert asked == [0, 0, 60]


def test_idle_ones_leave_after_a_while_and_pinned_ones_never() -> None:
    ours, pictures, chat = card()
    ours.join("chat", chat, pinned=True)
    ours.take("pictures", 10)
    ours.take("chat", 10)
    assert ours.leave_if_idle(60) == []
    assert ours.leave_if_idle(0) == ["pictures"] and ours.held() == {"pictures": 0, "chat": 10}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 120), st.booleans()), max_size=30))
def test_the_card_is_never_given_out_twice(wishes: list[tuple[str, int, bool]]) -> None:
    ours, tenants = Card(100), {name: Tenant() for name in "abc"}
    for name, tenant in tenants.items():
        ours.join(name, tenant)
    for name, nbytes, busy in wishes:
        tenants[name].busy = busy
        before = ours.held()
        try:
            ours.take(name, nbytes)
        except DoesNotFit:
            assert ours.held() == before
        assert sum(ours.held().values()) <= 100
        for other, tenant in tenants.items():
            assert not (tenant.busy and other != name and ours.held()[other] < before[other])
