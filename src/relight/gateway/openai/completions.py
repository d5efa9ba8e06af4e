"""POST /v1/completions: text gone on with, for one prompt or several."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any

from relight.gateway.body import json_body
from relight.gateway.catalogue import model_for
from relight.gateway.node import ChatPiece, CompletionAsk, TokenLogprob, Usage
from relight.gateway.openai.chat import finite, head, shared
from relight.gateway.openai.pieces import collected, usage_shape
from relight.gateway.openai.text_shapes import CompletionBody
from relight.gateway.problem import invalid
from relight.gateway.reply import EventStream, Patient, encoded, sent
from relight.gateway.state import Answer, Call

Prompt = str | tuple[int, ...]


async def completions(call: Call) -> Answer:
    body = await json_body(call, CompletionBody)
    call.admit()
    asks = completion_asks(call, body)
    gateway = call.gateway
    echoes = [each.prompt if body.echo and isinstance(each.prompt, str) else "" for each in asks]
    if body.stream:
        pieces = [gateway.node.complete(each) for each in asks]
        return EventStream(gateway, streamed(asks[0].model, pieces, echoes, body.with_usage))

    async def answer() -> bytes:
        return encoded(await whole(asks[0].model, [gateway.node.complete(each) for each in asks], echoes))

    return Patient(gateway, shared(call, answer))


def completion_asks(call: Call, body: CompletionBody) -> list[CompletionAsk]:
    model = model_for(call.gateway.node, body.model, "chat")
    prompts = listed(body.prompt)
    most = call.gateway.settings.limits.prompt_chars
    if sum(map(len, prompts)) + len(body.suffix or "") > most:
        raise invalid("prompt", f"more than {most} characters", "context_length_exceeded")
    sampling = body.sampling(body.max_tokens, body.logprobs)
    return [
        CompletionAsk(model=model.id, prompt=each, suffix=body.suffix, sampling=sampling, owner=call.owner)
        for each in prompts
    ]


def listed(given: str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]]) -> list[Prompt]:
    """A text or its tokens, or several of either, as a list."""
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [tuple(given)]  # type: ignore[arg-type]
    return [each if isinstance(each, str) else tuple(each) for each in given]  # type: ignore[arg-type]


async def whole(model: str, pieces: Sequence[AsyncGenerator[ChatPiece, None]], echoes: Sequence[str]) -> dict[str, Any]:
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(collected(each)) for each in pieces]
    except ExceptionGroup as failed:  # with a status of its own, which a group has not
        raise failed.exceptions[0] from None
    answers = [task.result() for task in tasks]
    choices = [
        {
            "index": i,
            "text": echoes[i] + each.text,
            "logprobs": logprobs_shape(each.logprobs),
            "finish_reason": each.finish,
        }
        for i, each in enumerate(answers)
    ]
    usages = [each.usage or Usage(0, 0) for each in answers]
    return {**head(model, "text_completion"), "choices": choices, "usage": usage_shape(added(usages))}


async def streamed(
    model: str, pieces: Sequence[AsyncGenerator[ChatPiece, None]], echoes: Sequence[str], with_usage: bool
) -> AsyncGenerator[bytes, None]:
    """Prompt after prompt."""
    top = head(model, "text_completion")
    usages = []
    async with AsyncExitStack() as stack:
        for each in pieces:
            await stack.enter_async_context(aclosing(each))
        for i, each in enumerate(pieces):
            before = echoes[i]
            async for piece in each:
                choice = {
                    "index": i,
                    "text": before + piece.text,
                    "logprobs": logprobs_shape(piece.logprobs),
                    "finish_reason": piece.finish,
                }
                before = ""
                if piece.usage:
                    usages.append(piece.usage)
                yield sent({**top, "choices": [choice], **({"usage": None} if with_usage else {})})
    if with_usage:
        yield sent({**top, "choices": [], "usage": usage_shape(added(usages))})
    yield b"data: [DONE]\n\n"


def added(usages: Sequence[Usage]) -> Usage:
    return Usage(
        sum(each.prompt_tokens for each in usages),
        sum(each.completion_tokens for each in usages),
        sum(each.cached_tokens for each in usages),
    )


def logprobs_shape(tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    if not tokens:
        return None
    return {
        "tokens": [each.token for each in tokens],
        "token_logprobs": [finite(each.logprob) for each in tokens],
        "top_logprobs": [{text: finite(value) for text, value in each.top} for each in tokens],
    }
