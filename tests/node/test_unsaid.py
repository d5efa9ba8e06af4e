"""Requests for pictures and the settings that they leave to."""

from __future__ import annotations

from typing import Any

import pytest

from relight.configuration.schema import build
from relight.node.unsaid import said, unsaid

SAID: dict[str, Any] = {
    "runtime.denoise_steps": 8,
    "runtime.resolution": (512, 768),
    "picture.sampler": "heun",
    "picture.schedule": "karras",
}
USUAL = {"steps": 8, "sampler": "heun", "schedule": "karras", "width": 512, "height": 768}


def test_settings_are_told_in_the_words_of_a_request_and_defaults_are_not() -> None:
    assert said(build(SAID)) == USUAL
    assert said(build({})) == {}


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        ({}, set(USUAL)),
        ({"steps": 2, "width": 64}, {"sampler", "schedule"}),
        ({"sampler": "euler"}, {"steps", "width", "height"}),
        ({"sigmas": [1.0, 0.0]}, {"sampler", "width", "height"}),
        ({"redraw": {"image": "a"}}, {"steps", "sampler", "schedule"}),
    ],
)
def test_what_a_request_says_goes_before_them(asked: dict[str, Any], taken: set[str]) -> None:
    found = unsaid(USUAL, {"prompt": "x"} | asked)
    assert found == {word: USUAL[word] for word in taken}
