"""Models that stay: loaded at the start, and sent away neither for being idle nor for others."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from relight.errors import ConfigError, DoesNotFit, RelightError, RequestError
from relight.jobs.engine import EngineSettings
from relight.jobs.rungs import RUNGS
from relight.llm.asks import LoadSettings
from relight.node.card import Card
from relight.node.forecast import card_bytes, planned
from relight.node.registry import Kind, Registry
from relight.node.shelf import PipelineShelf
from relight.node.talk import Talk
from relight.planner.amounts import amount
from relight.planner.language import read_language_model

log = logging.getLogger(__name__)

SAID = "server.pinned"


@dataclass(frozen=True)
class Pins:
    """At most one of each kind, since one of each is open at a time. `image_bytes`: of the card."""

    image: str | None = None
    chat: str | None = None
    image_bytes: int = 0

    def check(self, model: str, kind: Kind) -> None:
        """Raises RequestError for a model that would send a pinned one away."""
        stays = self.image if kind == "image" else self.chat
        if stays is not None and stays != model:
            raise RequestError(f"{model} would send {stays} away, which is to stay ({SAID} of the server's settings)")


def pinned(names: Sequence[str], registry: Registry) -> Pins:
    """Raises ConfigError for a model that is not there, and for two of one kind."""
    entries = registry.entries()
    found: dict[str, str] = {}
    for name in names:
        entry = entries.get(name) or entries.get(PurePath(name).stem)
        if entry is None:
            raise ConfigError(f"{SAID}: no model {name}; there are {', '.join(sorted(entries))}")
        if found.setdefault(entry.kind, entry.name) != entry.name:
            what = "pictures" if entry.kind == "image" else "conversations"
            raise ConfigError(
                f"{SAID}: {found[entry.kind]} and {entry.name} are both for {what}, and one of them is open at a time"
            )
    return Pins(found.get("image"), found.get("chat"))


def fitting(pins: Pins, registry: Registry, engine: EngineSettings, language: LoadSettings, card: Card | None) -> Pins:
    """With the bytes of the card that they take. Raises ConfigError where they do not fit on it together."""
    if card is None:
        return pins
    try:
        pictures = card_bytes(planned(registry, engine, pins.image)) if pins.image else 0
    except DoesNotFit as error:
        raise ConfigError(f"{SAID}: {pins.image}: {error}") from error
    words, context = 0, language.context * language.slots
    if pins.chat is not None and language.n_gpu_layers:
        model = read_language_model(registry.chat_file(pins.chat))
        words = model.on_gpu(max(1, language.n_gpu_layers), context)
    if pictures + words > card.total:
        parts = [f"{pins.image} {amount(pictures)}"] if pictures else []
        layers = "one layer" if language.n_gpu_layers < 0 else f"{language.n_gpu_layers} layers"
        parts += [f"{pins.chat} {amount(words)} with {layers}"] if words else []
        raise ConfigError(
            f"{SAID}: {' and '.join(parts)} do not fit on the card together, of which {amount(card.total)} can be had: "
            "pin one of them, take smaller files, or set language_model.n_gpu_layers to less"
        )
    return Pins(pins.image, pins.chat, pictures)


def bring(pins: Pins, shelf: PipelineShelf, talk: Talk, registry: Registry) -> None:
    """Load them; what fails is told and tried again by the first request. The card has their bytes already."""
    try:
        if pins.image is not None:
            pipeline = shelf.take(pins.image, RUNGS[0])
            try:
                pipeline.prepare(registry.usual(pins.image))
            finally:
                shelf.give_back(pipeline)
            log.info("%s is loaded and stays", pins.image)
        if pins.chat is not None:
            with talk.use(pins.chat, registry.chat_file(pins.chat)):
                log.info("%s is loaded and stays", pins.chat)
    except RelightError as error:
        log.error("%s: %s", SAID, error)
