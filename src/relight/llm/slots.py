"""A slot holds one conversation's place in the model's memory, and the answer being made there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from relight.llm.asks import Usage

TokenListener = Callable[[int, Any], str | None]
"""Told of each token and a function that gives its logits; answers why the text ends here, or None."""


@dataclass
class Turn:
    """One answer in the making. `on_token` hears each token, `on_end` once: a finish reason, or an error."""

    prompt: list[int]
    sampler: Any
    max_tokens: int
    on_token: TokenListener
    on_end: Callable[[str | Exception, Usage], None]
    cancelled: bool = False
    reused: int = 0
    generated: int = 0
    began: float = field(default_factory=time.perf_counter)
    first: float = 0.0

    def usage(self) -> Usage:
        now = time.perf_counter()
        first = self.first or now
        return Usage(len(self.prompt), self.reused, self.generated, first - self.began, now - first)


@dataclass
class Slot:
    """`tokens` are in the model's memory; `todo` come next: the rest of the prompt, or the token chosen last."""

    number: int
    tokens: list[int] = field(default_factory=list)
    todo: list[int] = field(default_factory=list)
    turn: Turn | None = None
    used: float = 0.0

    @property
    def reading(self) -> bool:
        """Whether its prompt is not wholly read."""
        return self.turn is not None and not self.turn.generated


def common_prefix(a: Sequence[int] | np.ndarray, b: Sequence[int] | np.ndarray) -> int:
    """How many tokens two texts share at their beginning."""
    length = min(len(a), len(b))
    different = np.nonzero(np.asarray(a[:length]) != np.asarray(b[:length]))[0]
    return int(different[0]) if different.size else length


def best_slot(slots: Sequence[Slot], prompt: Sequence[int]) -> tuple[Slot, int] | None:
    """The free slot that remembers most of a prompt, with how much, or the one longest unused; None when all are busy.

    A slot is not taken for a short common beginning (everybody's system prompt, say) while an idle one is there.
    """
    free = [(slot, common_prefix(slot.tokens, prompt)) for slot in slots if slot.turn is None]
    if not free:
        return None
    slot, shared = max(free, key=lambda each: each[1])
    if 2 * shared >= len(slot.tokens) and shared:
        return slot, shared
    return min(free, key=lambda each: (bool(each[0].tokens), each[0].used))
