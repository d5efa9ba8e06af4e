"""POST /v1/embeddings."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Sequence

from relight.gateway.body import json_body
from relight.gateway.catalogue import model_for
from relight.gateway.node import EmbeddingAsk
from relight.gateway.openai.chat import shared
from relight.gateway.openai.completions import listed
from relight.gateway.openai.text_shapes import EmbeddingBody
from relight.gateway.problem import invalid
from relight.gateway.reply import Patient, encoded
from relight.gateway.state import Answer, Call


async def embeddings(call: Call) -> Answer:
    body = await json_body(call, EmbeddingBody)
    call.admit()
    model = model_for(call.gateway.node, body.model, "embedding")
    inputs = tuple(listed(body.input))
    most = call.gateway.settings.limits.prompt_chars
    if sum(map(len, inputs)) > most:
        raise invalid("input", f"more than {most} characters", "context_length_exceeded")
    if not all(inputs):
        raise invalid("input", "an empty text has no embedding")
    ask = EmbeddingAsk(model=model.id, inputs=inputs, dimensions=body.dimensions, owner=call.owner)

    async def answer() -> bytes:
        made = await call.gateway.node.embed(ask)
        listing = [
            {
                "object": "embedding",
                "index": i,
                "embedding": packed(each) if body.encoding_format == "base64" else list(map(float, each)),
            }
            for i, each in enumerate(made.vectors)
        ]
        usage = {"prompt_tokens": made.prompt_tokens, "total_tokens": made.prompt_tokens}
        return encoded({"object": "list", "data": listing, "model": ask.model, "usage": usage})

    return Patient(call.gateway, shared(call, answer))


def packed(vector: Sequence[float]) -> str:
    """float32, little-endian, in base64: what official clients ask for by themselves."""
    values = array("f", vector)
    if sys.byteorder == "big":
        values.byteswap()
    return base64.b64encode(values.tobytes()).decode()
