"""`compute_shaders: precompiled`: the warm-up before a picture, where a model was never warmed up on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable

from relight.configuration.engine import backend, card
from relight.configuration.schema import Settings
from relight.jobs.checks import Checked
from relight.jobs.request import GenerateRequest, ModelFiles
from relight.planner import backends
from relight.planner.machine import Machine
from relight.planner.networks import Networks
from relight.planner.outlook import machine_for
from relight.planner.profiles import pretended
from relight.planner.workload import workload
from relight.tuning.tuned import signature
from relight.tuning.warm import Warmup, needs

Tell = Callable[[str], None]


def warm_first(settings: Settings, files: ModelFiles, request: GenerateRequest, tell: Tell) -> bool:
    """Build the pipelines and find the quickest ways where settings ask for it; whether that was to do.

    Raises DoesNotFit."""
    said = backend(settings)
    if settings.backend.compute_shaders != "precompiled" or backends.without_card(said):
        return False
    max_vram, threads = settings.engine.max_vram, settings.engine.threads
    device = backends.named_gpu(said) or (None if settings.backend.device_index is None else card(settings))
    machine, _ = machine_for(None, max_vram, threads, None, device)
    return warm_on(machine, files, request, threads, tell, said)


def warm_on(
    machine: Machine,
    files: ModelFiles,
    request: GenerateRequest,
    threads: int | None,
    tell: Tell,
    said: str | None = None,
) -> bool:
    """What is sent somewhere (`said`) is timed there alone. On a machine without a card there is nothing to build."""
    if machine.gpu is None:
        return False
    warmup = Warmup(machine, pretended(os.environ), threads, tell=tell, backend=said)
    with Networks(files) as networks:
        names = workload(Checked(files), request).names
        wanted = {name: signature(name, networks.component(name).checkpoint) for name in names}
    if not needs(warmup.tables(), wanted):
        return False
    tell(f"backend.compute_shaders is precompiled: {files.name} is warmed up for this machine, once")
    warmed = warmup.warm(files, request)
    tell(f"{warmed.timed} timed, pipelines took {warmed.first_s:.1f} s; relight warm does this for other sizes")
    return True
