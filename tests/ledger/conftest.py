from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledgers import HandClock
from relight.ledger import Ledger


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def ledger(tmp_path: Path, clock: HandClock) -> Iterator[Ledger]:
    with Ledger(tmp_path / "jobs", clock=clock) as opened:
        yield opened
