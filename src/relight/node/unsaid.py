"""What settings say of pictures, for requests that leave it open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relight.configuration.schema import Settings, entries, value_at

PLACES = {
    "cfg_scale": "runtime.cfg_scale",
    "steps": "runtime.denoise_steps",
    "negative_prompt": "picture.negative",
    "sampler": "picture.sampler",
    "schedule": "picture.schedule",
    "clip_skip": "picture.clip_skip",
    "guidance": "picture.guidance",
    "cfg_rescale": "picture.cfg_rescale",
    "rng": "picture.rng",
    "decode_with": "picture.decode_with",
}
"""By the words of a request."""
GIVE_WAY = {
    "sampler": ("schedule",),
    "sigmas": ("schedule", "steps"),
    "width": ("width", "height"),
    "height": ("width", "height"),
    "redraw": ("width", "height"),
    "controls": ("width", "height"),
}
"""What is left to the model where a request says this."""


def said(settings: Settings) -> dict[str, Any]:
    """Of the settings, those that are not as they are by default."""
    found = {word: value_at(settings, place) for word, place in PLACES.items()}
    found = {word: value for word, value in found.items() if value != entries()[PLACES[word]].default}
    if settings.runtime.resolution is not None:
        found["width"], found["height"] = settings.runtime.resolution
    return found


def unsaid(usual: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a request takes of the settings: nothing that it says itself, or that would not go with it."""
    kept_out = {word for given, words in GIVE_WAY.items() if asked.get(given) for word in words}
    return {word: value for word, value in usual.items() if asked.get(word) is None and word not in kept_out}
