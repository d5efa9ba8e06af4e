"""What is shown while a picture is made: plain lines where stderr is no terminal, bars on one."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from relight.jobs.events import Advanced, Event, Planned, Previewed, Warned
from relight.jobs.output import Previews
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


def test_a_second_pass_has_a_bar_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress() as progress:
        for done, total in ((1, 2), (2, 2), (1, 3), (3, 3)):
            progress.on_event(Advanced("denoise", done, total, 0.5))
    assert "2/2 [" in stream.getvalue() and "3/3 [" in stream.getvalue()


@pytest.mark.parametrize(("stage", "unit"), [("denoise", "step"), ("upscale", "tile"), ("encode picture", "tile")])
def test_every_stage_counts_in_something(monkeypatch: pytest.MonkeyPatch, stage: str, unit: str) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress() as progress:
        progress.on_event(Advanced(stage, 4, 4))
    assert stream.getvalue() == f"{stage}: 4 {unit}(s) done\n"


def test_previews_go_to_their_folder_if_there_is_one(tmp_path: Path) -> None:
    preview = Previewed(0, 1, 4, np.zeros((8, 8, 3), np.uint8))
    Progress().on_event(preview)
    Progress(Previews(tmp_path, "cat")).on_event(preview)
    assert [path.name for path in tmp_path.iterdir()] == ["cat-preview-1.png"]


def test_an_interrupted_bar_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(KeyboardInterrupt), Progress() as progress:
        progress.on_event(Advanced("denoise", 1, 4, 0.5))
        raise KeyboardInterrupt
    assert stream.getvalue().endswith("\n")
