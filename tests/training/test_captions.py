"""Captions for training: never a wording kept back for the test."""

from __future__ import annotations

import json
import random
from pathlib import Path

import captions
import grammar
import pytest
from kept_back import FIRST, SECOND, WITHHELD, contains_kept_back, leaks

ROWS = json.loads((Path(__file__).parents[2] / "training" / "kept_back.json").read_text("utf-8"))
CONCEPTS = [
    {"id": i, "name": name, "aliases": ["bot", "little one"], "words": ["sign"], "styles": ["", "flat", "3d"]}
    for i, (name, _, _) in enumerate(ROWS)
]
TEMPLATES = [(style, t) for group in (FIRST, SECOND) for style, templates in group.items() for t in templates]


@pytest.mark.parametrize("style", ["", "flat", "3d"])
def test_no_caption_is_a_kept_back_template_with_a_name_in_it(style: str) -> None:
    filled = {
        captions.fill(template, name)
        for of, template in TEMPLATES
        if of == style
        for c in CONCEPTS
        for name in (c["name"], *c["aliases"])
    }
    for concept in CONCEPTS:
        made = captions.for_training(concept, style, 48)
        assert len(made) == 48
        assert not filled & set(made)
        assert leaks(made, captions.subjects([concept])) == []


@pytest.mark.parametrize(("style", "template"), TEMPLATES)
def test_a_kept_back_wording_is_known_for_one_in_any_dress(style: str, template: str) -> None:
    assert contains_kept_back(template)
    text = captions.fill(template, "red apple")
    assert leaks([text, text.upper() + "!", "an owl"], ["red apple"]) == [text, text.upper() + "!"]
    assert leaks([text], ["pear"]) == []


def test_withheld_words_are_in_no_way_of_asking() -> None:
    random_ = random.Random(0)
    made = [grammar.template(style, random_) for style in ("", "flat", "3d") for _ in range(3000)]
    fixed = [t for templates in captions.TEMPLATES.values() for t in templates]
    words = {word.strip(",.!?:") for text in made + fixed for word in text.split()}
    assert not words & WITHHELD
    assert len(set(made)) > 6000


@pytest.mark.parametrize(("style", "word"), [("flat", "flat"), ("3d", "3d|three-dimensional")])
def test_every_template_of_a_style_names_it(style: str, word: str) -> None:
    random_ = random.Random(1)
    for _ in range(2000):
        made = grammar.template(style, random_)
        assert any(part in made for part in word.split("|"))
        assert any(place in made for place in ("{n}", "{a}", "{s}"))


def test_the_first_set_is_read_as_it_was_written() -> None:
    read = captions.first_set(CONCEPTS)
    assert [(CONCEPTS[p.concept]["name"], p.style, p.text) for p in read] == [tuple(row) for row in ROWS]
    assert len({p.concept for p in read}) == 200


def test_a_wording_by_a_keyword_that_was_taken_away_is_disowned() -> None:
    concepts = [{"id": 0, "name": "moon cake", "aliases": ["mooncake"], "words": ["cake"], "styles": [""]}]
    kept = [captions.Phrasing(0, "", f"just a {name}") for name in ("moon cake", "cake", "mooncake")]
    assert captions.disowned(kept, concepts) == [kept[1]]


@pytest.mark.parametrize(
    ("name", "plural"), [("cherry", "cherries"), ("fox", "foxes"), ("key", "keys"), ("glasses", "glasses")]
)
def test_plurals(name: str, plural: str) -> None:
    assert captions.fill("some {s}", name) == f"some {plural}"
