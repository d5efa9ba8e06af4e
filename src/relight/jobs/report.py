"""What was done, for `relight generate --json` and for the text inside a picture."""

from __future__ import annotations

from typing import Any

from relight.jobs.run import Run
from relight.jobs.settle import Settled


def report(run: Run, loras: list[dict[str, Any]]) -> dict[str, Any]:
    """Settings as they were in force, bytes of each component and device, seconds of each stage."""
    fleet, settled, placement = run.fleet, run.settled, run.placement
    request, last = settled.request, settled.passes[-1]
    gpu, devices = fleet.gpu, {name: dict(used) for name, used in run.devices.items()}
    if gpu and gpu.name in devices:
        devices[gpu.name] |= {
            "predicted_bytes": placement.peak_bytes(gpu.name),
            "budget_bytes": gpu.budget,
            "driver_bytes": gpu.free_bytes - devices[gpu.name]["free_bytes"],
        }
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
        "steps": settled.steps,
        "sigmas": [float(level) for level in settled.passes[0].levels],
        "cfg_scale": settled.cfg_scale,
        "cfg_rescale": request.cfg_rescale,
        "clip_skip": settled.clip_skip,
        "guidance": settled.guidance,
        "strength": request.redraw.strength if request.redraw else None,
        "hires": hires(settled),
        "controls": [
            {"model": each.path.stem, "strength": each.strength, "start": each.start, "end": each.end}
            for each in request.controls
        ],
        "upscale": request.upscale,
        "decoder": request.decode_with,
        "loras": loras,
        "vae_tile": placement.tile,
        "batch_rows": placement.batch,
        "components": run.components,
        "devices": devices,
        "seconds": run.clock.report(),
    }


def hires(settled: Settled) -> dict[str, Any] | None:
    asked = settled.request.hires
    if asked is None:
        return None
    return {
        "from_size": [settled.passes[0].width, settled.passes[0].height],
        "scale": asked.scale,
        "steps": asked.steps or settled.steps,
        "strength": asked.strength,
        "upscaler": asked.upscaler,
        "sigmas": [float(level) for level in settled.passes[-1].levels],
    }
