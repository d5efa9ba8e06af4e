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
import lzma
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

import machine
from comparison import PROMPTS, Comparison, add_run_options, add_side_options, ours, pixels, tell
from flux_files import FluxFiles, flux_files
from flux_shapes import PRESETS, FluxSizes
from side import SideError, Values

TOKENIZER = Path(__file__).parent.parent / "tests/models/t5_tokenizer.json.xz"
STAGES = ("encode", "t5xxl", "step", "denoise", "decode", "total")
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
    add_run_options(run, size="1024x1024", steps=4)
    run.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="which ratios to give")
    add_side_options(p.add_argument_group("sides"), SDCPP, ["best"])
    return p


def main() -> None:
    a = parser().parse_args()
    tell(kind="run", argv=sys.argv[1:], machine=machine.describe())
    started = time.perf_counter()
    files = flux_files(a.folder, sizes(a), a.format, a.vae_format)
    tell(kind="files", bytes=files.nbytes, seconds=round(time.perf_counter() - started, 1))
    comparison = Comparison(a.folder, a.pretend)
    try:
        for side in wanted_sides(a, files):
            comparison.open(*side)
        for size in a.size:
            comparison.compare({"size": size}, list(requests(a, size)), a.stages)
    except SideError as error:
        sys.exit(str(error))
    finally:
        comparison.close()


def sizes(a: argparse.Namespace) -> FluxSizes:
    chosen = {name: getattr(a, name) for name in ("hidden", "double_blocks", "single_blocks", "t5_layers")}
    return replace(PRESETS[a.preset], **{name: value for name, value in chosen.items() if value is not None})


def wanted_sides(a: argparse.Namespace, files: FluxFiles) -> Iterable[tuple[str, str, Values]]:
    """Name, script and settings of each side."""
    tokenizer = write_tokenizer(a.folder)
    common: Values = {"files": {name: str(path) for name, path in asdict(files).items()}, "threads": a.threads}
    yield "relight", "relight_side.py", common | ours(a) | {"tokenizer": str(tokenizer)}
    for name in a.sdcpp:
        yield f"sdcpp-{name}", "sdcpp_side.py", common | SDCPP[name] | {"max_vram": a.sdcpp_max_vram}


def write_tokenizer(folder: Path) -> Path:
    """T5's own, as the tests have it."""
    path = folder / "tokenizer.json"
    path.write_bytes(lzma.decompress(TOKENIZER.read_bytes()))
    return path


def requests(a: argparse.Namespace, size: str) -> Iterable[Values]:
    """One for each round."""
    width, height = pixels(size)
    sigmas = np.linspace(1, 0, a.steps + 1).tolist()
    for i in range(a.rounds):
        prompt = PROMPTS[i % len(PROMPTS)]
        yield {"prompt": prompt, "width": width, "height": height, "seed": 42 + i, "sigmas": sigmas}


if __name__ == "__main__":
    main()
