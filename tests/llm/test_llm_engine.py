"""What a step puts into its batch."""

from __future__ import annotations

from typing import Any

from relight.llm.asks import LoadSettings
from relight.llm.engine import Engine
from relight.llm.slots import Slot, Turn


class FakeBatch:
    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, bool]] = []  # token, position, slot, whether it has logits

    def clear(self) -> None:
        self.rows.clear()

    def add(self, token: int, position: int, slots: list[int], logits: bool) -> None:
        self.rows.append((token, position, slots[0], logits))


def turn(generated: int) -> Turn:
    nothing: Any = None
    return Turn([1], nothing, 9, nothing, nothing, generated=generated)


def engine(*slots: Slot, batch: int = 32) -> Any:
    made: Any = Engine.__new__(Engine)
    made.settings, made.slots, made.batch, made._rate = LoadSettings(batch=batch), list(slots), FakeBatch(), 0.0
    return made


def answering(number: int, used: float) -> Slot:
    return Slot(number, tokens=[7, 7], todo=[100 + number], turn=turn(1), used=used)


def reading(number: int, used: float, length: int) -> Slot:
    return Slot(number, todo=list(range(length)), turn=turn(0), used=used)


def test_rows_ascend_by_slot_whoever_came_first() -> None:
    made = engine(answering(0, 3.0), answering(1, 1.0), answering(2, 2.0))
    rows = made._fill(made.slots)
    assert [(slot.number, count, row) for slot, count, row in rows] == [(0, 1, 0), (1, 1, 1), (2, 1, 2)]
    assert made.batch.rows == [(100, 2, 0, True), (101, 2, 1, True), (102, 2, 2, True)]


def test_answers_come_before_prompts_and_prompts_in_the_order_they_came() -> None:
    made = engine(reading(0, 2.0, 40), reading(1, 1.0, 20), answering(2, 3.0))
    assert made._share(made.slots) == {2: 1, 1: 20, 0: 11}


def test_only_the_last_token_of_a_prompt_asks_for_logits() -> None:
    made = engine(reading(0, 1.0, 40))
    made._fill(made.slots)
    assert [logits for *_, logits in made.batch.rows] == [False] * 32
    made.slots[0].todo = [5, 6]
    made._fill(made.slots)
    assert made.batch.rows == [(5, 0, 0, False), (6, 1, 0, True)]


def test_a_slow_model_reads_in_smaller_parts_while_answers_wait() -> None:
    made = engine(reading(0, 1.0, 500), answering(1, 2.0), batch=512)
    made._rate = 400.0  # tokens a second
    assert made._share(made.slots)[0] == 100
    assert made._share(made.slots[:1])[0] == 400
