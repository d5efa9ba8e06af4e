"""FLUX.1 against stable-diffusion.cpp: same files, same machine, same run, pictures in turn, JSON lines out.

    python benchmarks/flux_vs_sdcpp.py --preset full --size 1024x1024 --sdcpp best recipe \\
        --pretend rx580-8g --max-vram 8
    python benchmarks/flux_vs_sdcpp.py --preset encoders --t5-layers 6 --size 512x512 --steps 1 --sdcpp cpu \\
        --relight-backend cpu --stages t5xxl decode

Files with random weights are made in --folder, or found there. Each side keeps its model in a process of its own. The
first round is cold (loading, pipelines, caches); ratios are of the others' medians and least values. Prompts change
from round to round, so that nobody can keep a text encoding. stable-diffusion.cpp has no memory limit unless one is
given, which favours it.
On a machine that does other work too, set OMP_WAIT_POLICY=passive: threads that spin at barriers ruin its CPU times.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import machine
from flux_files import FluxFiles, flux_files
from flux_shapes import PRESETS, FluxSizes
from relight.planner.profiles import PROFILES, VARIABLE
from side import Side, SideError, Values

TOKENIZER = Path(__file__).parent.parent / "tests/models/t5_tokenizer.json.xz"
STAGES = ("encode", "t5xxl", "step", "denoise", "decode", "total")
PROMPTS = (
    "a red fox asleep in tall grass, morning light, photograph",
    "an old harbour town in winter, oil painting, snow on the roofs and lamps in the windows",
    "a glass of water on a wooden table beside a handwritten letter",
    "a steam locomotive crossing a stone viaduct under a cloudy sky, seen from below",
)
SDCPP: dict[str, Values] = {
    "best": {"backend": "diffusion=vulkan0,vae=vulkan0,te=cpu", "flash": True, "conv_direct": True, "tile": 64},
    "best-im2col": {"backend": "diffusion=vulkan0,vae=vulkan0,te=cpu", "flash": True, "tile": 64},
    "recipe": {"backend": "diffusion=vulkan0,vae=cpu,te=cpu"},
    "cpu": {"backend": "cpu"},
    "cpu-direct": {"backend": "cpu", "conv_direct": True},
}
"""`best`: what is fastest by hand on a GPU; `recipe`: as published for 8 GB cards; `cpu`: everything on the CPU."""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    files = p.add_argument_group("files")
    files.add_argument("--folder", type=Path, default=Path("benchmark-files"), help="made there, or found there")
    files.add_argument("--preset", choices=PRESETS, default="full")
    files.add_argument("--hidden", type=int, help="of the backbone, a multiple of 256")
    files.add_argument("--double-blocks", type=int)
    files.add_argument("--single-blocks", type=int)
    files.add_argument("--t5-layers", type=int)
    files.add_argument("--format", default="Q4_K", help="of the backbone (default Q4_K)")
    files.add_argument("--vae-format", choices=["F32", "F16"], default="F32")
    run = p.add_argument_group("run")
    run.add_argument("--size", nargs="+", default=["1024x1024"], metavar="WxH", help="one or more, in turn")
    run.add_argument("--steps", type=int, default=4)
    run.add_argument("--rounds", type=int, default=3, help="pictures of each side and size, the first one cold")
    run.add_argument("--threads", type=int, default=machine.describe()["cores"])
    run.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="which ratios to give")
    run.add_argument("--pretend", choices=PROFILES, help="hold the GPU to that card's features, for both sides")
    sides = p.add_argument_group("sides")
    sides.add_argument(
        "--relight-backend", metavar="SPEC", help="as relight generate --backend (default: by what fits)"
    )
    sides.add_argument("--max-vram", type=float, metavar="GIB", help="relight's limit")
    sides.add_argument("--options", type=json.loads, default={}, metavar="JSON", help='e.g. {"attention": "chunked"}')
    sides.add_argument("--sdcpp", nargs="*", choices=SDCPP, default=["best"])
    sides.add_argument(
        "--sdcpp-max-vram", type=float, metavar="GIB", help="stable-diffusion.cpp's limit (default: none)"
    )
    return p


def main() -> None:
    a = parser().parse_args()
    tell(kind="run", argv=sys.argv[1:], machine=machine.describe())
    started = time.perf_counter()
    files = flux_files(a.folder, sizes(a), a.format, a.vae_format)
    tell(kind="files", bytes=files.nbytes, seconds=round(time.perf_counter() - started, 1))
    memory = machine.VideoMemory()
    sides: dict[str, Side] = {}
    try:
        for name, script, settings in wanted_sides(a, files):
            memory.restart()
            sides[name] = Side(script, settings, a.folder / f"{name}.log", environment(a, script))
            tell(kind="ready", side=name, **sides[name].ready, video_memory=memory.taken_by(name))
        for size in a.size:
            compare(a, sides, memory, size)
    except SideError as error:
        sys.exit(str(error))
    finally:
        for side in sides.values():
            side.close()
        memory.close()


def sizes(a: argparse.Namespace) -> FluxSizes:
    chosen = {name: getattr(a, name) for name in ("hidden", "double_blocks", "single_blocks", "t5_layers")}
    return replace(PRESETS[a.preset], **{name: value for name, value in chosen.items() if value is not None})


def wanted_sides(a: argparse.Namespace, files: FluxFiles) -> Iterable[tuple[str, str, Values]]:
    """Name, script and settings of each side."""
    tokenizer = a.folder / "tokenizer.json"
    tokenizer.write_bytes(lzma.decompress(TOKENIZER.read_bytes()))
    common: Values = {"files": {name: str(path) for name, path in asdict(files).items()}, "threads": a.threads}
    ours = {"backend": a.relight_backend, "max_vram": a.max_vram, "options": a.options, "tokenizer": str(tokenizer)}
    yield "relight", "relight_side.py", common | ours
    for name in a.sdcpp:
        yield f"sdcpp-{name}", "sdcpp_side.py", common | SDCPP[name] | {"max_vram": a.sdcpp_max_vram}


def environment(a: argparse.Namespace, script: str) -> dict[str, str]:
    """The card to pretend to have; relight knows profiles by name and keeps to their memory as well."""
    if not a.pretend:
        return {}
    return {VARIABLE: a.pretend} if script == "relight_side.py" else PROFILES[a.pretend].environment


def compare(a: argparse.Namespace, sides: Mapping[str, Side], memory: machine.VideoMemory, size: str) -> None:
    """All rounds at one size, then the summary."""
    width, height = (int(part) for part in size.split("x"))
    sigmas = np.linspace(1, 0, a.steps + 1).tolist()
    warm: dict[str, list[Values]] = {name: [] for name in sides}
    for i in range(a.rounds):
        request = {
            "prompt": PROMPTS[i % len(PROMPTS)],
            "width": width,
            "height": height,
            "seed": 42 + i,
            "sigmas": sigmas,
        }
        for name, side in sides.items():
            memory.restart()
            made = side.ask(request | {"save": str(a.folder / f"{name}.png")})
            video, host = memory.taken_by(name), machine.host_bytes(side.process.pid)
            tell(kind="picture", side=name, size=size, round=i, **made, video_memory=video, host_bytes=host)
            if i or a.rounds == 1:
                warm[name].append(with_step(made["seconds"]))
        for name in sides:
            if name != "relight":
                decibels = psnr(a.folder / "relight.png", a.folder / f"{name}.png")
                tell(kind="same", sides=["relight", name], size=size, round=i, psnr_db=decibels)
    for name, of in (("median", statistics.median), ("fastest", min)):
        seconds = {side: {stage: over(of, pictures, stage) for stage in a.stages} for side, pictures in warm.items()}
        tell(kind="summary", of=name, size=size, seconds=seconds, relight_to=ratios(seconds))


def over(of: Callable[[list[float]], float], pictures: list[Values], stage: str) -> float:
    return round(of([float(seconds.get(stage, 0.0)) for seconds in pictures]), 4)


def ratios(seconds: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """relight's seconds over each other side's, by stage."""
    ours = seconds["relight"]
    others = {name: stages for name, stages in seconds.items() if name != "relight"}
    return {
        name: {stage: round(ours[stage] / theirs, 3) for stage, theirs in stages.items() if theirs}
        for name, stages in others.items()
    }


def with_step(seconds: Values) -> Values:
    return seconds | {"step": statistics.median(seconds["steps"])}


def psnr(a: Path, b: Path) -> float | None:
    """Decibels between two pictures; None where they are the same."""
    first, second = (np.asarray(Image.open(path).convert("RGB"), np.float64) for path in (a, b))
    error = float(((first - second) ** 2).mean())
    return round(10 * math.log10(255**2 / error), 1) if error else None


def tell(**values: Any) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
