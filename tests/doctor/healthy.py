"""A machine with nothing wrong, to break in one place at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from doctor import machines
from relight.doctor.facts.cards import Card
from relight.doctor.facts.vulkan import VulkanDevice
from relight.doctor.finding import Finding, Level
from relight.doctor.machine import Machine

Check = Callable[[Machine], Iterator[Finding]]


@cache
def healthy() -> Machine:
    """RX 470 4 GB as in machines.rx470_rebar; nothing of it is read again."""
    with tempfile.TemporaryDirectory() as folder:
        return machines.rx470_rebar(Path(folder)).machine()


def card(**changes: Any) -> Machine:
    return replace(healthy(), cards=(replace(healthy().cards[0], **changes),))


def the_card() -> Card:
    return healthy().cards[0]


def device(**changes: Any) -> Machine:
    """With its Vulkan device changed."""
    changed = replace(healthy().vulkan.devices[0], **changes)
    return replace(healthy(), vulkan=replace(healthy().vulkan, devices=(changed,)))


def the_device() -> VulkanDevice:
    return healthy().vulkan.devices[0]


def environ(**variables: str) -> Machine:
    return replace(healthy(), environ=variables)


def level(check: Check, machine: Machine) -> Level:
    """The worst of a check's findings; it must have some."""
    found = list(check(machine))
    assert found, "the check says nothing"
    return max((each.level for each in found), key=list(Level).index)


def only(check: Check, machine: Machine) -> Finding:
    """The one finding of a check."""
    (found,) = check(machine)
    return found
