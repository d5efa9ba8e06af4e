"""What a picture would take, by the planner, for `/api/plan`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relight.gateway.node import PlanAsk
from relight.jobs.fleet import EngineSettings
from relight.jobs.request import GenerateRequest
from relight.node.registry import Registry
from relight.planner.outlook import machine_for
from relight.planner.plan import Ask, Planning, as_dict

GIB = 1 << 30


def forecast(registry: Registry, engine: EngineSettings, ask: PlanAsk) -> Mapping[str, Any]:
    """JSON as `relight plan --json` prints it. Raises RequestError, DoesNotFit."""
    files = registry.files(ask.model)
    request = GenerateRequest(prompt="", width=ask.width, height=ask.height, steps=ask.steps, batch=ask.batch, seed=0)
    max_vram = engine.max_vram_bytes / GIB if engine.max_vram_bytes is not None else None
    machine, timings = machine_for(None, max_vram, engine.threads, None)
    planning = Planning(machine, Ask(backend=engine.backend, options=engine.options), timings)
    return as_dict(planning.of_files(ask.model, files, request))
