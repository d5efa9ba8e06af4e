r"""Prompts that change on the way: `[from:to:when]`, `[to:when]`, `[from::when]` and `[a|b|c]`, nested as one likes.

`when` with a point is a share of the steps, without one a number of steps. Other brackets are left as they are, for the
emphasis; where brackets do not match they are text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain

MAX_DEPTH = 64
WHEN = re.compile(r":\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\]")
PLAIN = re.compile(r"(?:[^\\()\[\]:|]|\\.)+", re.DOTALL)


@dataclass(frozen=True)
class Edited:
    """`before` up to step `when`, then `after`."""

    before: Parts
    after: Parts
    when: int


@dataclass(frozen=True)
class Alternating:
    """One choice a step, in turn."""

    choices: tuple[Parts, ...]


Parts = tuple["str | Edited | Alternating", ...]


def schedule(text: str, steps: int, first_pass: int = 0) -> list[tuple[int, str]]:
    """The texts of a prompt and the last step of each, counted from 1; the last one ends at `steps`.

    `first_pass`, for the second pass of a hires fix, is the number of steps before it: steps go on from there, and
    shares from 1. The rules are those of A1111's grammar, where a `|` outside of `[]` makes all of it plain text.
    """
    parts = Reader(text, steps, first_pass).read()
    ends = sorted({steps, *(end for end in boundaries(parts, steps) if 1 <= end < steps)})
    return [(end, at(parts, end)) for end in ends]


def at_step(scheduled: list[tuple[int, str]], index: int) -> str:
    """The text for the step of this index, the first being 0.

    As A1111 looks it up, the index itself is compared with the last step of a text: the first text is there for one
    step more than its number says.
    """
    return next((text for end, text in scheduled if index <= end), scheduled[-1][1])


def boundaries(parts: Parts, steps: int) -> set[int]:
    found: set[int] = set()
    for part in parts:
        if isinstance(part, Edited):
            found |= {part.when} | boundaries(part.before, steps) | boundaries(part.after, steps)
        elif isinstance(part, Alternating):
            found |= set(range(1, steps + 1))
    return found


def at(parts: Parts, step: int) -> str:
    return "".join(part if isinstance(part, str) else at(chosen(part, step), step) for part in parts)


def chosen(part: Edited | Alternating, step: int) -> Parts:
    if isinstance(part, Alternating):
        return part.choices[(step - 1) % len(part.choices)]
    return part.before if step <= part.when else part.after


class Reader:
    """Reads what can be read from a position on; None where brackets do not match."""

    def __init__(self, text: str, steps: int, first_pass: int) -> None:
        self.text, self.steps, self.first_pass = text, steps, first_pass
        self.known: dict[int, tuple[Parts, int] | None] = {}
        self.depth = 0

    def read(self) -> Parts:
        """All of the text; brackets and colons that belong to nothing are text."""
        parts: list[Parts] = []
        at = 0
        while at < len(self.text):
            inside, at = self.inside(at)
            parts += [inside, (self.text[at : at + 1],)]
            if self.text[at : at + 1] in ("|", "\\"):
                return (self.text,)
            at += 1
        return tuple(chain.from_iterable(parts))

    def inside(self, at: int) -> tuple[Parts, int]:
        """Plain text and whole brackets, as far as they go."""
        parts: list[Parts] = []
        while at < len(self.text):
            if plain := PLAIN.match(self.text, at):
                parts.append((plain[0],))
                at = plain.end()
            elif found := self.bracket(at):
                parts.append(found[0])
                at = found[1]
            else:
                break
        return tuple(chain.from_iterable(parts)), at

    def bracket(self, at: int) -> tuple[Parts, int] | None:
        if self.text[at] not in "([" or self.depth == MAX_DEPTH:
            return None
        if at not in self.known:
            self.depth += 1
            self.known[at] = self.square(at) if self.text[at] == "[" else self.round(at)
            self.depth -= 1
        return self.known[at]

    def round(self, at: int) -> tuple[Parts, int] | None:
        """`(a)` or `(a:b)`."""
        parts, end = self.inside(at + 1)
        if self.text[end : end + 1] == ":":
            weight, end = self.inside(end + 1)
            parts = (*parts, ":", *weight)
        return (("(", *parts, ")"), end + 1) if self.text[end : end + 1] == ")" else None

    def square(self, at: int) -> tuple[Parts, int] | None:
        """`[a]`, `[a|b]`, `[b:when]` or `[a:b:when]`."""
        first, end = self.inside(at + 1)
        match self.text[end : end + 1]:
            case "]":
                return ("[", *first, "]"), end + 1
            case "|":
                return self.alternatives(first, end)
            case ":":
                return self.edit(first, end)
        return None

    def alternatives(self, first: Parts, at: int) -> tuple[Parts, int] | None:
        choices = [first]
        while self.text[at : at + 1] == "|":
            choice, at = self.inside(at + 1)
            choices.append(choice)
        return ((Alternating(tuple(choices)),), at + 1) if self.text[at : at + 1] == "]" else None

    def edit(self, first: Parts, at: int) -> tuple[Parts, int] | None:
        if when := WHEN.match(self.text, at):
            return (Edited((), first, self.step(when[1])),), when.end()
        second, at = self.inside(at + 1)
        if when := WHEN.match(self.text, at):
            return (Edited(first, second, self.step(when[1])),), when.end()
        return None

    def step(self, when: str) -> int:
        if "." in when:
            value = (float(when) - (1.0 if self.first_pass else 0.0)) * self.steps
        else:
            value = float(when) - self.first_pass
        return int(max(-1.0, min(value, self.steps)))
