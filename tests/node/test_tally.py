"""What `/metrics` tells of what was done."""

from __future__ import annotations

import pytest

from relight.llm.asks import Usage
from relight.node.tally import Tally

REPORT = {
    "seeds": [1, 2],
    "seconds": {"load": {"vae": 0.5, "t5xxl": 1.5}, "denoise": 4.0, "steps": [[1.0, 1.0], [1.0, 1.0]], "total": 5.0},
    "devices": {"vulkan0": {"peak_bytes": 7, "free_bytes": 1}},
}


def told(tally: Tally) -> dict[str, dict[tuple[str, ...], float]]:
    return {each.name: {tuple(labels.values()): value for labels, value in each.values} for each in tally.metrics()}


def test_seconds_of_stages_add_up_and_bytes_are_the_last_ones() -> None:
    tally = Tally()
    for _ in range(2):
        tally.made("flux", REPORT)
    seen = told(tally)
    assert seen["pictures"] == {("flux",): 4}
    assert seen["stage_seconds"] == {("flux", "load"): 4.0, ("flux", "denoise"): 8.0}
    assert seen["device_peak_bytes"] == {("vulkan0",): 7}


def test_tokens_add_up_and_their_pace_is_that_of_the_last_answer() -> None:
    tally = Tally()
    for seconds in (1.0, 2.0):
        tally.answered("words", Usage(100, 60, 11, 0.5, seconds))
    seen = told(tally)
    assert seen["tokens"] == {("words", "read"): 80, ("words", "reused"): 120, ("words", "written"): 22}
    assert seen["token_seconds"] == {("words", "read"): 1.0, ("words", "written"): 3.0}
    assert seen["tokens_per_second"] == {("words",): pytest.approx(5.0)}
