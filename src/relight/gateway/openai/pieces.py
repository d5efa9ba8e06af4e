"""Pieces of text put together."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from relight.gateway.node import ChatPiece, TokenLogprob, ToolCall, Usage


@dataclass
class Collected:
    """A whole answer."""

    text: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: str = "stop"
    usage: Usage | None = None


async def collected(pieces: AsyncGenerator[ChatPiece, None]) -> Collected:
    answer = Collected()
    texts, thoughts = [], []
    async with aclosing(pieces):
        async for piece in pieces:
            texts.append(piece.text)
            thoughts.append(piece.reasoning)
            add_calls(answer.tool_calls, piece)
            answer.logprobs.extend(piece.logprobs)
            answer.finish = piece.finish or answer.finish
            answer.usage = piece.usage or answer.usage
    answer.text, answer.reasoning = "".join(texts), "".join(thoughts)
    return answer


def add_calls(calls: list[ToolCall], piece: ChatPiece) -> None:
    for each in piece.tool_calls:
        while len(calls) <= each.index:
            calls.append(ToolCall("", "", ""))
        before = calls[each.index]
        calls[each.index] = ToolCall(each.id or before.id, each.name or before.name, before.arguments + each.arguments)


def usage_shape(usage: Usage | None) -> dict[str, Any]:
    usage = usage or Usage(0, 0)
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
