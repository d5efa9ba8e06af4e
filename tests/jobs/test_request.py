"""What may be asked for."""

from __future__ import annotations

from typing import Any

import pytest

from relight.errors import RequestError
from relight.jobs.request import MAX_SEED, GenerateRequest


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"width": 1000}, "1000x1024 cannot be made"),
        ({"height": 8192}, "nearest is 1024x4096"),
        ({"steps": 0}, "steps 0: 1 to 1000"),
        ({"batch": -1}, "batch -1: 1 to 64"),
        ({"seed": -1}, "seed -1: 0 to"),
        ({"seed": MAX_SEED, "batch": 2}, f"seed {MAX_SEED}: 0 to {MAX_SEED - 2}"),
        ({"guidance": float("nan")}, "guidance nan: 0 to 100"),
        ({"sigmas": []}, "sigmas"),
        ({"sigmas": [1, float("inf")]}, "number 2 is inf"),
        ({"sampler": "ddim"}, "sampler: 'ddim'"),
        ({"schedule": "beta"}, "schedule: 'beta'"),
        ({"rng": ""}, "rng: ''"),
        ({"tile": 15}, "vae tile size 15: 16 to 512"),
        ({"text_tokens": 513}, "text tokens 513: 1 to 512"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        GenerateRequest(prompt="a cat", **wrong)


def test_sigmas_stand_for_a_schedule_of_any_name() -> None:
    assert GenerateRequest(prompt="", schedule="mine", sigmas=[1.0, 0.5]).sigmas == [1.0, 0.5]


def test_a_seed_is_drawn_once_where_none_is_given() -> None:
    seeded = GenerateRequest(prompt="a cat").with_seed()
    assert seeded.seed is not None and seeded.with_seed() is seeded
    assert GenerateRequest(prompt="a cat", seed=0).with_seed().seed == 0
