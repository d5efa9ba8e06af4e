"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from typing import Any

from relight.gateway.catalogue import card
from relight.gateway.node import ModelCard
from relight.gateway.reply import at_once
from relight.gateway.state import Answer, Call


async def list_models(call: Call) -> Answer:
    return at_once({"object": "list", "data": [shape(each) for each in call.gateway.node.models()]})


async def get_model(call: Call) -> Answer:
    return at_once(shape(card(call.gateway.node, call.request.path_params["model"])))


def shape(model: ModelCard) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "kind": model.kind,
        "capabilities": sorted(model.capabilities),
        "loaded": model.loaded,
        "stopped_seconds": None if model.stopped_s is None else round(model.stopped_s, 1),
    }
