"""What a stored name becomes: rules of patterns, and the place in our tensors that a stored tensor fills."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple


class Place(NamedTuple):
    """Where a stored tensor belongs in our tensor `name`.

    It is piece `part` of `parts` that are joined by rows, or, the other way round, `name` is the stored tensor's rows
    `cut` of `cuts` equal spans. Its halves may be swapped, or rows and columns.
    """

    name: str
    part: int = 0
    parts: int = 1
    swap_halves: bool = False
    cut: int = 0
    cuts: int = 1
    transposed: bool = False


class Rule(NamedTuple):
    """A stored name that matches `pattern` whole becomes the place, its name being a template (groups by number)."""

    pattern: re.Pattern[str]
    place: Place


Rename = Callable[[str], tuple[Place, ...]]
"""A stored name (prefix removed) to the places it fills; empty for names that are no part of the network."""


def rules(*rows: tuple[str, str] | tuple[str, str, int, int] | tuple[str, str, int, int, bool]) -> tuple[Rule, ...]:
    """From (pattern, template, part, parts, swap_halves): `{}` in a pattern is a block number, `.*` at its end the leaf
    (weight, bias, scale of fp8 ...)."""
    return tuple(Rule(pattern(row[0]), Place(*row[1:])) for row in rows)


def pattern(text: str) -> re.Pattern[str]:
    escaped = re.escape(text).replace(r"\{\}", r"(\d{1,4})")
    if text.endswith(".*"):
        escaped = escaped.removesuffix(r"\.\*") + r"\.(\w+)"
    return re.compile(escaped)


def by_rules(table: tuple[Rule, ...]) -> Rename:
    """Every place whose pattern the name matches."""

    def rename(name: str) -> tuple[Place, ...]:
        found = ((rule, rule.pattern.fullmatch(name)) for rule in table)
        return tuple(rule.place._replace(name=match.expand(rule.place.name)) for rule, match in found if match)

    return rename


def one_by_one(rename: Callable[[str], str | None]) -> Rename:
    """From a function that gives each stored tensor one whole tensor of ours, or None."""

    def places(name: str) -> tuple[Place, ...]:
        ours = rename(name)
        return () if ours is None else (Place(ours),)

    return places


def highest(pattern: str, names: Iterable[str]) -> int:
    """The largest number the pattern's group finds at the start of a name, or -1."""
    compiled = re.compile(pattern)
    return max((int(match[1]) for name in names if (match := compiled.match(name))), default=-1)


def leaves(*paths: str) -> Iterator[str]:
    for path in paths:
        yield from (f"{path}.weight", f"{path}.bias")
