"""Text that is shown as it comes: whole characters, no stop strings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relight.llm.text import TextStream


def test_a_character_in_two_tokens_is_shown_once_it_is_whole() -> None:
    stream = TextStream()
    assert [stream.feed(b"a\xc3"), stream.feed(b"\xa9b"), stream.end()] == ["a", "éb", ""]


def test_an_unfinished_character_becomes_a_sign_at_the_end() -> None:
    stream = TextStream()
    assert (stream.feed(b"\xf0\x9f"), stream.end()) == ("", "\ufffd")


def test_a_stop_string_across_three_tokens_is_never_shown() -> None:
    stream = TextStream(["STOP"])
    assert [stream.feed(b"go S"), stream.feed(b"TO"), stream.feed(b"P on")] == ["go ", "", ""]
    assert stream.stopped
    assert stream.end() == ""


def test_what_only_began_like_a_stop_string_is_shown() -> None:
    stream = TextStream(["STOP"])
    assert stream.feed(b"a ST") + stream.feed(b"ILL") + stream.end() == "a STILL"
    assert not stream.stopped


def test_the_first_of_several_stop_strings_counts() -> None:
    stream = TextStream(["end", "b"])
    assert stream.feed(b"a b end") == "a "


@given(text=st.text(max_size=60), stop=st.text(min_size=1, max_size=4), data=st.data())
def test_any_split_of_the_bytes_gives_the_text_before_the_stop(text: str, stop: str, data: st.DataObject) -> None:
    raw = text.encode(errors="replace")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    stream = TextStream([stop])
    parts = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert "".join(map(stream.feed, parts)) + stream.end() == raw.decode().split(stop)[0]


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_stop_string_of_wide_characters_is_found_at_every_cut(cut: int) -> None:
    raw = "ab🦊cd".encode()
    stream = TextStream(["🦊"])
    assert stream.feed(raw[:cut]) + stream.feed(raw[cut:]) + stream.end() == "ab"
