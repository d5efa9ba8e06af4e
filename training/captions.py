"""Wordings for the pictures: those the model is trained on, and those kept back to test it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

PLAIN = (
    "{n}", "{n}", "{n}", "{a}", "{a}", "{a}", "{n} emoji", "{a} emoji", "a picture of {a}", "picture of {a}",
    "an image of {a}", "image of {n}", "draw {a}", "an icon of {a}", "{n} icon", "emoji of {a}", "the {n}",
    "a drawing of {a}", "drawing of {n}", "{a} on a white background", "{n} on white", "one {n}", "simple {n}",
    "cute {n}", "my {n}", "this is {a}", "the {n} emoji", "a cute {n}", "a simple {n}", "a beautiful {n}",
    "give me {a}", "can you draw {a}", "paint {a}",
    "a painting of {a}", "{a} for my friend", "{n} please", "a photo of {a}",
    "i would like {a}", "a single {n}", "the best {n}", "an emoji showing {a}", "{n}, emoji style", "{n} picture",
    "a big {n}", "icon: {n}", "look, {a}", "it is {a}", "clipart of {a}", "{n} clipart", "a cartoon {n}",
)  # fmt: skip
FLAT = (
    "flat {n}", "a flat {n}", "{n}, flat", "{n} flat", "{a}, flat", "{n} in flat style", "{a} in flat style",
    "flat design {n}", "{n}, flat design", "a flat icon of {a}", "flat emoji of {a}", "{n} emoji, flat",
    "flat style {n}", "a flat picture of {a}", "{n}, flat icon", "flat drawing of {a}", "{a}, flat style",
    "simple flat {n}",
)  # fmt: skip
SOLID = (
    "3d {n}", "a 3d {n}", "{n}, 3d", "{n} 3d", "{a}, 3d", "{n} in 3d", "{a} in 3d", "3d render of {a}",
    "a 3d render of {a}", "{n}, 3d render", "3d emoji of {a}", "{n} emoji, 3d", "3d style {n}", "{a}, 3d style",
    "a 3d picture of {a}",
    "{n}, 3d icon", "3d model of {a}", "three-dimensional {n}",
)  # fmt: skip
TEMPLATES = {"": PLAIN, "flat": FLAT, "3d": SOLID}

KEPT_BACK = {
    "": (
        "please draw {a}", "show me {a}", "an illustration of {a}", "{n} symbol", "a nice {n}", "i want {a}",
        "{a}, please", "make {a}", "a sticker of {a}", "here is {a}", "could you paint {a} for me", "a little {n}",
        "just {a}", "an icon showing {a}", "{a} in the middle", "create an image of {a}",
    ),
    "flat": ("please draw {a} in flat style", "a simple flat icon showing {a}", "{a} as a flat emoji"),
    "3d": ("please draw {a} in 3d", "{a} rendered in 3d", "{a} as a 3d emoji"),
}  # fmt: skip


ALIASES = 14  # of a concept, the first ones


class Phrasing(NamedTuple):
    concept: int
    style: str
    text: str


def for_training(concept: dict[str, Any], style: str, count: int, seed: int = 0) -> list[str]:
    """`count` captions of one picture. None uses a template of KEPT_BACK."""
    random_ = random.Random(f"{concept['name']}/{style}/{seed}")
    templates = TEMPLATES[style]
    return [fill(random_.choice(templates), subject(concept, random_)) for _ in range(count)]


def subject(concept: dict[str, Any], random_: random.Random) -> str:
    """Mostly the name; else a keyword that only this concept has, or the name with a keyword it shares."""
    draw, name, aliases = random_.random(), concept["name"], concept["aliases"][:ALIASES]
    if aliases and draw < min(0.5, 0.12 * len(aliases)):
        return random_.choice(aliases)
    if concept["words"] and draw < 0.6 and random_.random() < 0.3:
        word = random_.choice(concept["words"])
        return random_.choice((f"{name}, {word}", f"{word} {name}", f"{name} {word}"))
    words = name.split()
    if len(words) > 2 and draw > 0.93:
        return " ".join(word for word in words if word not in ("with", "of", "and", "in", "on", "the"))
    return name


def fill(template: str, name: str) -> str:
    article = "an" if name[0] in "aeiou" else "a"
    return template.format(n=name, a=f"{article} {name}")


def kept_back(concepts: Sequence[dict[str, Any]], count: int = 200, seed: int = 7) -> list[Phrasing]:
    """Wordings never trained on, each of another concept: a template kept back, half of them with a name that is not
    the first. Three in four ask for no style."""
    random_ = random.Random(seed)
    chosen = random_.sample(list(concepts), min(count, len(concepts)))
    phrasings = []
    for place, concept in enumerate(chosen):
        style = random_.choice([s for s in concept["styles"] if s] or [""]) if place % 4 == 3 else ""
        name = random_.choice(concept["aliases"][:ALIASES]) if place % 2 and concept["aliases"] else concept["name"]
        phrasings.append(Phrasing(concept["id"], style, fill(random_.choice(KEPT_BACK[style]), name)))
    return phrasings


def colour_test(concepts: Iterable[dict[str, Any]]) -> list[Phrasing]:
    """Hearts, circles and squares in each colour that shows on white."""
    wanted = [c for c in concepts if c.get("thing") in ("heart", "circle", "square") and c["colour"] != "white"]
    return [Phrasing(c["id"], "", fill("a {n}", c["name"])) for c in wanted]


def corpus(concepts: Sequence[dict[str, Any]]) -> list[str]:
    """What the vocabulary is made from."""
    lines = [name for c in concepts for name in [c["name"], *c["aliases"], *c["words"]] for _ in range(4)]
    lines += [line for c in concepts for style in c["styles"] for line in for_training(c, style, 4)]
    return lines
