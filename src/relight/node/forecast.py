"""What a picture would take, by the planner: for `/api/plan`, and for models that are to stay."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relight.gateway.node import PlanAsk
from relight.jobs.engine import EngineSettings
from relight.jobs.request import GenerateRequest
from relight.node.registry import Registry
from relight.planner import backends
from relight.planner.choices import Objective
from relight.planner.language import read_language_model
from relight.planner.machine import Machine
from relight.planner.outlook import TimingsOf, machine_for
from relight.planner.plan import Ask, Plan, Planning, as_dict
from relight.planner.together import share


def forecast(registry: Registry, engine: EngineSettings, ask: PlanAsk, context: int) -> Mapping[str, Any]:
    """JSON as `relight plan --json` prints it, for a language model its part `together`; `context` tokens where none
    are asked for. Raises RequestError, DoesNotFit."""
    entry = registry.entries().get(ask.model)
    if entry is not None and entry.kind == "chat":
        return conversation(registry.chat_file(ask.model), machine_of(engine)[0], ask.context or context)
    request = GenerateRequest(prompt="", width=ask.width, height=ask.height, steps=ask.steps, batch=ask.batch, seed=0)
    return as_dict(planned(registry, engine, ask.model, request))


def conversation(path: Path, machine: Machine, context: int) -> Mapping[str, Any]:
    """What a language model would take with the card to itself. The file's folder is nobody's business."""
    shared = share(machine, (), read_language_model(path), context)
    assert shared is not None  # as it is for a language model
    said = shared.as_dict()
    return said | {"language_model": said["language_model"] | {"file": path.name}}


def planned(
    registry: Registry,
    engine: EngineSettings,
    model: str,
    request: GenerateRequest | None = None,
    objective: Objective = "latency",
    found: tuple[Machine, TimingsOf] | None = None,
) -> Plan:
    """By default of one picture of the size that the model is for, on the machine that is `found` where it was not
    asked for before. Raises RequestError, DoesNotFit, ModelFileError."""
    files = registry.files(model)
    machine, timings = found or machine_of(engine)
    asked = Ask(
        backend=engine.backend,
        options=engine.options,
        objective=objective,
        budgets=engine.budgets,
        largest_tile=engine.largest_tile,
    )
    return Planning(machine, asked, timings).of_files(model, files, request or registry.usual(model))


def machine_of(engine: EngineSettings) -> tuple[Machine, TimingsOf]:
    """Asked by a worker of its own."""
    device = backends.named_gpu(engine.backend) or engine.gpu
    return machine_for(None, engine.max_vram_bytes, engine.threads, None, device, engine.max_vram_share)


def card_bytes(plan: Plan) -> int:
    """Most that the model allocates on the card, as its pipeline foretells it."""
    gpu = plan.machine.gpu
    return 0 if gpu is None else plan.outcome.placement.peak_bytes(gpu.name)
