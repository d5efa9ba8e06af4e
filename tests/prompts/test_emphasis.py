"""Emphasis against the examples that A1111 publishes beside its parser."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relight.prompts import Piece, parse

MARKS = [*"()[]:\\", " ", "a", "cat, ", "BREAK", ":1.2)", ":.5)", ":1.2.3)", ":99999999)", ":-1)", "\\(", "\n"]
prompts = st.lists(st.sampled_from(MARKS), max_size=30).map("".join) | st.text(max_size=30)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1.0),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ],
        ),
    ],
)
def test_the_published_examples_weigh_as_published(text: str, expected: list[tuple[str, float]]) -> None:
    assert_pieces(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("[less]", [("less", 1 / 1.1)]),
        ("[[less]] (((more)))", [("less", 1.1**-2), (" ", 1), ("more", 1.1**3)]),
        ("(a [b) c]", [("a ", 1.1), ("b", 1.0), (" c", 1 / 1.1)]),
        (
            "(a: 1.5 ) (b:-.5) (c:2.) (d:+0)",
            [("a", 1.5), (" ", 1), ("b", -0.5), (" ", 1), ("c", 2), (" ", 1), ("d", 0)],
        ),
        ("[a:1.5]", [("a:1.5", 1 / 1.1)]),
        ("a) b] c:1.3)", [("a) b] c:1.3)", 1)]),
        ("(a:1.2.3) (b:) (c:x)", [("a:1.2.3", 1.1), (" ", 1), ("b:", 1.1), (" ", 1), ("c:x", 1.1)]),
        (r"\\(a\) b\c\ ", [("\\", 1), ("a) bc ", 1.1)]),
        ("((a:0)", [("a", 0)]),
    ],
)
def test_brackets_numbers_and_escapes(text: str, expected: list[tuple[str, float]]) -> None:
    assert_pieces(text, expected)


def assert_pieces(text: str, expected: list[tuple[str, float]]) -> None:
    (pieces,) = parse(text)
    assert [piece.text for piece in pieces] == [text for text, _ in expected]
    assert [piece.weight for piece in pieces] == pytest.approx([weight for _, weight in expected])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a BREAK b", [[("a", 1)], [("b", 1)]]),
        ("a,\n BREAK\nb", [[("a,", 1)], [("b", 1)]]),
        ("BREAK a BREAK BREAK b BREAK", [[], [("a", 1)], [], [("b", 1)], []]),
        ("(a BREAK b:2) c", [[("a", 2)], [("b", 2), (" c", 1)]]),
        ("(a BREAK)(b)", [[("a", 1.1)], [("b", 1.1)]]),
        ("BREAKFAST break a_BREAK", [[("BREAKFAST break a_BREAK", 1)]]),
    ],
)
def test_break_parts_a_prompt(text: str, parts: list[list[tuple[str, float]]]) -> None:
    assert parse(text) == [[Piece(*piece) for piece in part] for part in parts]


@given(text=prompts)
def test_no_prompt_raises_and_every_weight_is_a_number(text: str) -> None:
    pieces = [piece for part in parse(text) for piece in part]
    assert all(piece.text and math.isfinite(piece.weight) for piece in pieces)


@given(text=st.text(st.characters(exclude_characters="()[]:\\"), max_size=40).filter(lambda text: "BREAK" not in text))
def test_text_without_marks_is_one_piece(text: str) -> None:
    assert parse(text) == [[Piece(text, 1.0)] if text else []]


@given(text=st.text(max_size=40).filter(lambda text: "BREAK" not in text))
def test_escaped_text_is_itself(text: str) -> None:
    escaped = "".join(f"\\{letter}" if letter in "()[]\\" else letter for letter in text)
    assert parse(escaped) == [[Piece(text, 1.0)] if text else []]


@given(
    words=st.lists(st.sampled_from(["cat", "a dog", "(sun)", "[moon]"]), min_size=1, max_size=4),
    depth=st.integers(0, 6),
)
def test_each_pair_of_brackets_multiplies_what_is_inside(words: list[str], depth: int) -> None:
    inside = ", ".join(words)
    (plain,), (nested,) = parse(inside), parse("(" * depth + inside + ":3)" * depth)
    assert [piece.text for piece in nested] == [piece.text for piece in plain]
    assert [piece.weight for piece in nested] == pytest.approx([piece.weight * 3**depth for piece in plain])


def test_forty_thousand_brackets_take_seconds_at_most() -> None:
    began = time.monotonic()
    (pieces,) = parse("(a" * 20_000 + ":2)" * 20_000)
    assert time.monotonic() - began < 20
    assert pieces[0].weight == 2 and pieces[-1].weight == 10_000
