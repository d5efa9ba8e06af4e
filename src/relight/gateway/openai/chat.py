"""POST /v1/chat/completions."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from relight.gateway.body import check_values, json_body
from relight.gateway.catalogue import model_for
from relight.gateway.node import ChatAsk, ChatPiece, Message, ModelCard, TokenLogprob, ToolCall, ToolCallDelta, Usage
from relight.gateway.openai.pieces import Collected, collected, usage_shape
from relight.gateway.openai.text_shapes import ChatBody, ChatMessage, JsonSchema, NamedTool, TextPart
from relight.gateway.pictures import picture_of_url
from relight.gateway.problem import Problem, invalid
from relight.gateway.reply import EventStream, Patient, encoded, sent
from relight.gateway.settings import Limits
from relight.gateway.state import Answer, Call

ROLES: dict[str, Any] = {"developer": "system"}


async def chat(call: Call) -> Answer:
    body = await json_body(call, ChatBody)
    call.admit()
    ask = chat_ask(call, body)
    gateway = call.gateway
    pieces = gateway.node.chat
    if body.stream:
        return EventStream(gateway, streamed(ask.model, pieces(ask), body.with_usage))

    async def answer() -> bytes:
        return encoded(whole(ask.model, await collected(pieces(ask))))

    return Patient(gateway, shared(call, answer))


async def shared(call: Call, make: Any) -> bytes:
    """The answer, made once for a request and its repetitions."""
    began = time.monotonic()
    key = (call.owner, call.key or call.digest)
    repeats = call.repeated or call.key is not None
    answer: bytes = await call.gateway.shared.result(
        key, call.digest, make, join=repeats, grace=lambda: call.timed_out_after(time.monotonic() - began)
    )
    return answer


def chat_ask(call: Call, body: ChatBody) -> ChatAsk:
    """Raises Problem for what this model or this server cannot do."""
    limits = call.gateway.settings.limits
    model = model_for(call.gateway.node, body.model, "chat")
    messages = tuple(message(each, f"messages[{i}]", model, limits) for i, each in enumerate(body.messages))
    check_size(messages, limits)
    tools = tuple(tool.function.model_dump(exclude_none=True) for tool in body.tools or ())
    for i, tool in enumerate(tools):
        check_schema(tool.get("parameters", {}), f"tools[{i}].function.parameters", limits)
    wanted = body.max_completion_tokens or body.max_tokens
    return ChatAsk(
        model=model.id,
        messages=messages,
        sampling=body.sampling(wanted, (body.top_logprobs or 0) if body.logprobs else None),
        tools=tools,
        tool_choice=tool_choice(body, [tool["name"] for tool in tools]),
        parallel_tool_calls=body.parallel_tool_calls is not False,
        response_schema=response_schema(body, limits),
        reasoning_effort=body.reasoning_effort,
        template_values=body.chat_template_kwargs or {},
        owner=call.owner,
    )


def message(given: ChatMessage, param: str, model: ModelCard, limits: Limits) -> Message:
    parts: list[str | bytes] = []
    if isinstance(given.content, str):
        parts.append(given.content)
    for i, part in enumerate(given.content or () if not isinstance(given.content, str) else ()):
        if isinstance(part, TextPart):
            parts.append(part.text)
            continue
        where = f"{param}.content[{i}].image_url.url"
        if "vision" not in model.capabilities:
            raise invalid(where, f"{model.id} cannot see pictures; ask a model with vision", "vision_unsupported")
        parts.append(picture_of_url(part.image_url.url, where, limits))
    if given.content is None and not given.tool_calls:
        raise invalid(f"{param}.content", "is missing")
    if given.role == "tool" and not given.tool_call_id:
        raise invalid(f"{param}.tool_call_id", "is missing: which call is this the result of?")
    return Message(
        role=ROLES.get(given.role, given.role),
        parts=tuple(parts),
        name=given.name,
        tool_calls=tuple(ToolCall(t.id, t.function.name, t.function.arguments) for t in given.tool_calls or ()),
        tool_call_id=given.tool_call_id,
        reasoning=given.reasoning_content,
    )


def check_size(messages: Sequence[Message], limits: Limits) -> None:
    chars = sum(len(part) for each in messages for part in (*each.parts, each.reasoning) if isinstance(part, str))
    if chars > limits.prompt_chars:
        raise invalid("messages", f"more than {limits.prompt_chars} characters", "context_length_exceeded")
    if sum(isinstance(part, bytes) for each in messages for part in each.parts) > limits.pictures:
        raise invalid("messages", f"more than {limits.pictures} pictures")


def check_schema(schema: Mapping[str, Any], param: str, limits: Limits) -> None:
    """A schema becomes a grammar: what is small enough to write by hand is enough."""
    try:
        values = check_values(schema, limits.schema_depth)
    except Problem:
        raise invalid(param, f"a schema nested more than {limits.schema_depth} deep") from None
    if values > limits.schema_values:
        raise invalid(param, f"a schema of more than {limits.schema_values} values")


def tool_choice(body: ChatBody, names: Sequence[str]) -> str:
    choice = body.tool_choice
    if isinstance(choice, NamedTool):
        if choice.function.name not in names:
            raise invalid("tool_choice", "names a function that is not among the tools")
        return choice.function.name
    if choice == "required" and not names:
        raise invalid("tool_choice", "required, and there are no tools")
    return choice or "auto"


def response_schema(body: ChatBody, limits: Limits) -> Mapping[str, Any] | None:
    wanted = body.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {}
    if wanted.json_schema is None:
        raise invalid("response_format.json_schema", "is missing")
    schema = of(wanted.json_schema)
    check_schema(schema, "response_format.json_schema", limits)
    return schema


def of(schema: JsonSchema) -> Mapping[str, Any]:
    return schema.schema_


def whole(model: str, answer: Collected) -> dict[str, Any]:
    content: dict[str, Any] = {"role": "assistant", "content": answer.text or (None if answer.tool_calls else "")}
    if answer.reasoning:
        content["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        content["tool_calls"] = [
            {"id": each.id, "type": "function", "function": {"name": each.name, "arguments": each.arguments}}
            for each in answer.tool_calls
        ]
    choice = {
        "index": 0,
        "message": content,
        "logprobs": logprobs_shape(answer.logprobs),
        "finish_reason": answer.finish,
    }
    return {**head(model, "chat.completion"), "choices": [choice], "usage": usage_shape(answer.usage)}


async def streamed(
    model: str, pieces: AsyncGenerator[ChatPiece, None], with_usage: bool
) -> AsyncGenerator[bytes, None]:
    top = head(model, "chat.completion.chunk")
    usage: Usage | None = None
    first: dict[str, Any] = {"role": "assistant", "content": ""}
    async with aclosing(pieces):
        async for piece in pieces:
            usage = piece.usage or usage
            choice = {
                "index": 0,
                "delta": {**first, **delta(piece)},
                "logprobs": logprobs_shape(piece.logprobs),
                "finish_reason": piece.finish,
            }
            first = {}
            yield sent({**top, "choices": [choice], **({"usage": None} if with_usage else {})})
    if with_usage:
        yield sent({**top, "choices": [], "usage": usage_shape(usage)})
    yield b"data: [DONE]\n\n"


def delta(piece: ChatPiece) -> dict[str, Any]:
    shape: dict[str, Any] = {}
    if piece.text:
        shape["content"] = piece.text
    if piece.reasoning:
        shape["reasoning_content"] = piece.reasoning
    if piece.tool_calls:
        shape["tool_calls"] = [tool_delta(each) for each in piece.tool_calls]
    return shape


def tool_delta(call: ToolCallDelta) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": call.arguments}
    if call.name is None:
        return {"index": call.index, "function": function}
    return {"index": call.index, "id": call.id, "type": "function", "function": {"name": call.name, **function}}


def logprobs_shape(tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    if not tokens:
        return None
    return {
        "content": [
            {**token(each.token, each.logprob), "top_logprobs": [token(text, value) for text, value in each.top]}
            for each in tokens
        ],
        "refusal": None,
    }


def token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": finite(logprob), "bytes": list(text.encode("utf-8", "replace"))}


def finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI writes -9999 for what is all but impossible."""
    return max(logprob, -9999.0)


def head(model: str, kind: str) -> dict[str, Any]:
    prefix = "chatcmpl" if kind.startswith("chat") else "cmpl"
    return {"id": f"{prefix}-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": model}
