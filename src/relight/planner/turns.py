"""Whether an answer is soonest beside a picture in the works, or with the card to itself: by predicted seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from relight.planner.language import LanguageModel
from relight.planner.machine import Machine

WORTH = 0.8
"""The exchange has to be so much shorter: predictions are wrong by that."""


@dataclass
class Measured:
    """Seconds of a token by layers on the card, where they were measured: of one that was `made`, of one of a prompt
    that was `read`."""

    made: dict[int, float] = field(default_factory=dict)
    read: dict[int, float] = field(default_factory=dict)


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
    unread: int,
    context: int,
    pictures: int,
    interruption_s: float,
    loaded: bool,
    measured: Measured,
) -> Choice:
    """`beside` and `alone` are layers on the card, `tokens` those of the answer, `unread` those of the prompt that have
    to be read first, `pictures` bytes that leave the card and come back. `loaded`: the model is there with its layers
    `beside`."""

    def answer(layers: int) -> float:
        made = tokens * measured.made.get(layers, model.token_seconds(layers, machine))
        if layers in measured.read:
            return unread * measured.read[layers] + made
        return model.reading_seconds(unread, layers, machine) + made

    upload = machine.gpu.rates.upload if machine.gpu is not None else float("inf")
    there = model.on_gpu(alone, context) / upload
    beside_s = answer(beside) + (0.0 if loaded else model.on_gpu(beside, context) / upload)
    return Choice(beside_s, interruption_s + there + answer(alone) + pictures / upload)
