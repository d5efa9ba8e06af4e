"""GET /openapi.json."""

from __future__ import annotations

from relight.gateway.reply import at_once
from relight.gateway.state import Answer, Call


async def description(call: Call) -> Answer:
    return at_once(call.gateway.description)
