"""The command of the planner: relight plan."""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relight.errors import ConfigError

if TYPE_CHECKING:
    from relight.planner.machine import Machine
    from relight.planner.plan import Ask, Plan
    from relight.planner.together import Together

LONGEST_CONTEXT = 1 << 21
SIZE = re.compile(r"(\d+)x(\d+)")
PROFILE_KEYS = "name, like, memory, reserved, max_allocation, tflops, bandwidth, pcie"


def add_commands(commands: argparse._SubParsersAction[Any], common: argparse.ArgumentParser) -> None:
    """Add `plan` to the program's commands."""
    p = commands.add_parser("plan", parents=[common], help="say what would run where, in what memory and time, and why")
    p.add_argument(
        "models", metavar="MODEL", nargs="*", help="pulled models, folders or checkpoints; default: the settings' one"
    )
    p.add_argument("--size", metavar="WxH", help="pixels of the picture; default: what the model is for")
    p.add_argument("--steps", type=int, metavar="N")
    p.add_argument("--batch", type=int, default=1, metavar="N", help="pictures of one request (default 1)")
    p.add_argument("--cfg-scale", type=float, metavar="X")
    p.add_argument("--llm", type=Path, metavar="FILE", help="a language model in GGUF that shares the card")
    p.add_argument("--ctx", type=int, metavar="TOKENS", help="length of its conversation (default 4096)")
    p.add_argument(
        "--device-profile",
        metavar="CARD",
        help=f"a card that need not be here, such as rx580-8g; or one's own: memory=8G,... ({PROFILE_KEYS}), or a FILE "
        "with one of them in each line, such as memory: 8G",
    )
    p.add_argument("--objective", choices=["latency", "throughput"], default="latency")
    p.add_argument("--backend", metavar="SPEC", help="as for generate")
    p.add_argument("--max-vram", type=float, metavar="GIB")
    p.add_argument("--threads", type=int, metavar="N")
    p.add_argument("--attention", choices=["auto", "flash", "chunked"])
    p.add_argument("--convolution", choices=["auto", "direct", "im2col"])
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.set_defaults(run=plan)


def plan(a: argparse.Namespace) -> None:
    """Print the plan of each model, and how they share the card."""
    from relight.planner import explain
    from relight.planner.plan import Ask, as_dict
    from relight.planner.profiles import VARIABLE, pretended

    if not 0 < a.ctx <= LONGEST_CONTEXT:
        raise ConfigError(f"--ctx {a.ctx}: 1 to {LONGEST_CONTEXT} tokens")
    if not a.models and a.llm is None and a.own is None:
        raise ConfigError("name a model, or a language model with --llm; the settings name none")
    engine = a.engine
    ask = Ask(
        backend=engine.backend,
        options=engine.options,
        objective=a.objective,
        budgets=engine.budgets,
        largest_tile=engine.largest_tile,
    )
    plans, together = planned(a, ask)
    if a.json:
        shared = together.as_dict() if together else None
        print(json.dumps({"plans": [as_dict(each) for each in plans], "together": shared}))
        return
    if pretended(os.environ) is not None and a.device_profile is None and not any(each.machine.gpu for each in plans):
        print(
            f"{VARIABLE} holds a card that is here to another's limits, and none is: --device-profile plans for one\n"
        )
    if a.loaded.file is not None:
        print(f"with the settings of {a.loaded.file}")
    for each in plans:
        print("\n".join(explain.lines(each)))
        print()
    if together is not None:
        print("\n".join(explain.together_lines(together)))


def planned(a: argparse.Namespace, ask: Ask) -> tuple[list[Plan], Together | None]:
    """Every model alone, then all of them on one card. `a.engine` is what settings and options say together, `a.own`
    the settings' own model, where none was named."""
    from relight.jobs.request import GenerateRequest
    from relight.planner import backends
    from relight.planner.language import read_language_model
    from relight.planner.outlook import machine_for
    from relight.planner.plan import Planning
    from relight.planner.together import share

    engine = a.engine
    machine, timings = machine_for(
        a.device_profile,
        engine.max_vram_bytes,
        engine.threads,
        a_file(a),
        backends.named_gpu(engine.backend) or engine.gpu,
        engine.max_vram_share,
    )
    width, height = size(a.size)
    request = GenerateRequest(
        prompt="", width=width, height=height, steps=a.steps, cfg_scale=a.cfg_scale, batch=a.batch, tile=a.tile, seed=0
    )
    planning = Planning(machine, ask, timings)
    plans = [planning.plan(model, request) for model in a.models]
    if a.own is not None:
        plans.append(planning.of_files(a.own.name, a.own, request))
    model = read_language_model(a.llm) if a.llm is not None else None
    return plans, share(machine, [held(each, machine) for each in plans], model, a.ctx)


def a_file(a: argparse.Namespace) -> Path | None:
    """Of the first model, by which its disk is known."""
    from relight.jobs import models

    files = a.own.paths if a.own is not None else models.components(a.models[0]).files if a.models else {}
    return next((paths[0] for paths in files.values()), a.llm)


def held(plan: Plan, machine: Machine) -> Any:
    from relight.planner.together import Held

    gpu = machine.gpu
    peak = max((stage.peak.get(gpu.name, 0) for stage in plan.stages), default=0) if gpu else 0
    return Held(plan.model, peak, plan.gpu_weights(), plan.outcome.course.total.value)


def size(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    match = SIZE.fullmatch(text)
    if match is None:
        raise ConfigError(f"--size {text}: write it as 1024x1024")
    return int(match[1]), int(match[2])
