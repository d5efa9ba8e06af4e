"""The first picture of a process against its second: never warmed up, after `relight warm`, and with the model loaded.

    python benchmarks/warm_first.py --folder FOLDER --model embedded --size 256x256 --steps 4
    python benchmarks/warm_first.py --folder FOLDER --model sd15 --full --size 512x512 --steps 20 --backend vulkan0

Every process is new; its pictures are of one shape, each of another prompt. `ready_s` is what comes before the first:
for the model that is loaded (as a server does before it is asked) starting workers, loading and compiling. What the
second picture takes is the median of those after the first. JSON lines come out, medians of the rounds last.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import machine
from comparison import PROMPTS, pixels, tell
from plan_accuracy import cache, model_file
from processor_time import used
from relight.jobs import models
from relight.jobs.engine import EngineSettings
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import GenerateRequest
from relight.planner.outlook import machine_for
from relight.planner.profiles import pretended
from relight.tuning import tables
from relight.tuning.warm import Warmup

WAYS = ("never warmed up", "warmed up", "warmed up and loaded")
PICTURES = len(PROMPTS)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--folder", type=Path, required=True, help="where model files are made, and measurements kept")
    p.add_argument("--model", choices=["embedded", "flux", "sd15", "sdxl"], default="embedded")
    p.add_argument("--full", action="store_true", help="real widths")
    p.add_argument("--t5-layers", type=int, default=4, help="of FLUX.1 with --full (24 is real, and 9.5 GB)")
    p.add_argument("--size", default="256x256", metavar="WxH")
    p.add_argument("--steps", type=int, default=4)
    p.add_argument("--backend", metavar="SPEC")
    p.add_argument("--device", metavar="NAME", help="a GPU by name, such as a software one")
    p.add_argument("--rounds", type=int, default=3, help="processes of each kind (default 3)")
    p.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    p.add_argument("--processor-time", action="store_true", help="count the time that processors work")
    p.add_argument("--one", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.processor_time:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait for others would count as working
    if a.one is not None:
        print(json.dumps(one_process(a, a.one)))
        return
    tell(kind="machine", **machine.describe(), seconds_of="processors" if a.processor_time else "the wall")
    warm(a)
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in a.ways}
    for number in range(a.rounds):
        for way in a.ways:
            found[way].append(in_a_process(a, way))
            tell(kind="round", round=number, way=way, **found[way][-1])
    for way, rounds in found.items():
        middle = {name: statistics.median(each[name] for each in rounds) for name in ("ready_s", "first_s", "second_s")}
        tell(kind="summary", way=way, **middle, ratio=middle["first_s"] / middle["second_s"])


def request_of(a: argparse.Namespace) -> GenerateRequest:
    width, height = pixels(a.size)
    return GenerateRequest(prompt="", width=width, height=height, steps=a.steps, seed=1)


def warm(a: argparse.Namespace) -> None:
    """What `relight warm` does, but for the alternatives."""
    started, path = time.perf_counter(), str(model_file(a, a.model))
    made = time.perf_counter()
    os.environ["XDG_CACHE_HOME"] = str(cache(a))
    there, _ = machine_for(None, None, None, None, a.device)
    warmup = Warmup(there, pretended(os.environ), quick=True, backend=a.backend)
    warmed = warmup.warm(models.model_files(path, {}), request_of(a))
    tell(kind="warm", files_s=made - started, seconds=time.perf_counter() - made, failures=warmed.failures)


def in_a_process(a: argparse.Namespace, way: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *sys.argv[1:], "--one", way]
    with tempfile.TemporaryDirectory() as nothing:
        kept = nothing if way == WAYS[0] else str(cache(a))
        done = subprocess.run(command, env={**os.environ, "XDG_CACHE_HOME": kept}, stdout=subprocess.PIPE, check=True)
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


def one_process(a: argparse.Namespace, way: str) -> Mapping[str, Any]:
    files, request = models.model_files(str(model_file(a, a.model)), {}), request_of(a)
    tuning = None if way == WAYS[0] else tables.folder()
    settings = EngineSettings(backend=a.backend, profile=pretended(os.environ), tuning=tuning)
    seconds = []
    with Pipeline(files, settings) as pipeline:

        def now() -> float:
            """Workers that are not there yet have spent nothing."""
            workers = pipeline.fleet.workers.values()
            return used(worker.pid for worker in workers) if a.processor_time else time.perf_counter()

        began = now()
        if way == WAYS[2]:
            pipeline.prepare(request)
        ready = now()
        for prompt in PROMPTS:
            before = now()
            made = pipeline.generate(replace(request, prompt=prompt)).report["seconds"]
            seconds.append(now() - before)
            made.pop("steps")
            if prompt is PROMPTS[0]:
                stages = made
    second = statistics.median(seconds[1:])
    return {
        "ready_s": ready - began,
        "first_s": seconds[0],
        "second_s": second,
        "ratio": seconds[0] / second,
        "first_stages": stages,
        "second_stages": made,
    }


if __name__ == "__main__":
    main()
