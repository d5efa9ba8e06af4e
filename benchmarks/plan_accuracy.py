"""Plans against what then happens: bytes that are allocated, and seconds of a warm picture, over many combinations.

    python benchmarks/plan_accuracy.py --folder FOLDER                 # on the CPU: narrow models and the embedded one
    python benchmarks/plan_accuracy.py --folder FOLDER --full --models embedded sd15 flux --seconds 220   # on a GPU

Each model is warmed up first, at the sizes marked so; other sizes, batches and placements are then predicted from those
measurements. A combination is generated with different prompts: the first picture fills memory, the quickest of the
others counts. JSON lines come out, then a summary. RELIGHT_PRETEND holds the GPU to a card.
"""

from __future__ import annotations

import argparse
import lzma
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import machine
from comparison import PROMPTS, tell
from flux_files import flux_files
from flux_shapes import PRESETS as FLUX
from relight import demo
from relight.executors.base import CompileOptions
from relight.jobs import models
from relight.jobs.fleet import EngineSettings
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import GenerateRequest
from relight.planner.outlook import machine_for, measured
from relight.planner.plan import Ask, Plan, Planning
from relight.planner.profiles import pretended
from relight.tuning import tables
from relight.tuning.warm import Warmup
from sd_files import sd_checkpoint
from sd_shapes import PRESETS as SD

TOKENIZER = Path(__file__).parent.parent / "tests/models/t5_tokenizer.json.xz"
WITHIN_BYTES, WITHIN_SECONDS = 0.02, 0.15


@dataclass(frozen=True)
class Case:
    """`warmed`: this size is warmed up; others are predicted from it."""

    model: str
    side: int
    steps: int
    batch: int = 1
    cfg: float | None = None
    backend: str | None = None
    warmed: bool = False

    @property
    def request(self) -> GenerateRequest:
        return GenerateRequest(
            prompt="", width=self.side, height=self.side, steps=self.steps, batch=self.batch, cfg_scale=self.cfg, seed=1
        )


MIXED = "te=ggml-cpu,diffusion=ggml-cpu,vae=openvino"
EMBEDDED = [
    *(Case("embedded", side, 4, warmed=True, backend="ggml-cpu") for side in (128, 192, 256)),
    Case("embedded", 160, 4, backend="ggml-cpu"),
    Case("embedded", 128, 8, backend="ggml-cpu"),
    Case("embedded", 128, 4, batch=3, backend="ggml-cpu"),
    Case("embedded", 192, 2, batch=2, backend="ggml-cpu"),
]
SMALL = [
    *EMBEDDED,
    *(Case("sd15", side, 4, warmed=True, backend=MIXED) for side in (64, 128)),
    Case("sd15", 96, 4, backend=MIXED),
    Case("sd15", 128, 4, cfg=1, backend=MIXED),
    Case("sd15", 64, 8, batch=2, backend=MIXED),
    Case("sd15", 64, 4, backend="ggml-cpu"),
    Case("sd15", 96, 4, cfg=1, backend="ggml-cpu"),
    Case("sd15", 128, 6, backend="ggml-cpu"),
    Case("sd15", 64, 2, batch=3, backend="ggml-cpu"),
    Case("sdxl", 64, 4, warmed=True, backend=MIXED),
    Case("sdxl", 96, 4, cfg=1, backend=MIXED),
    Case("sdxl", 64, 6, batch=2, backend=MIXED),
    Case("sdxl", 64, 4, backend="ggml-cpu"),
    Case("sdxl", 128, 2, backend="ggml-cpu"),
]
LARGE = [
    *EMBEDDED,
    Case("sd15", 512, 20, warmed=True),
    Case("sd15", 768, 10, warmed=True),
    Case("sd15", 640, 10),
    Case("sd15", 512, 20, cfg=1),
    Case("sd15", 512, 10, batch=4),
    Case("sd15", 768, 10, cfg=1),
    Case("sd15", 512, 20, backend="te=cpu"),
    Case("sd15", 512, 20, backend="vae=cpu"),
    Case("flux", 512, 4, warmed=True),
    Case("flux", 1024, 2, warmed=True),
    Case("flux", 768, 2),
    Case("flux", 512, 2, batch=2),
    Case("flux", 512, 4, backend="te=cpu"),
    Case("flux", 512, 4, backend="vae=cpu"),
    Case("sdxl", 1024, 5, warmed=True),
    Case("sdxl", 512, 10, warmed=True),
    Case("sdxl", 768, 5),
    Case("sdxl", 1024, 5, cfg=1),
    Case("sdxl", 512, 4, batch=2),
]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--folder", type=Path, required=True, help="where model files are made, and measurements kept")
    p.add_argument("--full", action="store_true", help="real widths")
    p.add_argument("--models", nargs="+", choices=["embedded", "flux", "sd15", "sdxl"])
    p.add_argument("--t5-layers", type=int, default=4, help="of FLUX.1 with --full (24 is real, and 9.5 GB)")
    p.add_argument("--device", metavar="NAME", help="a GPU by name, such as a software one")
    p.add_argument("--rounds", type=int, default=2, help="pictures of each combination (default 2)")
    p.add_argument("--seconds", type=float, default=float("inf"), help="begin no other combination after so many")
    p.add_argument("--markdown", action="store_true", help="a table at the end")
    a = p.parse_args()
    os.environ["XDG_CACHE_HOME"] = str(a.folder / "cache")
    cases = [case for case in (LARGE if a.full else SMALL) if a.models is None or case.model in a.models]
    tell(kind="machine", **machine.describe())
    found = list(compare(a, cases))
    summary(found, a.markdown)


def compare(a: argparse.Namespace, cases: list[Case]) -> Iterator[dict[str, Any]]:
    started = time.perf_counter()
    for model in dict.fromkeys(case.model for case in cases):
        path = str(model_file(a, model))
        mine = [case for case in cases if case.model == model]
        warm([case for case in mine if case.warmed], path, a.device)
        for backend in dict.fromkeys(case.backend for case in mine):
            settings = EngineSettings(
                backend=backend, profile=pretended(os.environ), check_results=False, tuning=tables.folder()
            )
            with Pipeline(models.model_files(path, {}), settings) as pipeline:
                for case in (case for case in mine if case.backend == backend):
                    if time.perf_counter() - started < a.seconds:
                        yield one(pipeline, path, case, a)


def model_file(a: argparse.Namespace, model: str) -> Path:
    """Made unless it is there."""
    started = time.perf_counter()
    if model == "embedded":
        return demo.EMBEDDED
    if model == "flux":
        folder: Path = a.folder / "flux"
        flux_files(folder, replace(FLUX["full"], t5_layers=a.t5_layers))
        (folder / "tokenizer.json").write_bytes(lzma.decompress(TOKENIZER.read_bytes()))
        made = folder
    else:
        made = sd_checkpoint(a.folder / f"{model}.safetensors", SD[model if a.full else f"{model}-narrow"])
    tell(kind="file", model=model, seconds=round(time.perf_counter() - started, 1))
    return made


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def warm(cases: list[Case], path: str, device: str | None) -> None:
    there, _ = machine_for(None, None, None, None, device)
    warmup = Warmup(there, pretended(os.environ), tell=note, longest_run_s=1.5, runs=3, submissions=False)
    for case in cases:
        started = time.perf_counter()
        warmed = warmup.warm(models.model_files(path, {}), case.request)
        tell(
            kind="warm",
            model=case.model,
            side=case.side,
            seconds=round(time.perf_counter() - started, 1),
            default=warmed.before,
            tuned=warmed.after,
            changes=warmed.changes,
            failures=warmed.failures,
        )


def one(pipeline: Pipeline, path: str, case: Case, a: argparse.Namespace) -> dict[str, Any]:
    """Predicted and measured bytes and seconds of one combination."""
    plan = planned(path, case, a.device)
    reports = [pipeline.generate(replace(case.request, prompt=prompt)).report for prompt in PROMPTS[: a.rounds]]
    warm = min(reports[1:], key=lambda report: report["seconds"]["total"])
    executor = plan.components[-2].part.executor
    used = reports[-1]["devices"].get(executor, {})
    said = plan.allocated(executor)
    gpu = plan.machine.gpu.name if plan.machine.gpu else None
    driver = used.get("driver_bytes") if executor == gpu else None
    values = {
        "kind": "case",
        **{name: getattr(case, name) for name in ("model", "side", "steps", "batch", "cfg", "backend", "warmed")},
        "executor": executor,
        "said_bytes": said,
        "allocated_bytes": used.get("peak_bytes"),
        "said_with_driver": plan.stages[0].peak.get(executor) if driver else None,
        "driver_bytes": driver,
        "said_s": plan.outcome.course.total.value,
        "source": plan.outcome.course.total.source,
        "measured_s": warm["seconds"]["total"],
        "stages_said": {stage.name: round(stage.seconds.value, 4) for stage in plan.stages},
        "stages_measured": {k: v for k, v in warm["seconds"].items() if k not in ("steps", "total")},
    }
    values["bytes_off"] = off(values["said_bytes"], values["allocated_bytes"])
    values["driver_off"] = off(values["said_with_driver"], driver)
    values["seconds_off"] = off(values["said_s"], values["measured_s"])
    tell(**values)
    return values


def planned(path: str, case: Case, device: str | None) -> Plan:
    there, _ = machine_for(None, None, None, None, device)
    profile = pretended(os.environ)
    timings = measured(None, profile, with_gpu=True)
    planning = Planning(there, Ask(backend=case.backend, options=CompileOptions()), timings)
    return planning.of_files(path, models.model_files(path, {}), case.request)


def off(said: float | None, found: float | None) -> float | None:
    return None if not said or not found else said / found - 1


def summary(found: list[dict[str, Any]], markdown: bool) -> None:
    for name, bound in (("bytes_off", WITHIN_BYTES), ("driver_off", WITHIN_BYTES), ("seconds_off", WITHIN_SECONDS)):
        values = [each[name] for each in found if each[name] is not None]
        if values:
            worst = max(values, key=abs)
            tell(kind="summary", what=name, of=len(values), within=sum(abs(v) <= bound for v in values), worst=worst)
    if markdown:
        print("\n".join(table(found)))


def table(found: list[dict[str, Any]]) -> Iterator[str]:
    titles = "model side steps pictures cfg backend said allocated off said measured off from".split()
    yield f"| {' | '.join(titles)} |"
    yield "|" + "---|" * len(titles)
    for each in found:
        cells = [
            *(each[name] for name in ("model", "side", "steps", "batch")),
            each["cfg"] if each["cfg"] is not None else "default",
            each["backend"] or "auto",
            mb(each["said_bytes"]),
            mb(each["allocated_bytes"]),
            percent(each["bytes_off"]),
            f"{each['said_s']:.2f} s",
            f"{each['measured_s']:.2f} s",
            percent(each["seconds_off"]),
            each["source"],
        ]
        yield f"| {' | '.join(map(str, cells))} |"


def mb(nbytes: int | None) -> str:
    return "" if nbytes is None else f"{nbytes / 1e6:.1f} MB"


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:+.1%}"


if __name__ == "__main__":
    main()
