"""Several models on one card: resident together where they fit, else one at a time, with what each change takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relight.planner.language import ANSWER_TOKENS, LanguageModel
from relight.planner.machine import Machine


@dataclass(frozen=True)
class Held:
    """What a model of pictures takes of the card: `peak` while it works, `weights` to bring it there again."""

    name: str
    peak: int
    weights: int
    seconds: float


@dataclass(frozen=True)
class Swap:
    """Bringing `name` back after another had the card."""

    name: str
    nbytes: int
    seconds: float


@dataclass(frozen=True)
class LanguagePlan:
    """`layers` as --n-gpu-layers counts them."""

    model: LanguageModel
    context: int
    layers: int
    gpu_bytes: int
    cpu_bytes: int
    tokens_per_s: float


@dataclass(frozen=True)
class Together:
    """`resident`: all of it stays on the card. `other` says what the other way would take, in words."""

    resident: bool
    peak: int
    swaps: tuple[Swap, ...]
    language: LanguagePlan | None
    other: str

    def as_dict(self) -> dict[str, Any]:
        language = self.language
        return {
            "resident": self.resident,
            "peak_bytes": self.peak,
            "swaps": [vars(swap) for swap in self.swaps],
            "other": self.other,
            "language_model": language
            and {
                "file": str(language.model.path),
                "architecture": language.model.architecture,
                "format": language.model.format,
                "layers": len(language.model.layers),
                "context": language.context,
                "n_gpu_layers": language.layers,
                "gpu_bytes": language.gpu_bytes,
                "cpu_bytes": language.cpu_bytes,
                "kv_bytes_per_token": language.model.kv_per_token,
                "tokens_per_s": language.tokens_per_s,
                "source": "estimated",
            },
        }


def share(machine: Machine, held: Sequence[Held], model: LanguageModel | None, context: int) -> Together | None:
    """How the card is shared; None for a single model of pictures, which has it to itself."""
    if model is None and len(held) < 2:
        return None
    if model is None:
        return _pictures(machine, held)
    budget = machine.gpu.budget if machine.gpu else 0
    peak = max((each.peak for each in held), default=0)
    beside = model.most_layers(budget - peak, context)
    alone = model.most_layers(budget, context)
    if alone == beside:
        return _with_layers(machine, held, model, context, alone, True, peak, "")
    swaps = sum(swap.seconds for swap in _swaps(machine, held, model, context, alone))
    token_beside, token_alone = model.token_seconds(beside, machine), model.token_seconds(alone, machine)
    both, one = ANSWER_TOKENS * token_beside, ANSWER_TOKENS * token_alone + swaps
    difference = f"{abs(both - one):.1f} s"
    exchange = f"a picture and an answer of {ANSWER_TOKENS} tokens in turn"
    if both <= one:
        other = f"all {alone} layers, taking turns on the card: {difference} slower for {exchange}"
        return _with_layers(machine, held, model, context, beside, True, peak, other)
    other = f"{beside} layers beside the pictures, nothing swapped: {difference} slower for {exchange}"
    return _with_layers(machine, held, model, context, alone, False, peak, other)


def _pictures(machine: Machine, held: Sequence[Held]) -> Together:
    budget = machine.gpu.budget if machine.gpu else 0
    largest = max(held, key=lambda each: each.peak)
    together = largest.peak + sum(each.weights for each in held if each is not largest)
    if together <= budget:
        return Together(True, together, (), None, "")
    return Together(False, largest.peak, tuple(_swap(machine, each.name, each.weights) for each in held), None, "")


def _with_layers(
    machine: Machine,
    held: Sequence[Held],
    model: LanguageModel,
    context: int,
    layers: int,
    resident: bool,
    pictures: int,
    other: str,
) -> Together:
    on_gpu = model.on_gpu(layers, context)
    language = LanguagePlan(
        model=model,
        context=context,
        layers=layers,
        gpu_bytes=on_gpu,
        cpu_bytes=max(0, model.weights + model.kv(context, len(model.layers)) + model.compute(context) - on_gpu),
        tokens_per_s=1 / model.token_seconds(layers, machine),
    )
    swaps = () if resident else _swaps(machine, held, model, context, layers)
    return Together(resident, pictures + on_gpu if resident else max(pictures, on_gpu), tuple(swaps), language, other)


def _swaps(machine: Machine, held: Sequence[Held], model: LanguageModel, context: int, layers: int) -> Sequence[Swap]:
    return [
        *(_swap(machine, each.name, each.weights) for each in held),
        _swap(machine, model.path.name, model.on_gpu(layers, context) - model.compute(context)),
    ]


def _swap(machine: Machine, name: str, nbytes: int) -> Swap:
    upload = machine.gpu.rates.upload if machine.gpu else float("inf")
    return Swap(name, nbytes, nbytes / upload)
