"""Whether an answer is soonest beside a picture in the works, or with the card to itself: by predicted seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relight.planner.language import LanguageModel
from relight.planner.machine import Machine

WORTH = 0.8
"""The exchange has to be so much shorter: predictions are wrong by that."""


@dataclass(frozen=True)
class Choice:
    """Seconds of an answer beside the picture, and of the exchange with the answer in it."""

    beside_s: float
    alone_s: float

    @property
    def interrupts(self) -> bool:
        return self.alone_s < WORTH * self.beside_s


def choose(
    model: LanguageModel,
    machine: Machine,
    *,
    beside: int,
    alone: int,
    tokens: int,
    context: int,
    pictures: int,
    interruption_s: float,
    loaded: bool,
    seen: Mapping[int, float],
) -> Choice:
    """`beside` and `alone` are layers on the card, `pictures` bytes that leave it and come back. `loaded`: the model is
    there with its layers `beside`. `seen` are seconds of a token by layers, where they were measured."""

    def answer(layers: int) -> float:
        return tokens * seen.get(layers, model.token_seconds(layers, machine))

    upload = machine.gpu.rates.upload if machine.gpu is not None else float("inf")
    there = model.on_gpu(alone, context) / upload
    beside_s = answer(beside) + (0.0 if loaded else model.on_gpu(beside, context) / upload)
    return Choice(beside_s, interruption_s + there + answer(alone) + pictures / upload)
