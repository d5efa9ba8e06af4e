"""Asks of the tests, and answers as one value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from relight.llm.asks import ChatAsk, CompletionAsk, Limits, LoadSettings, Piece, Sampling, StateBudget, ToolCall, Usage

SETTINGS = LoadSettings(context=1024, slots=4, threads=1, batch=128, states=StateBudget(ram_bytes=0))
GREEDY = Sampling(temperature=0)
NO_END = {283: -1000.0, 285: -1000.0}
"""Biases that keep the small model from ending its answer: its end of text and its end of turn."""


@dataclass
class Whole:
    text: str
    pieces: list[Piece]
    calls: list[ToolCall]
    finish: str | None
    usage: Usage


def whole(pieces: Iterable[Piece]) -> Whole:
    got = list(pieces)
    usage = got[-1].usage
    assert usage is not None
    calls = [call for piece in got for call in piece.tool_calls]
    return Whole("".join(piece.text for piece in got), got, calls, got[-1].finish_reason, usage)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def chat(text: str, sampling: Sampling = GREEDY, **limits: Any) -> ChatAsk:
    return ChatAsk(messages=(user(text),), sampling=sampling, limits=Limits(**{"max_tokens": 24, **limits}))


def completion(prompt: str, sampling: Sampling | None = None, **limits: Any) -> CompletionAsk:
    """An ask for exactly as many tokens as it says."""
    how = sampling or Sampling(temperature=0, logit_bias=NO_END)
    return CompletionAsk(prompt=prompt, sampling=how, limits=Limits(**{"max_tokens": 24, **limits}))
