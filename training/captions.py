"""Captions of the pictures: those the model is trained on, and those that test it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grammar
from kept_back import SECOND, contains_kept_back, leaks

PLAIN = (
    "{n}", "{n}", "{n}", "{a}", "{a}", "{a}", "{n} emoji", "{a} emoji", "a picture of {a}", "picture of {a}",
    "an image of {a}", "image of {n}", "draw {a}", "an icon of {a}", "{n} icon", "emoji of {a}", "the {n}",
    "a drawing of {a}", "drawing of {n}", "{a} on a white background", "{n} on white", "one {n}", "simple {n}",
    "cute {n}", "my {n}", "this is {a}", "the {n} emoji", "a cute {n}", "a simple {n}", "a beautiful {n}",
    "give me {a}", "can you draw {a}", "paint {a}",
    "a painting of {a}", "{a} for my friend", "{n} please", "a photo of {a}",
    "i would like {a}", "a single {n}", "the best {n}", "an emoji showing {a}", "{n}, emoji style", "{n} picture",
    "a big {n}", "icon: {n}", "it is {a}", "clipart of {a}", "{n} clipart", "a cartoon {n}",
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
TEMPLATES = {
    style: tuple(t for t in templates if not contains_kept_back(t))
    for style, templates in (("", PLAIN), ("flat", FLAT), ("3d", SOLID))
}
FIXED = 0.25  # of the captions are of TEMPLATES, the others of the grammar

ALIASES = 14  # of a concept, the first ones


class Phrasing(NamedTuple):
    concept: int
    style: str
    text: str


def for_training(concept: dict[str, Any], style: str, count: int, seed: int = 0) -> list[str]:
    """`count` captions of one picture. None is a template kept back with one of the concept's names in it."""
    random_ = random.Random(f"{concept['name']}/{style}/{seed}")
    captions: list[str] = []
    while len(captions) < count:
        fixed = random_.random() < FIXED
        template = random_.choice(TEMPLATES[style]) if fixed else grammar.template(style, random_)
        captions.append(fill(template, subject(concept, random_)))
        if leaks(captions[-1:], subjects([concept])):
            captions.pop()
    return captions


def subject(concept: dict[str, Any], random_: random.Random) -> str:
    """The name or a keyword that only this concept has, each keyword a third as often as the name or more; now and
    then the name with a keyword it shares, or the colour after the thing."""
    draw, name, aliases = random_.random(), concept["name"], concept["aliases"][:ALIASES]
    if draw < min(0.6, len(aliases) / (len(aliases) + 3)):
        return random_.choice(aliases)
    if "colour" in concept and draw < 0.1:
        form = random_.choice(("{thing} in {colour}", "{colour} coloured {thing}", "{colour} colored {thing}"))
        return form.format(**concept)
    if concept["words"] and draw < 0.65 and random_.random() < 0.3:
        word = random_.choice(concept["words"])
        return random_.choice((f"{name}, {word}", f"{word} {name}", f"{name} {word}"))
    words = name.split()
    if len(words) > 2 and draw > 0.95:
        return " ".join(word for word in words if word not in ("with", "of", "and", "in", "on", "the"))
    return name


def fill(template: str, name: str) -> str:
    article = "an" if name[0] in "aeiou" else "a"
    return template.format(n=name, a=f"{article} {name}", s=plural(name))


def plural(name: str) -> str:
    if name.endswith("s"):
        return name
    if name.endswith("y") and name[-2:-1] not in set("aeiou"):
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith(("x", "ch", "sh", "z")) else f"{name}s"


def first_set(concepts: Sequence[dict[str, Any]]) -> list[Phrasing]:
    """The 200 wordings that every run has been tested with, as they were written down."""
    ids = {concept["name"]: concept["id"] for concept in concepts}
    rows = json.loads(Path(__file__).with_name("kept_back.json").read_text("utf-8"))
    return [Phrasing(ids[name], style, text) for name, style, text in rows if name in ids]


def second_set(concepts: Sequence[dict[str, Any]], count: int = 200, seed: int = 21) -> list[Phrasing]:
    """Wordings of SECOND, each of another concept, half of them with a name that is not the first. Three in four ask
    for no style. (The first set was made in the same way.)"""
    random_ = random.Random(seed)
    chosen = random_.sample(list(concepts), min(count, len(concepts)))
    phrasings = []
    for place, concept in enumerate(chosen):
        style = random_.choice([s for s in concept["styles"] if s] or [""]) if place % 4 == 3 else ""
        name = random_.choice(concept["aliases"][:ALIASES]) if place % 2 and concept["aliases"] else concept["name"]
        phrasings.append(Phrasing(concept["id"], style, fill(random_.choice(SECOND[style]), name)))
    return phrasings


def disowned(phrasings: Iterable[Phrasing], concepts: Sequence[dict[str, Any]]) -> list[Phrasing]:
    """Those that ask by a keyword which no longer asks for the concept."""
    return [p for p in phrasings if not leaks([p.text], [concepts[p.concept]["name"], *concepts[p.concept]["aliases"]])]


def subjects(concepts: Iterable[dict[str, Any]]) -> set[str]:
    """All names and keywords."""
    return {name for c in concepts for name in (c["name"], *c["aliases"], *c["words"])}


def colour_test(concepts: Iterable[dict[str, Any]]) -> list[Phrasing]:
    """Hearts, circles and squares in each colour that shows on white."""
    wanted = [c for c in concepts if c.get("thing") in ("heart", "circle", "square") and c["colour"] != "white"]
    return [Phrasing(c["id"], "", fill("a {n}", c["name"])) for c in wanted]


def corpus(concepts: Sequence[dict[str, Any]]) -> list[str]:
    """What the vocabulary is made from."""
    lines = [name for c in concepts for name in [c["name"], *c["aliases"], *c["words"]] for _ in range(4)]
    lines += [line for c in concepts for style in c["styles"] for line in for_training(c, style, 4)]
    return lines
