"""Plans against what then happens: bytes that are allocated, and seconds of a warm picture, over many combinations.

    python benchmarks/plan_accuracy.py --folder FOLDER                 # on the CPU: narrow models and the embedded one
    python benchmarks/plan_accuracy.py --folder FOLDER --full --models embedded sd15 flux --seconds 300   # on a GPU

Each model is warmed up first, at the sizes and placements marked so; the others are then predicted from those
measurements. A combination is generated with different prompts: the first picture fills memory, the quickest of the
others counts, and of the runs of a graph the median. JSON lines come out as they are found, then a summary.
RELIGHT_PRETEND holds the GPU to a card. With --processor-time both sides are counted in the time that processors
worked for them, which says the same on a machine with other work to do.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import machine
from comparison import PROMPTS
from flux_files import flux_files
from flux_shapes import PRESETS as FLUX
from flux_vs_sdcpp import write_tokenizer
from plan_cases import LARGE, SMALL, Case
from processor_time import ProcessorBench, used
from relight import demo
from relight.executors.base import CompileOptions
from relight.executors.cores import has_openvino
from relight.jobs import models
from relight.jobs.engine import EngineSettings
from relight.jobs.pipeline import Pipeline
from relight.planner.outlook import machine_for, measured
from relight.planner.plan import Ask, Plan, Planning
from relight.planner.profiles import pretended
from relight.tuning import tables
from relight.tuning.bench import Bench
from relight.tuning.warm import Warmup
from sd_files import sd_checkpoint
from sd_shapes import PRESETS as SD

WITHIN_BYTES, WITHIN_SECONDS = 0.02, 0.15
LONGEST_CASE_S = 20.0
"""After which a combination has no further round."""


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--folder", type=Path, required=True, help="where model files are made, and measurements kept")
    p.add_argument("--full", action="store_true", help="real widths")
    p.add_argument("--models", nargs="+", choices=["embedded", "flux", "sd15", "sdxl"])
    p.add_argument("--t5-layers", type=int, default=4, help="of FLUX.1 with --full (24 is real, and 9.5 GB)")
    p.add_argument("--device", metavar="NAME", help="a GPU by name, such as a software one")
    p.add_argument("--rounds", type=int, default=3, help="pictures of each combination (default 3)")
    p.add_argument("--seconds", type=float, default=float("inf"), help="begin no other combination after so many")
    p.add_argument("--processor-time", action="store_true", help="count the time that processors work")
    p.add_argument("--runs", type=int, default=6, help="of each graph in the warm-up, at most (default 6)")
    p.add_argument("--out", type=Path, help="a file that the lines are added to as well")
    p.add_argument("--table", type=Path, nargs="+", help="nothing is run: the table of such files")
    p.add_argument("--markdown", action="store_true", help="a table at the end")
    a = p.parse_args()
    if a.table:
        lines = [json.loads(line) for file in a.table for line in file.read_text().splitlines()]
        report(a, [line for line in lines if line["kind"] == "case"])
        return
    os.environ["XDG_CACHE_HOME"] = str(cache(a))
    if a.processor_time:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait for others would count as working
    cases = [case for case in (LARGE if a.full else SMALL) if a.models is None or case.model in a.models]
    if not has_openvino():
        note("openvino is not installed: what would run on it is left out")
        cases = [case for case in cases if "openvino" not in (case.backend or "")]
    tell(a, kind="machine", **machine.describe(), seconds_of="processors" if a.processor_time else "the wall")
    report(a, list(Comparison(a, time.perf_counter()).compare(cases)))


def tell(a: argparse.Namespace, **values: Any) -> None:
    line = json.dumps(values)
    print(line, flush=True)
    if a.out is not None:
        with a.out.open("a") as file:
            file.write(line + "\n")


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def cache(a: argparse.Namespace) -> Path:
    """Measurements of one kind are not those of the other."""
    made: Path = a.folder / ("cache of processor time" if a.processor_time else "cache")
    return made


def model_file(a: argparse.Namespace, model: str) -> Path:
    """Made unless it is there: `a` says in which `folder`, whether `full`, of how many `t5_layers`."""
    if model == "embedded":
        return demo.EMBEDDED
    if model != "flux":
        return sd_checkpoint(a.folder / f"{model}.safetensors", SD[model if a.full else f"{model}-narrow"])
    made = Path(a.folder / "flux")
    flux_files(made, replace(FLUX["full"], t5_layers=a.t5_layers))
    write_tokenizer(made)
    return made


@dataclass
class Comparison:
    a: argparse.Namespace
    started: float

    @property
    def late(self) -> bool:
        return time.perf_counter() - self.started > self.a.seconds

    def compare(self, cases: list[Case]) -> Iterator[dict[str, Any]]:
        for model in dict.fromkeys(case.model for case in cases):
            if self.late:
                return
            started = time.perf_counter()
            path = str(model_file(self.a, model))
            tell(self.a, kind="file", model=model, seconds=round(time.perf_counter() - started, 1))
            mine = [case for case in cases if case.model == model]
            for case in (case for case in mine if case.warmed and not self.late):
                self.warm(case, path)
            for backend in dict.fromkeys(case.backend for case in mine):
                yield from self.through(backend, path, [case for case in mine if case.backend == backend])

    def through(self, backend: str | None, path: str, cases: list[Case]) -> Iterator[dict[str, Any]]:
        settings = EngineSettings(
            backend=backend, profile=pretended(os.environ), check_results=False, tuning=tables.folder()
        )
        if not self.late:
            with Pipeline(models.model_files(path, {}), settings) as pipeline:
                for case in cases:
                    if not self.late:
                        yield self.one(pipeline, path, case)

    def warm(self, case: Case, path: str) -> None:
        """Times what this case is planned to run, and nothing else."""
        started = time.perf_counter()
        there, _ = machine_for(None, None, None, None, self.a.device)
        bench = ProcessorBench if self.a.processor_time else Bench
        warmup = Warmup(
            there, pretended(os.environ), tell=note, runs=self.a.runs, quick=True, backend=case.backend, bench=bench
        )
        warmed = warmup.warm(models.model_files(path, {}), case.request)
        tell(
            self.a,
            kind="warm",
            **{name: getattr(case, name) for name in ("model", "side", "backend")},
            seconds=round(time.perf_counter() - started, 1),
            timed=warmed.timed,
            failures=warmed.failures,
        )

    def one(self, pipeline: Pipeline, path: str, case: Case) -> dict[str, Any]:
        """Predicted and measured bytes and seconds of one combination."""
        plan = self.planned(path, case)
        reports = list(self.pictures(pipeline, case))
        warm = min(reports[1:] or reports, key=lambda report: report["seconds"]["total"])
        executor = plan.components[-2].part.executor
        allocated = reports[-1]["devices"].get(executor, {})
        gpu = plan.machine.gpu.name if plan.machine.gpu else None
        driver = allocated.get("driver_bytes") if executor == gpu else None
        values = {
            "kind": "case",
            **{name: getattr(case, name) for name in ("model", "side", "steps", "batch", "cfg", "backend", "warmed")},
            "executor": executor,
            "said_bytes": plan.allocated(executor),
            "allocated_bytes": allocated.get("peak_bytes"),
            "said_with_driver": plan.stages[0].peak.get(executor) if driver else None,
            "driver_bytes": driver,
            "said_s": self.said(plan),
            "source": plan.outcome.course.total.source,
            "measured_s": warm["seconds"]["total"],
            "stages_said": {stage.name: round(stage.seconds.value, 4) for stage in plan.stages},
            "stages_measured": {k: v for k, v in warm["seconds"].items() if k not in ("steps", "total")},
        }
        values["bytes_off"] = off(values["said_bytes"], values["allocated_bytes"])
        values["driver_off"] = off(values["said_with_driver"], driver)
        values["seconds_off"] = off(values["said_s"], values["measured_s"])
        tell(self.a, **values)
        return values

    def pictures(self, pipeline: Pipeline, case: Case) -> Iterator[dict[str, Any]]:
        began = time.perf_counter()
        for number in range(self.a.rounds):
            if number < 2 or time.perf_counter() - began < LONGEST_CASE_S:
                yield self.picture(pipeline, case, PROMPTS[number % len(PROMPTS)])

    def picture(self, pipeline: Pipeline, case: Case, prompt: str) -> dict[str, Any]:
        """The report of one, its total as asked for."""
        before = used(worker.pid for worker in pipeline.fleet.workers.values()) if self.a.processor_time else 0.0
        made = pipeline.generate(replace(case.request, prompt=prompt)).report
        if self.a.processor_time:
            made["seconds"]["total"] = used(worker.pid for worker in pipeline.fleet.workers.values()) - before
        return made

    def said(self, plan: Plan) -> float:
        """Of the whole picture; processors work for what runs beside other things, too."""
        course = plan.outcome.course
        if self.a.processor_time:
            return sum(part.seconds.value for part in course.parts.values())
        return course.total.value

    def planned(self, path: str, case: Case) -> Plan:
        there, _ = machine_for(None, None, None, None, self.a.device)
        timings = measured(None, pretended(os.environ), with_gpu=True)
        planning = Planning(there, Ask(backend=case.backend, options=CompileOptions()), timings)
        return planning.of_files(path, models.model_files(path, {}), case.request)


def off(said: float | None, found: float | None) -> float | None:
    return None if not said or not found else said / found - 1


def report(a: argparse.Namespace, found: list[dict[str, Any]]) -> None:
    for name, bound in (("bytes_off", WITHIN_BYTES), ("driver_off", WITHIN_BYTES), ("seconds_off", WITHIN_SECONDS)):
        values = [each[name] for each in found if each[name] is not None]
        if values:
            worst = max(values, key=abs)
            within = sum(abs(value) <= bound for value in values)
            tell(a, kind="summary", what=name, of=len(values), within=within, worst=worst)
    if a.markdown or a.table:
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
