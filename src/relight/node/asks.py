"""Between the gateway's words and the language model's."""

from __future__ import annotations

from typing import Any

from relight.errors import RequestError
from relight.gateway import node as gateway
from relight.llm import asks as llm
from relight.llm import reasoning


def chat(ask: gateway.ChatAsk) -> llm.ChatAsk:
    return llm.ChatAsk(
        messages=tuple(message(each) for each in ask.messages),
        tools=tuple({"type": "function", "function": dict(tool)} for tool in ask.tools),
        tool_choice=ask.tool_choice,
        response_format=response_format(ask.response_schema),
        sampling=sampling(ask.sampling),
        limits=limits(ask.sampling),
        template_values=reasoning.template_values(ask.reasoning_effort, dict(ask.template_values)),
    )


def completion(ask: gateway.CompletionAsk) -> llm.CompletionAsk:
    return llm.CompletionAsk(
        prompt=ask.prompt, suffix=ask.suffix, sampling=sampling(ask.sampling), limits=limits(ask.sampling)
    )


def message(said: gateway.Message) -> dict[str, Any]:
    """In OpenAI's shape."""
    if any(isinstance(part, bytes) for part in said.parts):
        raise RequestError("messages: this model sees no pictures; send text alone")
    values: dict[str, Any] = {"role": said.role, "content": "".join(str(part) for part in said.parts)}
    if said.name is not None:
        values["name"] = said.name
    if said.reasoning:
        values["reasoning_content"] = said.reasoning
    if said.tool_call_id is not None:
        values["tool_call_id"] = said.tool_call_id
    if said.tool_calls:
        values["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in said.tool_calls
        ]
    return values


def response_format(schema: Any) -> dict[str, Any] | None:
    if schema is None:
        return None
    if not schema:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema)}}


def sampling(asked: gateway.Sampling) -> llm.Sampling:
    given = {
        name: getattr(asked, name)
        for name in (
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "repeat_penalty",
            "presence_penalty",
            "frequency_penalty",
            "seed",
        )
        if getattr(asked, name) is not None
    }
    return llm.Sampling(logit_bias=dict(asked.logit_bias), **given)


def limits(asked: gateway.Sampling) -> llm.Limits:
    return llm.Limits(max_tokens=asked.max_tokens, stop=asked.stop, logprobs=asked.logprobs)


def piece(said: llm.Piece) -> gateway.ChatPiece:
    finish = said.finish_reason if said.finish_reason != "cancelled" else "stop"
    used = said.usage
    return gateway.ChatPiece(
        text=said.text,
        reasoning=said.reasoning,
        tool_calls=tuple(
            gateway.ToolCallDelta(call.index, call.id, call.name, call.arguments) for call in said.tool_calls
        ),
        logprobs=tuple(
            gateway.TokenLogprob(token.text, token.logprob, tuple((text, value) for text, _, value in token.top))
            for token in said.logprobs
        ),
        finish=finish,
        usage=gateway.Usage(used.prompt_tokens, used.completion_tokens, used.reused_tokens) if used else None,
    )
