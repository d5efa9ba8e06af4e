"""docs/ledger.md names the tests that hold its promises, and the defaults as they are."""

from __future__ import annotations

import re
from pathlib import Path

from relight.ledger import Keep, Limits, schema
from relight.ledger.admission import LATE_S, LONGEST_S
from relight.ledger.records import DAY_S, GIB

TESTS = Path(__file__).parent.parent
PAGE = (TESTS.parent / "docs/ledger.md").read_text()


def test_every_test_that_is_named_is_there() -> None:
    files = [*TESTS.glob("ledger/*.py"), *TESTS.glob("faults/*.py")]
    there = {file.name for file in files}
    for file in files:
        there.update(re.findall(r"def (test_\w+)", file.read_text()))
    named = re.findall(r"`(test_[\w.]+)`", PAGE)
    assert len(named) > 20
    assert set(named) - there == set()


def test_the_page_states_the_defaults() -> None:
    keep, limits = Keep(), Limits()
    for words in (
        f"for {keep.age_s / DAY_S:.0f} days, {keep.jobs:,} of them and {keep.size_bytes // GIB} GiB",
        f"{limits.input_bytes // GIB} GiB of inputs and {limits.queued} jobs",
        f"less than {limits.free_bytes >> 20} MiB free",
        f"1 to {LONGEST_S} s",
        f"until {LATE_S:.0f} s after its time",
        f"SQLite {'.'.join(map(str, schema.MINIMUM_SQLITE[:2]))} or newer",
    ):
        assert words in PAGE, words
    assert (limits.losses, limits.interruptions) == (3, 10)
