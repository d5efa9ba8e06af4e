"""Prompt editing against the examples that A1111 publishes beside its grammar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relight.prompts import at_step, schedule


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("test", [(10, "test")]),
        ("a [b:3]", [(3, "a "), (10, "a b")]),
        ("a [b: 3]", [(3, "a "), (10, "a b")]),
        ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]),
        ("[(a:2):3]", [(3, ""), (10, "(a:2)")]),
        ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
        ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
        ("a [unbalanced", [(10, "a [unbalanced")]),
        ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
        ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
        ("[a|(b:1.1)]", [(i, "a" if i % 2 else "(b:1.1)") for i in range(1, 11)]),
        ("[fe|]male", [(i, "female" if i % 2 else "male") for i in range(1, 11)]),
        ("[fe|||]male", [(i, "female" if i % 4 == 1 else "male") for i in range(1, 11)]),
    ],
)
def test_the_published_examples_change_as_published(text: str, expected: list[tuple[int, str]]) -> None:
    assert schedule(text, 10) == expected


def test_the_published_landscape_changes_as_published() -> None:
    text = (
        "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75]"
        "[ in foreground::0.6][ in background:0.25] [shoddy:masterful:0.5]"
    )
    assert schedule(text, 100) == [
        (25, "fantasy landscape with a mountain and an oak in foreground shoddy"),
        (50, "fantasy landscape with a lake and an oak in foreground in background shoddy"),
        (60, "fantasy landscape with a lake and an oak in foreground in background masterful"),
        (75, "fantasy landscape with a lake and an oak in background masterful"),
        (100, "fantasy landscape with a lake and a christmas tree in background masterful"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a:b:0]", [(10, "b")]),
        ("[a:b:-2]", [(10, "b")]),
        ("[a:b:99]", [(10, "a")]),
        ("[a:b:1.0]", [(10, "a")]),
        ("[a:b:1]", [(1, "a"), (10, "b")]),
        ("[a::3]", [(3, "a"), (10, "")]),
        (r"[\[a\]:b\:c:3]", [(3, r"\[a\]"), (10, r"b\:c")]),
        ("[a:b] [c:d:e]", [(10, "[a:b] [c:d:e]")]),
        ("(a:1.2) [b] [c", [(10, "(a:1.2) [b] [c")]),
        ("a | b [c:3]", [(10, "a | b [c:3]")]),
        ("[a|b:3]", [(10, "[a|b:3]")]),
        ("[c:3] \\", [(10, "[c:3] \\")]),
        ("[a:b:" + "9" * 400 + "]", [(10, "a")]),
    ],
)
def test_edges(text: str, expected: list[tuple[int, str]]) -> None:
    assert schedule(text, 10) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a [b:.5] c", [(10, "a b c")]),
        ("a [b:1.5] c", [(5, "a  c"), (10, "a b c")]),
        ("a [b:12] c", [(2, "a  c"), (10, "a b c")]),
        ("a [b:8] c", [(10, "a b c")]),
        ("[a|b]", [(i, "a" if i % 2 else "b") for i in range(1, 11)]),
    ],
)
def test_a_second_pass_goes_on_where_the_first_ended(text: str, expected: list[tuple[int, str]]) -> None:
    assert schedule(text, 10, first_pass=10) == expected


def test_a_step_is_looked_up_as_a1111_does() -> None:
    scheduled = schedule("a [b:3]", 5)
    assert [at_step(scheduled, index) for index in range(6)] == ["a "] * 4 + ["a b"] * 2
    assert at_step(scheduled, 9) == "a b"


MARKS = [*"()[]:|\\ ", "a", "b, ", ":3]", ":0.5]", "[a|b]", "[a:b:2]"]


@given(text=st.lists(st.sampled_from(MARKS), max_size=40).map("".join) | st.text(max_size=40), steps=st.integers(1, 30))
def test_every_prompt_has_a_text_for_every_step(text: str, steps: int) -> None:
    scheduled = schedule(text, steps)
    ends = [end for end, _ in scheduled]
    assert ends == sorted(set(ends)) and ends[0] >= 1 and ends[-1] == steps


@given(text=st.text(st.characters(exclude_characters="[|\\"), max_size=60))
def test_text_without_square_brackets_never_changes(text: str) -> None:
    assert schedule(text, 20) == [(20, text)]


@pytest.mark.parametrize("text", ["[" * 10_000, "[a:" * 5_000, "(a:" * 5_000, "[a|" * 5_000 + "]" * 5_000])
def test_brackets_without_end_are_text(text: str) -> None:
    assert schedule(text, 10) == [(10, text)]
