"""What was done, for `relight generate --json` and for the text inside a picture."""

from __future__ import annotations

from typing import Any

from relight.jobs.clock import Clock
from relight.jobs.fleet import Fleet
from relight.jobs.settle import Settled
from relight.planner.placement import Placement


def report(
    fleet: Fleet, settled: Settled, placement: Placement, clock: Clock, loras: list[dict[str, Any]]
) -> dict[str, Any]:
    """Settings as they were in force, bytes of each component and device, seconds of each stage."""
    request, last = settled.request, settled.passes[-1]
    components, devices = fleet.report()
    gpu = fleet.gpu
    for name, used in devices.items():
        if gpu and name == gpu.name:
            used["predicted_bytes"] = placement.peak_bytes(name)
            used["budget_bytes"] = gpu.budget
            used["driver_bytes"] = gpu.free_bytes - used["free_bytes"]
    return {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "model": fleet.files.name,
        "family": fleet.files.family.name,
        "width": last.width,
        "height": last.height,
        "seeds": request.seeds,
        "rng": request.rng,
        "sampler": settled.sampler,
        "schedule": settled.schedule if request.sigmas is None else None,
        "sigmas": [float(level) for level in settled.passes[0].levels],
        "cfg_scale": settled.cfg_scale,
        "clip_skip": settled.clip_skip,
        "guidance": settled.guidance,
        "strength": request.redraw.strength if request.redraw else None,
        "hires": hires(settled),
        "loras": loras,
        "vae_tile": placement.tile,
        "batch_rows": placement.batch,
        "components": components,
        "devices": devices,
        "seconds": clock.report(),
    }


def hires(settled: Settled) -> dict[str, Any] | None:
    asked = settled.request.hires
    if asked is None:
        return None
    return {
        "scale": asked.scale,
        "strength": asked.strength,
        "upscaler": asked.upscaler,
        "sigmas": [float(level) for level in settled.passes[-1].levels],
    }
