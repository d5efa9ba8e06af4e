"""A queue of FLUX.1 pictures in the node against stable-diffusion.cpp one after another, JSON lines out.

    python benchmarks/flux_queue.py --pretend rx580-8g --max-vram 8
    python benchmarks/flux_queue.py --preset small --size 64x64 --relight-backend diffusion=vulkan0 \\
        --attention chunked --sdcpp

Files with random weights are made in --folder, or found there. The node of `relight serve` makes one picture to be
warm, then one of each prompt, queued at once, then prompts that it had before. The GPU's share is the steps' own
seconds, as the worker took them, over the time from the beginning of the first to the end of the last.
stable-diffusion.cpp has no queue: its pictures an hour are those of its second of this size, after a small one that
loads its weights. It has no memory limit, which favours it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import machine
from comparison import PROMPTS, environment, pixels, tell
from flux_files import FluxFiles, flux_files
from flux_shapes import PRESETS
from flux_vs_sdcpp import SDCPP, wanted_sides
from relight.executors.base import CompileOptions
from relight.gateway.node import ImageAsk
from relight.jobs.engine import EngineSettings
from relight.jobs.events import Advanced, Event
from relight.jobs.request import ModelFiles
from relight.ledger import ENDED, Job, Ledger
from relight.llm.asks import LoadSettings
from relight.node.card import Card
from relight.node.health import Health
from relight.node.node import RelightNode
from relight.node.opened import gpu_of
from relight.node.registry import Registry
from relight.planner.profiles import PROFILES, VARIABLE, pretended
from side import Side, SideError, Values

MODEL = "flux"
GIB = 1 << 30
MORE_PROMPTS = (
    "a tram in the rain at night, reflections on wet cobbles",
    "a bowl of lemons painted in gouache on grey paper",
    "an owl in flight over a frozen lake, wings spread, seen from the front",
    "a lighthouse in a storm, waves against the rocks, long exposure",
)
TARGETS = {"gpu_share": 0.95, "to_best": 1.4, "to_recipe": 4.5, "repeated_s": 0.05}
SMALL: Values = {"width": 256, "height": 256, "sigmas": [1.0, 0.0]}
DEADLINE_S = 1500.0
NO_WARMER_S = 40.0
"""A picture that takes longer is hardly slowed by having been the first of its size."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """What `node` and the requests need."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--folder", type=Path, default=Path("benchmark-files"), help="made there, or found there")
    p.add_argument("--preset", choices=PRESETS, default="full")
    p.add_argument("--format", default="Q4_K", help="of the backbone (default Q4_K)")
    p.add_argument("--size", default="1024x1024", metavar="WxH")
    p.add_argument("--steps", type=int, default=4)
    p.add_argument("--threads", type=int, default=machine.describe()["cores"])
    p.add_argument("--pretend", choices=PROFILES, help="hold the GPU to that card's features, for both programs")
    p.add_argument("--max-vram", type=float, metavar="GIB", help="relight's limit")
    p.add_argument("--relight-backend", metavar="SPEC", help="as relight generate --backend (default: by what fits)")
    p.add_argument("--attention", choices=["auto", "flash", "chunked"], default="auto")
    return p


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--pictures", type=int, default=8, help="in the queue, each of another prompt (at most 8)")
    p.add_argument("--repeats", type=int, default=3, help="of prompts that were made before")
    p.add_argument("--sdcpp", nargs="*", choices=SDCPP, default=["best", "recipe"])
    p.set_defaults(relight=True, options={}, sdcpp_max_vram=None)
    a = p.parse_args()
    tell(kind="run", argv=sys.argv[1:], machine=machine.describe())
    if a.pretend:
        os.environ[VARIABLE] = a.pretend
    started = time.perf_counter()
    files = flux_files(a.folder, PRESETS[a.preset], a.format)
    tell(kind="files", bytes=files.nbytes, seconds=round(time.perf_counter() - started, 1))
    sides = list(wanted_sides(a, files))
    found = queued(a, files)
    try:
        hourly = {name: one_after_another(a, name, script, settings) for name, script, settings in sides[1:]}
    except SideError as error:
        sys.exit(str(error))
    summary(found, hourly)


# -------------------------------------------------------------------------------------------------------------- relight


@dataclass
class Heard:
    """Steps by job as (begin, end), in the clock of `time.monotonic`."""

    steps: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, made: RelightNode) -> Heard:
        """From here on, beside whoever else is told."""
        heard, told = cls(), made.line.tell

        def tell_both(job_id: str, event: Event) -> None:
            heard(job_id, event)
            told(job_id, event)

        made.line.tell = tell_both
        return heard

    def __call__(self, job_id: str, event: Event) -> None:
        if isinstance(event, Advanced) and event.stage == "denoise":
            now = time.monotonic()
            self.steps[job_id].append((now - event.seconds, now))


@contextmanager
def node(
    a: argparse.Namespace, files: FluxFiles, folder: Path, chat: Mapping[str, Path] | None = None
) -> Iterator[RelightNode]:
    """As `relight serve` opens it, with FLUX.1 and the language models of `chat`, and without what earlier runs
    kept."""
    engine = EngineSettings(
        backend=a.relight_backend,
        threads=a.threads,
        options=CompileOptions(attention=a.attention),
        max_vram_bytes=int(a.max_vram * GIB) if a.max_vram else None,
        profile=pretended(os.environ),
        check_results=a.preset == "full",
        conditioning_folder=folder / "conditioning",
        tuning=folder / "tuning",
        hang_s=DEADLINE_S,
    )
    paths = {name: (path,) for name, path in vars(files).items()}
    model = ModelFiles.of_family("flux", paths, t5_tokenizer=a.folder / "tokenizer.json")
    health = Health(engine, None)
    health.device, room = gpu_of(health, engine)
    card = Card(room, health.free) if health.device is not None else None
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(folder / "jobs"))
        language = LoadSettings(n_gpu_layers=-1 if card else 0, context=2048, slots=2, threads=a.threads)
        registry = Registry({MODEL: model}, chat or {})
        made = RelightNode(ledger, registry, engine, language, card=card, health=health)
        stack.callback(made.stop, 1.0)
        made.start()
        yield made


def queued(a: argparse.Namespace, files: FluxFiles) -> Values:
    """What the node makes of a queue."""
    prompts = (*PROMPTS, *MORE_PROMPTS)[: a.pictures]
    with tempfile.TemporaryDirectory(dir=a.folder) as folder, node(a, files, Path(folder)) as made:
        heard = Heard.of(made)
        begun = time.monotonic()
        first = ended(made, [submitted(made, a, "a plain picture to be warm", 0)[0]])[0]
        tell(kind="first", seconds=round(time.monotonic() - begun, 2), report=first.report)
        begun = time.monotonic()
        jobs = [submitted(made, a, prompt, seed)[0] for seed, prompt in enumerate(prompts, 1)]
        done = ended(made, jobs)
        wall = time.monotonic() - begun
        found = judged(heard, done, wall)
        tell(kind="queue", **found)
        found["repeated_s"] = [round(repeated(made, a, heard, prompts[-i]), 4) for i in range(1, a.repeats + 1)]
        found["repeated_oldest_s"] = round(repeated(made, a, heard, prompts[0]), 4)
        return found


def judged(heard: Heard, jobs: list[Job], wall: float) -> Values:
    steps = sorted(step for job in jobs for step in heard.steps[job.id])
    span = steps[-1][1] - steps[0][0]
    by_job = sorted((heard.steps[job.id] for job in jobs), key=lambda mine: mine[0])
    gaps = [after[0][0] - before[-1][1] for before, after in zip(by_job, by_job[1:], strict=False)]
    reports = [job.report or {} for job in jobs]
    return {
        "pictures": len(jobs),
        "wall_s": round(wall, 2),
        "pictures_per_hour": round(3600 * len(jobs) / wall, 1),
        "denoise_span_s": round(span, 3),
        "gpu_share": round(sum(end - begin for begin, end in steps) / span, 4),
        "gaps_s": [round(gap, 4) for gap in gaps],
        "step_s": round(statistics.median(end - begin for begin, end in steps), 4),
        "decoded_on": [report["components"]["vae"]["executor"] for report in reports],
        "text_on": [report["components"].get("clip_l", {}).get("executor", "cache") for report in reports],
        "decode_s": [report["seconds"]["decode"] for report in reports],
        "encode_s": [report["seconds"].get("encode") for report in reports],
        "peak_bytes": {name: used["peak_bytes"] for report in reports for name, used in report["devices"].items()},
    }


def submitted(made: RelightNode, a: argparse.Namespace, prompt: str, seed: int) -> tuple[str, float]:
    """A job's id, and when it was accepted."""
    width, height = pixels(a.size)
    request = {"prompt": prompt, "width": width, "height": height, "steps": a.steps, "seed": seed}
    view = asyncio.run(made.submit_image(MODEL, ImageAsk(request=request), owner="", key=None, join=False))
    return view.id, time.monotonic()


def ended(made: RelightNode, jobs: list[str]) -> list[Job]:
    """Jobs with their reports, when all of them have ended."""
    done = [made.ledger.wait(job, DEADLINE_S) for job in jobs]
    for job in done:
        if job.state not in ENDED or job.state != "finished":
            sys.exit(f"job {job.id}: {job.state}: {job.error}")
    return done


def repeated(made: RelightNode, a: argparse.Namespace, heard: Heard, prompt: str) -> float:
    """Seconds from acceptance to the beginning of the first step, of a prompt that was made before, on an idle node; it
    is cancelled then, and the step that was under way is waited for."""
    until(lambda: not made.line.busy)
    job, accepted = submitted(made, a, prompt, 1234)
    until(lambda: bool(heard.steps[job]))
    asyncio.run(made.cancel(job))
    begin, end = heard.steps[job][0]
    threading.Event().wait(1.0 + 2 * (end - begin))
    return begin - accepted


def until(happens: Callable[[], bool]) -> None:
    ends = time.monotonic() + DEADLINE_S
    while not happens():
        if time.monotonic() > ends:
            sys.exit("the node did not come to it")
        threading.Event().wait(0.02)


# ------------------------------------------------------------------------------------------------- stable-diffusion.cpp


def one_after_another(a: argparse.Namespace, name: str, script: str, settings: Values) -> float:
    """Pictures an hour of a warm process."""
    width, height = pixels(a.size)
    sigmas = [1 - i / a.steps for i in range(a.steps + 1)]
    wanted: Values = {"prompt": PROMPTS[1], "width": width, "height": height, "seed": 43, "sigmas": sigmas}
    side = Side(script, settings, a.folder / f"{name}.log", environment(a.pretend, script))
    try:
        small = side.ask(wanted | SMALL | {"prompt": PROMPTS[0]})
        made = side.ask(wanted)
        if made["seconds"]["total"] < NO_WARMER_S:
            made = side.ask(wanted | {"prompt": PROMPTS[2]})
    finally:
        side.close()
    tell(kind="picture", side=name, first_small=small["seconds"]["total"], **made)
    return 3600 / float(made["seconds"]["total"])


def summary(found: Values, hourly: dict[str, float]) -> None:
    ratios = {
        name.replace("sdcpp-", "to_"): round(found["pictures_per_hour"] / rate, 3) for name, rate in hourly.items()
    }
    reached: Values = {
        "gpu_share": found["gpu_share"],
        "repeated_s": max(found["repeated_s"], default=0.0),
        **ratios,
    }
    verdicts = {
        name: reached[name] <= target if name.endswith("_s") else reached[name] >= target
        for name, target in TARGETS.items()
        if name in reached
    }
    hours = {name: round(rate, 1) for name, rate in hourly.items()}
    tell(kind="summary", **found, sdcpp_per_hour=hours, ratios=ratios, targets=TARGETS, reached=verdicts)


if __name__ == "__main__":
    main()
