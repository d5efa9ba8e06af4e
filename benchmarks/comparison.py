"""What every comparison of two programs does: sides in turn, pictures compared, seconds of each stage as ratios.

The first round is cold (loading, pipelines, caches); ratios are of the others' medians and least values.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import machine
from relight.planner.profiles import PROFILES, VARIABLE
from side import Side, Values

OURS = "relight"
PROMPTS = (
    "a red fox asleep in tall grass, morning light, photograph",
    "an old harbour town in winter, oil painting, snow on the roofs and lamps in the windows",
    "a glass of water on a wooden table beside a handwritten letter",
    "a steam locomotive crossing a stone viaduct under a cloudy sky, seen from below",
)
"""They change from round to round, so that nobody can keep a text encoding."""


@dataclass
class Comparison:
    """Sides by name, each started with `open`, and the folder for their logs and pictures."""

    folder: Path
    pretend: str | None = None
    memory: machine.VideoMemory = field(default_factory=machine.VideoMemory)
    sides: dict[str, Side] = field(default_factory=dict)

    def open(self, name: str, script: str, settings: Values) -> None:
        """Raises SideError."""
        self.memory.restart()
        log = self.folder / f"{name}.log"
        self.sides[name] = Side(script, settings, log, environment(self.pretend, script))
        tell(kind="ready", side=name, **self.sides[name].ready, video_memory=self.memory.taken_by(name))

    def compare(self, label: Values, requests: Sequence[Values], stages: Sequence[str]) -> None:
        """One round for each request, then the summary. `label` goes into every line."""
        warm: dict[str, list[Values]] = {name: [] for name in self.sides}
        for i, request in enumerate(requests):
            for name, seconds in self._round(label | {"round": i}, request).items():
                if i or len(requests) == 1:
                    warm[name].append(with_step(seconds))
        for name, of in (("median", statistics.median), ("fastest", min)):
            seconds = {side: {stage: over(of, pictures, stage) for stage in stages} for side, pictures in warm.items()}
            tell(kind="summary", of=name, **label, seconds=seconds, relight_to=ratios(seconds))

    def _round(self, label: Values, request: Values) -> dict[str, Values]:
        """Each side's seconds."""
        seconds = {}
        for name, side in self.sides.items():
            self.memory.restart()
            made = side.ask(request | {"save": str(self.folder / f"{name}.png")})
            video, host = self.memory.taken_by(name), machine.host_bytes(side.process.pid)
            tell(kind="picture", side=name, **label, **made, video_memory=video, host_bytes=host)
            seconds[name] = made["seconds"]
        for name in self.sides:
            if name != OURS and OURS in self.sides:
                decibels = psnr(self.folder / f"{OURS}.png", self.folder / f"{name}.png")
                tell(kind="same", sides=[OURS, name], **label, psnr_db=decibels)
        return seconds

    def close(self) -> None:
        for side in self.sides.values():
            side.close()
        self.memory.close()


def environment(pretend: str | None, script: str) -> dict[str, str]:
    """The card to pretend to have; relight knows profiles by name and keeps to their memory as well."""
    if not pretend:
        return {}
    return {VARIABLE: pretend} if script == "relight_side.py" else PROFILES[pretend].environment


def over(of: Callable[[list[float]], float], pictures: list[Values], stage: str) -> float:
    return round(of([float(seconds.get(stage, 0.0)) for seconds in pictures]), 4)


def ratios(seconds: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """relight's seconds over each other side's, by stage."""
    ours = seconds.get(OURS, {})
    others = {name: stages for name, stages in seconds.items() if name != OURS}
    return {
        name: {stage: round(ours[stage] / theirs, 3) for stage, theirs in stages.items() if theirs and stage in ours}
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


def pixels(size: str) -> tuple[int, int]:
    """Width and height."""
    width, height = (int(part) for part in size.split("x"))
    return width, height


def add_run_options(group: Any, *, size: str, steps: int) -> None:
    group.add_argument("--size", nargs="+", default=[size], metavar="WxH", help="one or more, in turn")
    group.add_argument("--steps", type=int, default=steps)
    group.add_argument("--rounds", type=int, default=3, help="pictures of each side and size, the first one cold")
    group.add_argument("--threads", type=int, default=machine.describe()["cores"])
    group.add_argument("--pretend", choices=PROFILES, help="hold the GPU to that card's features, for both sides")


def add_side_options(group: Any, sdcpp: Iterable[str], usual: Sequence[str]) -> None:
    group.add_argument(
        "--relight-backend", metavar="SPEC", help="as relight generate --backend (default: by what fits)"
    )
    group.add_argument("--max-vram", type=float, metavar="GIB", help="relight's limit")
    group.add_argument("--options", type=json.loads, default={}, metavar="JSON", help='e.g. {"attention": "chunked"}')
    group.add_argument("--sdcpp", nargs="*", choices=sdcpp, default=list(usual))
    group.add_argument(
        "--sdcpp-max-vram", type=float, metavar="GIB", help="stable-diffusion.cpp's limit (default: none)"
    )


def ours(a: argparse.Namespace) -> Values:
    """relight's settings beside its files."""
    return {"backend": a.relight_backend, "max_vram": a.max_vram, "options": a.options}
