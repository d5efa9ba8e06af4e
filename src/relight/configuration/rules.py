"""What settings must agree on among themselves, and what is said about those that cannot do what they seem to."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import fields

from relight.configuration.schema import Part, Routing, Settings

PARTS = tuple(each.name for each in fields(Routing))
SCHEDULER = (
    "is not set by relight, which never changes the system; `relight doctor` compares it with what the disk has. For "
    "NVMe the kernel's own choice, none, is right: mq-deadline only adds work there"
)
QUEUE_DEPTH = (
    "is not set by relight, which never changes the system. The depth is fixed when the driver finds the disk "
    "(nvme.io_queue_depth); `nvme set-feature -f 0x07` sets the number of queues and fails once they are in use. One "
    "program that reads a file from one end to the other gains nothing from it"
)
UNTILED = "does nothing here: only the decoder is computed in tiles"


def part(settings: Settings, name: str) -> Part:
    found: Part = getattr(settings.model_routing, name)
    return found


def target(settings: Settings, name: str) -> str:
    """Where a part goes: as it says, else as its only budget means, else `auto`; on the CPU where all is."""
    found = part(settings, name)
    if found.target != "auto":
        return found.target
    if settings.backend.type == "cpu":
        return "cpu"
    if (found.vram_budget is None) != (found.ram_budget is None):
        return "gpu" if found.vram_budget is not None else "cpu"
    return "auto"


def problems(settings: Settings, given: Collection[str]) -> Iterator[tuple[str, str]]:
    """Settings by place that contradict others, and how."""
    for name in PARTS:
        place, found, where = f"model_routing.{name}", part(settings, name), target(settings, name)
        if found.target == "gpu" and settings.backend.type == "cpu":
            yield f"{place}.target", "is gpu, and backend.type is cpu: one of them must change"
        if found.vram_budget is not None and where == "cpu":
            yield f"{place}.vram_budget", "is for a component on the GPU, and this one is on the CPU: take ram_budget"
        if found.ram_budget is not None and where == "gpu":
            yield f"{place}.ram_budget", "is for a component on the CPU, and this one is on the GPU: take vram_budget"
    if settings.backend.type == "cpu" and settings.engine.max_vram is not None and "engine.max_vram" in given:
        yield "engine.max_vram", "bounds the card, and backend.type is cpu: one of them must go"


def notes(settings: Settings, given: Collection[str]) -> Iterator[tuple[str, str]]:
    if "runtime.io_scheduler" in given:
        yield "runtime.io_scheduler", SCHEDULER
    if "runtime.nvme_queue_depth" in given:
        yield "runtime.nvme_queue_depth", QUEUE_DEPTH
    for name in PARTS:
        if name != "decoder" and f"model_routing.{name}.tiling" in given:
            yield f"model_routing.{name}.tiling", UNTILED
