"""What the machine is and how it does: plan, devices, health, readiness, metrics."""

from __future__ import annotations

import asyncio
import logging

from starlette.responses import Response

from relight.gateway.body import json_body
from relight.gateway.catalogue import card
from relight.gateway.metrics import MEDIA_TYPE
from relight.gateway.node import PlanAsk
from relight.gateway.own.shapes import PlanBody, UnloadBody
from relight.gateway.problem import Problem
from relight.gateway.reply import Patient, at_once, encoded
from relight.gateway.state import Answer, Call, stopping_problem

log = logging.getLogger(__name__)


async def plan(call: Call) -> Answer:
    body = await json_body(call, PlanBody)
    card(call.gateway.node, body.model)
    ask = PlanAsk(**body.model_dump())

    async def answer() -> bytes:
        return encoded(dict(await call.gateway.node.plan(ask)))

    return Patient(call.gateway, answer())


async def unload(call: Call) -> Answer:
    body = await json_body(call, UnloadBody)
    model = card(call.gateway.node, body.model)
    if not await call.gateway.node.unload(model.id):
        raise Problem(409, f"{model.id} is in use; ask again when it is idle", code="model_busy", param="model")
    return at_once({"model": model.id, "loaded": False})


async def devices(call: Call) -> Answer:
    return at_once({"devices": [dict(each) for each in await call.gateway.node.devices()]})


async def healthz(call: Call) -> Answer:
    """Real work on the devices, once for all who ask at the same time. What is wrong in detail is for the log."""
    try:
        health = await call.gateway.shared.result(
            "healthz",
            b"",
            lambda: checked(call),
            join=True,
            grace=lambda: True,
            remember_s=call.gateway.settings.health_every_s,
        )
    except TimeoutError:
        return at_once({"status": "failed", "checks": []}, 503, {"Retry-After": "10"})
    return at_once(*health)


async def checked(call: Call) -> tuple[dict[str, object], int]:
    async with asyncio.timeout(call.gateway.settings.health_s):
        health = await call.gateway.node.health()
    for check in health.checks:
        if not check.ok:
            log.error("health: %s failed after %.1f s: %s", check.name, check.seconds, check.detail)
    checks = [{"name": each.name, "ok": each.ok, "seconds": round(each.seconds, 3)} for each in health.checks]
    return {"status": "ok" if health.ok else "failed", "checks": checks}, 200 if health.ok else 503


async def readyz(call: Call) -> Answer:
    if call.gateway.stopping:
        raise stopping_problem()
    call.admit()
    return at_once({"status": "ready"})


async def metrics(call: Call) -> Answer:
    return Response(await asyncio.to_thread(call.gateway.metrics.text), media_type=MEDIA_TYPE)
