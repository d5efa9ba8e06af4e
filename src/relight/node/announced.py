"""What a server says when it starts: what will be where, in how many bytes, and how long pictures will take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from relight.errors import RelightError
from relight.jobs.engine import EngineSettings
from relight.node.card import Card
from relight.node.forecast import card_bytes, machine_of, planned
from relight.node.pins import Pins
from relight.node.registry import Registry
from relight.node.talk import Talk
from relight.planner.amounts import amount
from relight.planner.choices import OBJECTIVES
from relight.planner.language import read_language_model
from relight.planner.plan import Plan

SHOWN = 3
"""Models of each kind that are planned where none is said to stay."""


def announced(registry: Registry, engine: EngineSettings, pins: Pins, talk: Talk, card: Card | None) -> Iterator[str]:
    """Of the models that stay, else of the first few of each kind."""
    entries = registry.entries().values()
    images = [pins.image] if pins.image else [each.name for each in entries if each.kind == "image"][:SHOWN]
    taken, machine = 0, machine_of(engine)
    for model in images:
        try:
            plans = [planned(registry, engine, model, None, objective, machine) for objective in OBJECTIVES]
        except RelightError as error:
            yield f"{model}: {error}"
            continue
        taken = max(taken, card_bytes(plans[0]))
        yield from summary(*plans)
    chats = [each for each in entries if each.kind == "chat" and pins.chat in (None, each.name)][:SHOWN]
    for entry in chats:
        try:
            yield words(entry.name, registry.chat_file(entry.name), talk, card, taken)
        except RelightError as error:
            yield f"{entry.name}: {error}"


def words(name: str, path: Path, talk: Talk, card: Card | None, pictures: int) -> str:
    if card is None:
        return f"{name}: on the CPU, {talk.settings.slots} conversations of {talk.settings.context} tokens"
    model, most = read_language_model(path), talk.settings.n_gpu_layers
    alone, beside = (model.most_layers(room, talk.context) for room in (card.total, card.total - pictures))
    alone, beside = ((n if most < 0 else min(n, most)) for n in (alone, beside))
    nbytes = amount(model.on_gpu(alone, talk.context))
    return f"{name}: {alone} layers on the card, {nbytes} for {talk.context} tokens; {beside} layers beside pictures"


def summary(plan: Plan, queued: Plan) -> Iterator[str]:
    """What is where, in a few lines. `queued` is the same for pictures in a row."""
    total = plan.outcome.course.total
    yield (
        f"{plan.model} at {plan.width}x{plan.height}, {plan.steps} steps: {total.value:.1f} s a picture, "
        f"{queued.pictures_per_hour:.0f} an hour of a queue ({total.source})"
    )
    by_device: dict[str, list[str]] = {}
    for component in plan.components:
        part = component.part
        size = f"{amount(part.use.weights)} + {amount(part.use.compute)} buffer"
        by_device.setdefault(part.executor, []).append(f"{part.name} {size}, {part.seconds.value:.2f} s")
    for executor, parts in by_device.items():
        yield f"  {executor}: {'; '.join(parts)}"
    for note in plan.notes:
        yield f"  {note}"
