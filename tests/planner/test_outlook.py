"""The card that is here, as its driver and the settings bound it."""

from __future__ import annotations

from typing import Any

import pytest

from relight.planner.machine import of_device, of_profile
from relight.planner.outlook import filled, largest_allocation
from relight.planner.profiles import PROFILES
from relight.tuning import identity

GIB = 1 << 30
RADV = {"name": "AMD Radeon RX 580 Series (RADV POLARIS10)", "max_allocation_bytes": 4 * GIB - 4}
WINDOWS = {"name": "Radeon RX 580 Series", "max_allocation_bytes": 2 * GIB, "max_buffer_bytes": None}
NVIDIA = {"name": "NVIDIA H100", "max_allocation_bytes": 4 * GIB, "max_buffer_bytes": 1 << 40}


@pytest.mark.parametrize(
    ("drivers", "description", "expected"),
    [
        ([NVIDIA, RADV], RADV["name"], 4 * GIB - 4),
        ([WINDOWS], WINDOWS["name"], 2 * GIB),
        ([NVIDIA], "NVIDIA H100 80GB HBM3", None),
        ([], "Radeon", None),
    ],
)
def test_the_largest_allocation_is_the_drivers(
    drivers: list[dict[str, Any]], description: str, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "probed", lambda: drivers)
    assert largest_allocation(description, 8 * GIB) == expected


def test_a_share_of_the_card_bounds_what_is_free() -> None:
    card = of_profile(PROFILES["rx580-8g"])
    assert filled(card, 0.5, card.total).budget == 4 * GIB
    assert filled(card, 1.0, card.total).budget == filled(card, None, card.total).budget == card.budget


def test_the_speed_of_an_unknown_card_is_said_to_be_anothers() -> None:
    described = {"name": "vulkan0", "memory_total": 8 * GIB, "memory_free": 7 * GIB}
    unknown = of_device(described | {"description": "Moore Threads MTT S70"}, 6 * GIB)
    polaris = of_device(described | {"description": RADV["name"]}, 6 * GIB)
    assert unknown.rates.source == "those of an RX 580, since this card is not known"
    assert polaris.rates.source == "published peaks" and polaris.rates.matrix == unknown.rates.matrix
