"""Models by the names that requests use: keys of a list, never paths."""

from __future__ import annotations

import difflib

from relight.gateway.node import ModelCard, ModelKind, Node
from relight.gateway.problem import Problem, invalid


def card(node: Node, name: str) -> ModelCard:
    """Raises Problem 404, naming models that are called alike."""
    cards = {each.id: each for each in node.models()}
    if name in cards:
        return cards[name]
    near = difflib.get_close_matches(name[:200], cards, n=3)
    hint = f"; did you mean {', '.join(near)}?" if near else "; GET /v1/models lists what there is"
    raise Problem(404, f"there is no model of this name{hint}", code="model_not_found", param="model")


def model_for(node: Node, name: str | None, kind: ModelKind) -> ModelCard:
    """The named model, or the only one (or the first that is loaded) of its kind where none is named.

    Raises Problem 404 for an unknown model, 400 for one of another kind."""
    if not name:
        cards = [each for each in node.models() if suits(each, kind)]
        if not cards:
            raise Problem(404, f"there is no {kind} model here", code="model_not_found", param="model")
        return next((each for each in cards if each.loaded), cards[0])
    found = card(node, name)
    if not suits(found, kind):
        raise invalid("model", f"{found.id} is a model for {found.kind}, and this route needs one for {kind}")
    return found


def suits(model: ModelCard, kind: ModelKind) -> bool:
    """Models that talk may also embed."""
    return model.kind == kind or (kind == "embedding" and "embeddings" in model.capabilities)
