"""What a person sees while bytes move."""

from __future__ import annotations

import io

import pytest

from relight.store.display import Display, amount, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_a_line_comes_every_half_minute() -> None:
    out, clock = io.StringIO(), Clock()
    with Display("set", 12_000_000, 2_000_000, out=out, clock=clock) as display:
        for clock.now in (10, 20, 31, 45, 62):
            display.advance(1_000_000)
    assert out.getvalue().splitlines() == [
        "set: 5.0 MB of 12.0 MB, 96.8 kB/s, 1 min 12 s left",
        "set: 7.0 MB of 12.0 MB, 80.6 kB/s, 1 min 2 s left",
    ]


def test_a_terminal_shows_one_bar_from_what_was_there_before() -> None:
    out = Terminal()
    with Display("set", 4_000_000, 1_000_000, out=out) as display:
        display.advance(3_000_000)
        display.say("a file is done")
    assert "4.00M/4.00M" in out.getvalue() and "a file is done\n" in out.getvalue()


def test_bytes_thrown_away_are_taken_back() -> None:
    display = Display("set", 100, out=io.StringIO())
    display.advance(60)
    display.advance(-60)
    assert display.done == 0


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_999, "1.0 MB"),
        (246_144_152, "246 MB"),
        (6_783_943_712, "6.8 GB"),
    ],
)
def test_sizes_are_in_the_units_of_disks(size: int, text: str) -> None:
    assert amount(size) == text


def test_durations() -> None:
    assert [duration(s) for s in (0.4, 59.6, 61, 3600, 7384)] == [
        "0 s",
        "1 min 0 s",
        "1 min 1 s",
        "1 h 0 min",
        "2 h 3 min",
    ]
