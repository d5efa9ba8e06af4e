"""Ways of asking that are kept back from training, to test the model with.

FIRST had been seen when the wordings of training were last widened; SECOND was written before that, with words in it
(WITHHELD) that no way of asking in training has, and nobody looked at its pictures before the weights were final.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

FIRST: Mapping[str, tuple[str, ...]] = {
    "": (
        "please draw {a}", "show me {a}", "an illustration of {a}", "{n} symbol", "a nice {n}", "i want {a}",
        "{a}, please", "make {a}", "a sticker of {a}", "here is {a}", "could you paint {a} for me", "a little {n}",
        "just {a}", "an icon showing {a}", "{a} in the middle", "create an image of {a}",
    ),
    "flat": ("please draw {a} in flat style", "a simple flat icon showing {a}", "{a} as a flat emoji"),
    "3d": ("please draw {a} in 3d", "{a} rendered in 3d", "{a} as a 3d emoji"),
}  # fmt: skip
SECOND: Mapping[str, tuple[str, ...]] = {
    "": (
        "i need {a}", "sketch {a}", "{a}, nothing else", "a tiny {n}", "may i see {a}", "a doodle of {a}",
        "what about {a}?", "generate {a}", "a lovely {n}", "{n} logo", "let me have {a}", "a token with {a} on it",
        "imagine {a}", "{a} by itself", "put {a} here", "produce a small picture of {a}",
    ),
    "flat": ("{a} drawn flat", "give me {a}, flat and plain", "sketch {a} in a flat look"),
    "3d": ("{a} that looks 3d", "let me have a 3d {n}", "{a} with a 3d look"),
}  # fmt: skip
WITHHELD = frozenset(
    "sketch nothing else tiny doodle generate lovely logo let have token imagine itself put produce need may looks look"
    .split()
)  # fmt: skip
ARTICLES = frozenset(("a", "an", "the"))


def skeleton(text: str) -> str:
    """Without articles and punctuation, so that near copies are the same."""
    words = re.findall(r"[a-z0-9'{}-]+", text.lower().replace("{a}", "{n}").replace("{s}", "{n}"))
    return " ".join(word for word in words if word not in ARTICLES)


SKELETONS = tuple(skeleton(t) for group in (FIRST, SECOND) for templates in group.values() for t in templates)
WHOLE = re.compile("|".join(re.escape(s).replace(r"\{n\}", "(.+)") for s in SKELETONS))


def contains_kept_back(template: str) -> bool:
    """Whether a template for training is one kept back, or has one inside."""
    inside = f" {skeleton(template)} "
    return any(f" {kept} " in inside for kept in SKELETONS)


def leaks(captions: Iterable[str], subjects: Iterable[str]) -> list[str]:
    """The captions that are a kept-back template filled with one of the subjects."""
    known = {skeleton(subject) for subject in subjects}
    return [text for text in captions if any(part in known for part in fillings(skeleton(text)))]


def fillings(bare: str) -> list[str]:
    """What stands in the place of the name, for each template kept back that the text could be."""
    if not WHOLE.fullmatch(bare):
        return []
    found = []
    for kept in SKELETONS:
        before, after = kept.split("{n}")
        if bare.startswith(before) and bare.endswith(after) and len(bare) > len(kept) - len("{n}"):
            found.append(bare[len(before) : len(bare) - len(after)])
    return found
