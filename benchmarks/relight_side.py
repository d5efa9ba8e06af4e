"""relight's pipeline, answering for `side.Side` in the words that `sdcpp_side` uses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from relight.executors.base import CompileOptions
from relight.jobs.engine import EngineSettings
from relight.jobs.models import model_files
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import GenerateRequest, ModelFiles
from relight.planner.profiles import pretended
from side import Values, serve

GIB = 1 << 30


def start(settings: Values) -> tuple[Values, Any]:
    """Settings: `files` by component and `tokenizer` (FLUX.1) or `model`, a checkpoint; `threads`, `backend`,
    `max_vram` in GiB, compile `options`."""
    engine = EngineSettings(
        backend=settings.get("backend"),
        threads=settings["threads"],
        max_vram_bytes=int(settings["max_vram"] * GIB) if settings.get("max_vram") else None,
        options=CompileOptions(**settings.get("options", {})),
        profile=pretended(os.environ),
    )
    pipeline = Pipeline(files(settings), engine)
    return {}, lambda values: picture(pipeline, values)


def files(settings: Values) -> ModelFiles:
    if "model" in settings:
        return model_files(settings["model"], {})
    paths = {name: (Path(path),) for name, path in settings["files"].items()}
    return ModelFiles.of_family("flux", paths, t5_tokenizer=Path(settings["tokenizer"]))


def picture(pipeline: Pipeline, values: Values) -> Values:
    """Values: those of a GenerateRequest, and where to `save` the first picture."""
    save = values.pop("save", None)
    result = pipeline.generate(GenerateRequest(**values))
    if save:
        Image.fromarray(np.asarray(result.pictures[0].image)).save(save)
    report = result.report
    stages = report["seconds"]
    encode = stages["encode"]
    seconds = {
        "load": sum(stages["load"].values()),
        "encode": sum(encode.values()),
        "t5xxl": encode.get("t5xxl", 0.0),
        "denoise": stages["denoise"],
        "steps": [step for group in stages["steps"] for step in group],
        "decode": stages["decode"],
        "total": stages["total"],
    }
    parts = ("components", "devices", "vae_tile", "batch_rows")
    return {"seconds": seconds, "memory": {part: report.get(part) for part in parts}}


if __name__ == "__main__":
    serve(start)
