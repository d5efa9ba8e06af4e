"""Stable Diffusion against stable-diffusion.cpp: same file, same machine, same run, pictures in turn, JSON lines out.

    python benchmarks/sd_vs_sdcpp.py --preset sd15 --size 512x512 --steps 20 --pretend rx580-8g \\
        --sdcpp flash flash-direct
    python benchmarks/sd_vs_sdcpp.py --preset sdxl --cases single-pass --size 512x512 --steps 4 --pretend rx580-8g
    python benchmarks/sd_vs_sdcpp.py --preset sd15 --size 256x256 --steps 2 --rounds 1 --cases all \\
        --relight-backend cpu --sdcpp cpu

The file with random weights is made in --folder, or found there. Each side keeps its model in a process of its own.
`--batch 1 4` asks for several pictures at once too; their summary is by picture. stable-diffusion.cpp has no memory
limit, which favours it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import machine
import sd_cases
from comparison import PROMPTS, Comparison, add_run_options, add_side_options, ours, pixels, tell
from sd_files import sd_checkpoint
from sd_shapes import PRESETS
from side import SideError, Values

STAGES = ("encode", "step", "denoise", "decode", "total")
SDCPP: dict[str, Values] = {
    "flash": {"backend": "vulkan0", "flash": True},
    "flash-direct": {"backend": "vulkan0", "flash": True, "conv_direct": True},
    "all-direct": {"backend": "vulkan0", "flash": True, "conv_direct": True, "unet_direct": True},
    "tiled": {"backend": "vulkan0", "flash": True, "conv_direct": True, "tile": 64},
    "cpu": {"backend": "cpu", "conv_direct": True},
}
"""Flash attention in all on the GPU; direct convolutions in the autoencoder, in both networks, or in none."""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--folder", type=Path, default=Path("benchmark-files"), help="of the checkpoint: made, or found")
    p.add_argument("--preset", choices=PRESETS, default="sd15")
    run = p.add_argument_group("run")
    add_run_options(run, size="512x512", steps=20)
    run.add_argument("--cases", nargs="+", choices=[*sd_cases.CASES, "all"], default=["cfg7"], help="what to ask for")
    run.add_argument("--batch", nargs="+", type=int, default=[1], help="pictures at once, one or more numbers in turn")
    add_side_options(p.add_argument_group("sides"), SDCPP, ["flash-direct"])
    return p


def main() -> None:
    a = parser().parse_args()
    if odd := [size for size in a.size if any(side % 64 for side in pixels(size))]:
        sys.exit(f"--size {' '.join(odd)}: stable-diffusion.cpp makes multiples of 64 pixels, and others larger")
    tell(kind="run", argv=sys.argv[1:], machine=machine.describe())
    started = time.perf_counter()
    file = sd_checkpoint(a.folder / f"{a.preset}.safetensors", PRESETS[a.preset])
    tell(kind="files", bytes=file.stat().st_size, seconds=round(time.perf_counter() - started, 1))
    comparison = Comparison(a.folder, a.pretend)
    try:
        for side in wanted_sides(a, file):
            comparison.open(*side)
        for size in a.size:
            for case in sd_cases.CASES if "all" in a.cases else a.cases:
                for batch in a.batch:
                    label = {"preset": a.preset, "size": size, "case": case, "steps": a.steps, "batch": batch}
                    comparison.compare(label, list(requests(a, case, size, batch)), STAGES)
    except SideError as error:
        sys.exit(str(error))
    finally:
        comparison.close()


def wanted_sides(a: argparse.Namespace, file: Path) -> Iterable[tuple[str, str, Values]]:
    """Name, script and settings of each side."""
    common: Values = {"model": str(file), "threads": a.threads}
    yield "relight", "relight_side.py", common | ours(a)
    for name in a.sdcpp:
        theirs: Values = {"max_vram": a.sdcpp_max_vram, "prediction": "EPS"}  # which it would guess for SD 2.x
        yield f"sdcpp-{name}", "sdcpp_side.py", common | SDCPP[name] | theirs


def requests(a: argparse.Namespace, case: str, size: str, batch: int) -> Iterable[Values]:
    """One for each round, all but the first of another prompt than the case's."""
    for i in range(a.rounds):
        asked = sd_cases.request(case, PRESETS[a.preset].family, *pixels(size), a.steps, seed=42 + i)
        yield asked | ({"prompt": PROMPTS[i % len(PROMPTS)]} if i else {}) | ({"batch": batch} if batch > 1 else {})


if __name__ == "__main__":
    main()
