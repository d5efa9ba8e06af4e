"""How often faults are made, by environment variables, and the figures that come of it, at the end of the run."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

FIGURES: list[str] = []


@pytest.fixture
def count() -> Callable[[str, int], int]:
    """`count("POWER_CUTS", 2000)`: $RELIGHT_FAULTS_POWER_CUTS where it is set."""
    return lambda name, default: int(os.environ.get(f"RELIGHT_FAULTS_{name}", default))


@pytest.fixture
def figure() -> Callable[[str], None]:
    """A line for the end of the run."""
    return FIGURES.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in FIGURES:
        terminalreporter.write_line(line)
