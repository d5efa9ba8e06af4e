"""Asks and answers as JSON values, and back: what passes between the two processes is data, never code."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from relight.llm.asks import (
    ChatAsk,
    CompletionAsk,
    EmbedAsk,
    Json,
    Limits,
    Loaded,
    LoadSettings,
    Piece,
    Sampling,
    StateBudget,
    TokenLogprob,
    ToolCall,
    Usage,
)


def as_json(value: Any) -> Json:
    return asdict(value)


def load_settings(values: Json) -> LoadSettings:
    return LoadSettings(**{**values, "states": StateBudget(**values["states"])})


def chat_ask(values: Json) -> ChatAsk:
    return ChatAsk(
        **{
            **values,
            **_choosing(values),
            "messages": tuple(values["messages"]),
            "tools": tuple(values["tools"]),
        }
    )


def completion_ask(values: Json) -> CompletionAsk:
    prompt = values["prompt"]
    return CompletionAsk(
        **{**values, **_choosing(values), "prompt": prompt if isinstance(prompt, str) else tuple(prompt)}
    )


def embed_ask(values: Json) -> EmbedAsk:
    texts = tuple(text if isinstance(text, str) else tuple(text) for text in values["texts"])
    return EmbedAsk(texts=texts, dimensions=values["dimensions"])


def _choosing(values: Json) -> dict[str, Any]:
    sampling, limits = dict(values["sampling"]), dict(values["limits"])
    sampling["logit_bias"] = {int(token): bias for token, bias in sampling["logit_bias"].items()}
    limits["stop"] = tuple(limits["stop"])
    return {"sampling": Sampling(**sampling), "limits": Limits(**limits)}


def loaded(values: Json) -> Loaded:
    return Loaded(**{**values, "can": tuple(values["can"])})


def piece_as_json(piece: Piece) -> Json:
    """Only what the piece has: one goes over the pipe for each token."""
    values: Json = {"text": piece.text} if piece.text else {}
    if piece.reasoning:
        values["reasoning"] = piece.reasoning
    if piece.tool_calls:
        values["tool_calls"] = [asdict(call) for call in piece.tool_calls]
    if piece.logprobs:
        values["logprobs"] = [[each.text, each.raw, each.logprob, each.top] for each in piece.logprobs]
    if piece.finish_reason:
        values["finish_reason"] = piece.finish_reason
    if piece.usage:
        values["usage"] = asdict(piece.usage)
    return values


def piece(values: Json) -> Piece:
    return Piece(
        values.get("text", ""),
        tuple(ToolCall(**call) for call in values.get("tool_calls", ())),
        tuple(
            TokenLogprob(text, tuple(raw), logprob, tuple((t, tuple(b), p) for t, b, p in top))
            for text, raw, logprob, top in values.get("logprobs", ())
        ),
        values.get("finish_reason"),
        Usage(**values["usage"]) if values.get("usage") else None,
        values.get("reasoning", ""),
    )
