"""Character maps: what passes the check cannot lead the library that applies them out of bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import normalizers

from relight.models.charsmap import why_not

ROOT, NODE, VALUE = 0, 256 ^ ord("A"), 257


def charsmap(changes: dict[int, int] | None = None, replacements: bytes = b"b\0") -> bytes:
    """Turns A into b: the root leads to the block at cell 256, the node for A there to the value beside it."""
    cells = np.zeros(512, "<u4")
    cells[ROOT] = 256 << 10
    cells[NODE] = (NODE ^ VALUE) << 10 | 0x100 | ord("A")
    cells[VALUE] = 0x8000_0000
    for place, cell in (changes or {}).items():
        cells[place] = cell
    return cells.nbytes.to_bytes(4, "little") + cells.tobytes() + replacements


def test_a_sound_map_passes_and_maps() -> None:
    assert why_not(charsmap()) is None
    assert normalizers.Precompiled(charsmap()).normalize_str("CAB") == "CbB"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (b"", "said to have 0 bytes, and 0 follow"),
        (b"\xff\xff\xff\x7f1234", "said to have 2147483647 bytes, and 4 follow"),
        (charsmap()[:500], "said to have 2048 bytes, and 496 follow"),
        (charsmap({ROOT: 0x8000_0000}), "no root"),
        (charsmap({ROOT: 512 << 10}), "points at cell 767 of 512"),
        (charsmap({ROOT: 2 << 10 | 0x200}), "points at cell 767 of 512"),
        (charsmap({VALUE: 5}), "a node where a value should be"),
        (charsmap({VALUE: 0x8000_0002}), "points at byte 2 of 2 bytes"),
        (charsmap({VALUE: 0x8000_0001}, "ä\0".encode()), "middle of a character"),
        (charsmap(replacements=b"\xff\0"), "not UTF-8 at byte 0"),
    ],
)
def test_a_broken_map_is_refused_with_the_reason(broken: bytes, reason: str) -> None:
    assert reason in (why_not(broken) or "")


@given(
    st.dictionaries(st.sampled_from([ROOT, NODE, VALUE, 0, 300]), st.integers(0, 2**32 - 1)),
    st.text(alphabet="AB\0é", max_size=8),
)
@example({NODE: 0x100 | ord("A")}, "A")
def test_what_passes_the_check_is_applied_without_a_crash(changes: dict[int, int], text: str) -> None:
    changed = charsmap(changes, "bé\0".encode())
    if why_not(changed) is None:
        normalizers.Precompiled(changed).normalize_str(text)
