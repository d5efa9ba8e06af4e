"""An answer beside a picture, or instead of it: the shorter exchange, by what was measured where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relight.planner.language import LanguageModel
from relight.planner.machine import Cpu, Machine, of_profile
from relight.planner.profiles import PROFILES
from relight.planner.turns import Choice, Measured, choose

GB = 10**9
LAYERS = 32
EIGHT = LanguageModel(
    path=Path("8b.gguf"),
    architecture="llama",
    format="Q4_K",
    layers=(GB // 8,) * LAYERS,
    rest=GB,
    output=GB // 2,
    kv_per_token=1 << 17,
    width=4096,
    vocabulary=128_256,
    trained_context=8192,
)
OLD = Machine(Cpu(name="four old cores", cores=4, available=8 * GB, total=16 * GB), of_profile(PROFILES["rx580-8g"]))


def chosen(**changes: Any) -> Choice:
    usual: dict[str, Any] = {
        "beside": 0,
        "alone": LAYERS + 1,
        "tokens": 256,
        "unread": 0,
        "context": 4096,
        "pictures": 7 * GB,
        "interruption_s": 10.0,
        "loaded": False,
        "measured": Measured(),
    }
    return choose(EIGHT, OLD, **usual | changes)


def test_a_long_answer_of_a_slow_processor_interrupts_and_a_short_one_does_not() -> None:
    slow = Measured(made={0: 0.5})
    assert chosen(measured=slow).interrupts
    assert not chosen(measured=slow, tokens=8).interrupts


def test_what_was_measured_counts_more_than_what_was_foretold() -> None:
    foretold = EIGHT.token_seconds(0, OLD)
    assert chosen().beside_s == pytest.approx(256 * foretold)
    assert chosen(measured=Measured(made={0: 2 * foretold})).beside_s == pytest.approx(512 * foretold)


def test_a_long_prompt_interrupts_and_a_short_one_or_one_that_was_read_does_not() -> None:
    short, long, read = (chosen(tokens=32, unread=unread) for unread in (20, 1500, 0))
    assert long.interrupts and not short.interrupts and not read.interrupts
    beside, alone = (EIGHT.reading_seconds(1500, layers, OLD) for layers in (0, LAYERS + 1))
    assert long.beside_s - read.beside_s == pytest.approx(beside) and beside > 60
    assert long.alone_s - read.alone_s == pytest.approx(alone) and alone < 10


def test_reading_that_was_measured_counts_more_than_what_was_foretold() -> None:
    quick = Measured(read={0: 0.001})
    assert not chosen(tokens=32, unread=1500, measured=quick).interrupts
    assert chosen(unread=1500, measured=quick).beside_s == pytest.approx(chosen().beside_s + 1.5)


def test_the_way_there_and_back_and_what_is_lost_are_part_of_it() -> None:
    assert OLD.gpu is not None
    upload = OLD.gpu.rates.upload
    there = EIGHT.on_gpu(LAYERS + 1, 4096) / upload
    answer = 256 * EIGHT.token_seconds(LAYERS + 1, OLD)
    assert chosen().alone_s == pytest.approx(10 + there + answer + 7 * GB / upload)
    assert chosen(interruption_s=50.0).alone_s == pytest.approx(chosen().alone_s + 40)


def test_layers_that_are_there_already_need_not_come() -> None:
    came = chosen(beside=8).beside_s - chosen(beside=8, loaded=True).beside_s
    assert OLD.gpu is not None and came == pytest.approx(EIGHT.on_gpu(8, 4096) / OLD.gpu.rates.upload)
