"""Kept conversations: the longest beginning is found, budgets hold, files survive and broken ones do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relight.llm.asks import StateBudget
from relight.llm.states import States


def states(folder: Path | None = None, ram: int = 1000, disk: int = 10_000) -> States:
    return States(StateBudget(ram_bytes=ram, disk_bytes=disk, folder=str(folder) if folder else None, min_tokens=1))


def test_the_conversation_that_shares_most_is_found() -> None:
    kept = states()
    kept.keep("m", [1, 2, 9, 9], b"short")
    kept.keep("m", [1, 2, 3, 4], b"long")
    found = kept.best("m", [1, 2, 3, 5])
    assert found is not None
    key, shared = found
    taken = kept.take(key)
    assert taken is not None
    assert (shared, taken[0].tolist(), taken[1]) == (3, [1, 2, 3, 4], b"long")


def test_a_conversation_of_another_model_is_not_found() -> None:
    kept = states()
    kept.keep("a", [1, 2], b"x")
    assert kept.best("b", [1, 2]) is None


def test_a_longer_conversation_takes_the_place_of_its_beginning() -> None:
    kept = states()
    kept.keep("m", [1, 2], b"x")
    kept.keep("m", [1, 2, 3], b"xy")
    assert (len(kept), kept.ram_bytes) == (1, 2)


def test_without_a_folder_the_least_recently_used_goes() -> None:
    kept = states(ram=10)
    for first in (1, 2, 3):
        kept.keep("m", [first, 0], b"1234")
        if first == 2:
            found = kept.best("m", [1])
            assert found is not None
            kept.take(found[0])
    assert [kept.best("m", [first]) is not None for first in (1, 2, 3)] == [True, False, True]
    assert kept.ram_bytes == 8


def test_what_ram_has_no_room_for_goes_to_files_and_comes_back(tmp_path: Path) -> None:
    kept = states(tmp_path, ram=0)
    kept.keep("m", [1, 2, 3], b"abc")
    assert (kept.ram_bytes, kept.disk_bytes, len(list(tmp_path.iterdir()))) == (0, 3, 1)
    found = kept.best("m", [1, 2, 3, 4])
    assert found is not None
    taken = kept.take(found[0])
    assert taken is not None
    assert taken[1] == b"abc"


def test_the_disks_budget_holds_and_the_oldest_goes_first(tmp_path: Path) -> None:
    kept = states(tmp_path, ram=0, disk=7)
    for first in (1, 2, 3):
        kept.keep("m", [first], b"123")
    assert (len(kept), kept.disk_bytes, len(list(tmp_path.iterdir()))) == (2, 6, 2)
    assert kept.best("m", [1]) is None


def test_another_process_finds_what_was_flushed(tmp_path: Path) -> None:
    kept = states(tmp_path)
    kept.keep("m", [1, 2], b"xyz")
    assert kept.flush() == 1
    again = states(tmp_path)
    found = again.best("m", [1, 2])
    assert found is not None
    taken = again.take(found[0])
    assert taken is not None
    assert taken[1] == b"xyz"


def flushed(folder: Path) -> Path:
    kept = states(folder)
    kept.keep("m", [1, 2], b"xyz" * 100)
    kept.flush()
    (file,) = folder.iterdir()
    return file


def test_a_flipped_bit_is_seen_and_the_conversation_forgotten(tmp_path: Path) -> None:
    file = flushed(tmp_path)
    raw = bytearray(file.read_bytes())
    raw[-5] ^= 1
    file.write_bytes(raw)
    again = states(tmp_path)
    found = again.best("m", [1, 2])
    assert found is not None
    assert again.take(found[0]) is None
    assert (len(again), list(tmp_path.iterdir())) == (0, [])


@pytest.mark.parametrize("raw", [b"", b"{}\n", b"no header", b'{"model": "m", "tokens": -1, "size": 3}\n', b"[" * 9000])
def test_a_file_that_is_no_conversation_is_passed_over(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "x.state").write_bytes(raw)
    assert len(states(tmp_path)) == 0


def test_a_file_cut_short_is_removed(tmp_path: Path) -> None:
    file = flushed(tmp_path)
    os.truncate(file, file.stat().st_size - 1)
    assert len(states(tmp_path)) == 0
    assert not file.exists()


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    assert flushed(tmp_path).stat().st_mode & 0o077 == 0
