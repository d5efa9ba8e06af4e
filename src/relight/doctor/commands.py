"""The command relight doctor."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relight.doctor import report
from relight.doctor.finding import Finding, warn
from relight.errors import ConfigError

if TYPE_CHECKING:
    from relight.doctor.machine import Asked, Machine


def add_commands(commands: argparse._SubParsersAction[Any], common: argparse.ArgumentParser) -> None:
    """Add `doctor` to the program's commands."""
    p = commands.add_parser(
        "doctor", parents=[common], help="look for what is wrong with this machine; changes nothing"
    )
    p.add_argument("models", metavar="MODEL", nargs="*", help="models to check it for; default: those that were pulled")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.add_argument("--fix-hints", action="store_true", help="why it matters, what to type, and how to undo it")
    p.add_argument(
        "--verify", action="store_true", help="also compute a small picture on card and processor, and compare"
    )
    p.add_argument("--backend", metavar="DEVICE", help="the device to verify, such as vulkan0; default: the first card")
    p.set_defaults(run=doctor)


def doctor(a: argparse.Namespace) -> None:
    """Print findings as they come. Ends with status 1 when one is a failure."""
    if a.backend is not None and not re.fullmatch(r"vulkan\d+", a.backend):
        raise ConfigError(f"--backend {a.backend}: name a device such as vulkan0 (relight devices lists them)")
    found: list[Finding] = []
    for finding in findings(a):
        found.append(finding)
        if not a.json:
            print("\n".join(report.lines(finding, with_hints=a.fix_hints)), flush=True)
    result = report.as_dict(found)
    print(json.dumps(result) if a.json else report.summary(found, with_hints=a.fix_hints))
    if result["status"]:
        sys.exit(1)


def findings(a: argparse.Namespace) -> Iterator[Finding]:
    from relight.doctor.checks import examine

    machine = this_machine(a.models, getattr(a, "config", None))
    yield from examine(machine)
    if a.verify:
        yield from verified(machine, a.backend)


def this_machine(models: list[str], config: Path | None = None) -> Machine:
    """Raises RequestError for a model that is not there."""
    from relight.doctor.facts.system import System
    from relight.doctor.machine import Outside, snapshot
    from relight.doctor.models import model_sets
    from relight.store.places import Places
    from relight.tuning import pipelines

    asked = settings(config)
    places = Places.of()
    folders = [str(folder) for folder in places.folders().values()]
    sets = model_sets(models, places)
    kept = pipelines.variables(pipelines.cache_home() / pipelines.FOLDER)  # of workers, where the user sets nothing
    system = System(environ=kept | {name: value for name, value in os.environ.items() if value or name not in kept})
    return snapshot(system, Outside(), sets, model_folder=str(places.directory), other_folders=folders, asked=asked)


def settings(config: Path | None) -> Asked:
    """What relight.yaml says; its variables are set for this process and those it asks."""
    from relight.configuration.engine import environment
    from relight.configuration.load import load
    from relight.doctor.machine import Asked

    try:
        loaded = load(config)
    except ConfigError as error:
        return Asked(error=str(error))
    for name, value in environment(loaded.settings).items():
        os.environ.setdefault(name, value)
    runtime = loaded.settings.runtime
    file = str(loaded.file) if loaded.file else None
    return Asked(file, scheduler=runtime.io_scheduler, queue_depth=runtime.nvme_queue_depth)


def verified(machine: Machine, named: str | None) -> Iterator[Finding]:
    from relight.doctor.verify import verify

    device = named or next((gpu["name"] for gpu in machine.engine.gpus), None)
    if device is None:
        yield warn(
            "verify",
            "no card to verify",
            "there is only the processor; a software device is verified by name: --backend vulkan0",
        )
        return
    yield from verify(device)
