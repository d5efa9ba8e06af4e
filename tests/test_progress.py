"""What is shown while a picture is made: plain lines where stderr is no terminal, bars on one."""

from __future__ import annotations

import io
import sys

import pytest

from relight.jobs.events import Advanced, Event, Planned, Warned
from relight.progress import Progress

EVENTS: list[Event] = [
    Planned({"vae": "cpu"}, {}, "vae on cpu"),
    Warned("the prompt was cut"),
    Advanced("load diffusion", 1 << 20, 2 << 20),
    Advanced("load diffusion", 2 << 20, 2 << 20),
    Advanced("denoise", 1, 2, 0.5),
    Advanced("denoise", 2, 2, 0.5),
    Advanced("decode", 1, 1, picture=1),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress() as progress:
        for event in EVENTS:
            progress.on_event(event)
    return stream.getvalue()


def test_without_a_terminal_each_finished_stage_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, io.StringIO()).splitlines() == [
        "vae on cpu",
        "note: the prompt was cut",
        "denoise: 2 step(s) done",
        "decode: 1 tile(s) done",
    ]


def test_on_a_terminal_stages_are_bars_and_loading_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, Terminal())
    assert "note: the prompt was cut\n" in text
    assert "2/2 [" in text and "step/s" in text or "s/step" in text
    assert "load diffusion" in text and "decode 2" in text
    final = text.split("\r")[-1]
    assert "load diffusion" not in final


def test_an_interrupted_bar_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(KeyboardInterrupt), Progress() as progress:
        progress.on_event(Advanced("denoise", 1, 4, 0.5))
        raise KeyboardInterrupt
    assert stream.getvalue().endswith("\n")
