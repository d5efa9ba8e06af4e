"""Sizes that a request leaves open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relight.jobs.request import Control, GenerateRequest, Redraw
from relight.jobs.size import size_of


def picture(width: int, height: int) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def asked(across: int, down: int, **values: Any) -> GenerateRequest:
    return GenerateRequest(prompt="", redraw=Redraw(image=picture(across, down)), **values)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (GenerateRequest(prompt=""), (512, 512)),
        (GenerateRequest(prompt="", width=640), (640, 512)),
        (asked(800, 600), (800, 600)),
        (asked(801, 597), (800, 600)),
        (asked(320, 240), (320, 240)),
        (asked(4000, 3000), (840, 624)),
        (asked(9000, 90), (4096, 72)),
        (asked(800, 600, width=512, height=512), (512, 512)),
        (asked(800, 600, width=400), (400, 304)),
        (asked(800, 600, height=1200), (1600, 1200)),
    ],
)
def test_an_open_size_follows_the_picture(request_: GenerateRequest, expected: tuple[int, int]) -> None:
    assert size_of(request_, "sd1", 512) == expected


def test_a_masked_region_is_painted_at_the_usual_size() -> None:
    mask = np.ones((3000, 4000), np.float32)
    redraw = Redraw(image=picture(4000, 3000), mask=mask, only_masked=True)
    assert size_of(GenerateRequest(prompt="", redraw=redraw), "sd1", 512) == (512, 512)


def test_a_controlling_picture_gives_the_size_where_no_other_does() -> None:
    control = Control(path=Path("canny.safetensors"), image=picture(768, 512))
    assert size_of(GenerateRequest(prompt="", controls=(control,)), "sdxl", 1024) == (768, 512)
    redraw = Redraw(image=picture(512, 768))
    assert size_of(GenerateRequest(prompt="", redraw=redraw, controls=(control,)), "sdxl", 1024) == (512, 768)
