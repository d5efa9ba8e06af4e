r"""How much each part of a prompt weighs, and where a new chunk begins.

`(word)` weighs 1.1 times, `[word]` 1 / 1.1 times, `(word:1.3)` 1.3 times, and brackets in brackets multiply. `\(`,
`\)`, `\[`, `\]` and `\\` are the characters themselves; any other backslash is dropped. `BREAK` begins a new chunk.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import NamedTuple

import numpy as np

MORE, LESS = 1.1, 1 / 1.1
MAX_WEIGHT = 1e4  # a picture is noise long before it; so products stay finite

MARK = re.compile(
    r"\\(?P<escaped>[()\[\]\\]?)"
    r"|(?P<opened>[(\[])"
    r"|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)"
    r"|(?P<closed>[)\]])"
    r"|(?P<plain>[^\\()\[\]:]+|:)"
)
BREAK = re.compile(r"\s*\bBREAK\b\s*")


class Piece(NamedTuple):
    """A run of text of one weight."""

    text: str
    weight: float


class Scaled(NamedTuple):
    """Pieces `start` to `stop` weigh `factor` times."""

    start: int
    stop: int
    factor: float


def parse(text: str) -> list[list[Piece]]:
    """The pieces of a prompt, a list for each part between BREAKs. An empty prompt is one empty part.

    Brackets that are never closed count up to the end, those that were never opened are text: nothing raises.
    """
    words, scaled = read(text)
    weights = np.ones(len(words))
    for start, stop, factor in scaled:
        weights[start:stop] = np.clip(weights[start:stop] * factor, -MAX_WEIGHT, MAX_WEIGHT)
    parts: list[list[Piece]] = [[]]
    said = [(word, weight) for word, weight in zip(words, weights.tolist(), strict=True) if word != ""]
    for weight, run in groupby(said, key=lambda each: None if each[0] is None else each[1]):
        if weight is None:
            parts.extend([] for _ in run)
        else:
            parts[-1].append(Piece("".join(word for word, _ in run if word), weight))
    return parts


def read(text: str) -> tuple[list[str | None], list[Scaled]]:
    """The texts in order, None for BREAK, and what brackets do to them, innermost first."""
    pieces: list[str | None] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}
    scaled: list[Scaled] = []

    def close(bracket: str, factor: float) -> None:
        scaled.append(Scaled(opened[bracket].pop(), len(pieces), np.clip(factor, -MAX_WEIGHT, MAX_WEIGHT)))

    for mark in MARK.finditer(text):
        if mark["opened"]:
            opened[mark["opened"]].append(len(pieces))
        elif mark["weight"] and opened["("]:
            close("(", float(mark["weight"]))
        elif mark["closed"] == ")" and opened["("]:
            close("(", MORE)
        elif mark["closed"] == "]" and opened["["]:
            close("[", LESS)
        elif mark["escaped"] is not None:
            pieces.append(mark["escaped"])
        else:
            first, *rest = BREAK.split(mark[0])
            pieces.append(first)
            for after in rest:
                pieces += [None, after]
    for bracket, factor in (("(", MORE), ("[", LESS)):
        while opened[bracket]:
            close(bracket, factor)
    return pieces, scaled
