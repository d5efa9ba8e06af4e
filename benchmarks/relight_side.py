"""relight's pipeline, answering for `side.Side` in the words that `sdcpp_side` uses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from relight.executors.base import CompileOptions
from relight.jobs.fleet import EngineSettings
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import GenerateRequest, ModelFiles
from relight.planner.profiles import pretended
from side import Values, serve

GIB = 1 << 30


def start(settings: Values) -> tuple[Values, Any]:
    """Settings: `files` by component, `tokenizer`, `threads`, `backend`, `max_vram` in GiB, compile `options`."""
    files = {name: (Path(path),) for name, path in settings["files"].items()}
    engine = EngineSettings(
        backend=settings.get("backend"),
        threads=settings["threads"],
        max_vram_bytes=int(settings["max_vram"] * GIB) if settings.get("max_vram") else None,
        options=CompileOptions(**settings.get("options", {})),
        profile=pretended(os.environ),
    )
    pipeline = Pipeline(ModelFiles(**files, t5_tokenizer=Path(settings["tokenizer"])), engine)
    return {}, lambda values: picture(pipeline, values)


def picture(pipeline: Pipeline, values: Values) -> Values:
    request = GenerateRequest(
        prompt=values["prompt"],
        width=values["width"],
        height=values["height"],
        seed=values["seed"],
        sigmas=values["sigmas"],
        tile=values.get("tile"),
    )
    result = pipeline.generate(request)
    if values.get("save"):
        Image.fromarray(np.asarray(result.pictures[0].image)).save(values["save"])
    report = result.report
    stages = report["seconds"]
    encode = stages["encode"]
    seconds = {
        "load": sum(stages["load"].values()),
        "encode": sum(encode.values()),
        "t5xxl": encode["t5xxl"],
        "denoise": stages["denoise"],
        "steps": stages["steps"][0],
        "decode": stages["decode"],
        "total": stages["total"],
    }
    memory = {"components": report["components"], "devices": report["devices"], "vae_tile": report["vae_tile"]}
    return {"seconds": seconds, "memory": memory}


if __name__ == "__main__":
    serve(start)
