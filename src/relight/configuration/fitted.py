"""A first file of settings for one machine: the largest set that has room there, sent where the planner sends it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from relight.configuration.engine import COMPONENTS
from relight.configuration.show import explained
from relight.errors import RelightError
from relight.jobs import models
from relight.jobs.request import GenerateRequest
from relight.planner.amounts import amount
from relight.planner.estimate import NoTimings
from relight.planner.machine import Machine
from relight.planner.outlook import TimingsOf
from relight.planner.plan import Ask, Planning
from relight.store import recipes
from relight.store.manifest import find_manifest
from relight.store.places import Places

GIB = 1 << 30
PICTURES = ("flux-schnell-q4", "sd15")
"""What is proposed, best first; the last for every machine."""
CONVERSATIONS = ("qwen-8b", "qwen-4b", "llama-3b", "llama-1b")
HEADING = (
    "Settings of relight. What is commented out is the default. Variables of the environment go over this file,",
    "options of commands over both; relight config show says what is in force and why. docs/configuration.md",
)
ENOUGH = 0.95
"""Of what a set should have: firmware and the kernel keep some of a machine's memory."""


@dataclass
class Fitted:
    """Settings by place as they go into the file, and why."""

    chosen: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    heading: list[str] = field(default_factory=list)

    def set(self, place: str, value: Any, reason: str) -> None:
        self.chosen[place], self.reasons[place] = value, reason

    def text(self) -> str:
        return explained(self.chosen, self.reasons, self.heading)


def fitted(machine: Machine, places: Places, timings: TimingsOf = lambda networks: NoTimings()) -> Fitted:
    """Nothing is fixed that relight settles better by itself: only what depends on the machine."""
    found = Fitted(heading=[*HEADING, *_seen(machine)])
    gpu = machine.gpu
    if gpu is None:
        found.set("backend.type", "cpu", "no Vulkan GPU was found")
    else:
        found.set("backend.device_index", int(gpu.name.removeprefix("vulkan")), gpu.description)
    name = proposed(machine, places)
    here = find_manifest(places, name) is not None
    found.set("models.model", name, "it is here" if here else f"fetch it with: relight pull {name}")
    conversation = next((each for each in CONVERSATIONS if find_manifest(places, each)), None)
    if conversation is not None:
        found.set("language_model.model", conversation, "it is here")
    if here:
        _placed(found, machine, name, timings)
    else:
        found.heading.append(f"Once {name} is here, relight config init says where each component goes.")
    return found


def proposed(machine: Machine, places: Places) -> str:
    """The best set that is here and has room, else the best that has room."""
    roomy = [name for name in PICTURES if has_room(machine, recipes.named_set(name, "Q4_K"))] or [PICTURES[-1]]
    return next((name for name in roomy if find_manifest(places, name)), roomy[0])


def has_room(machine: Machine, recipe: recipes.Recipe) -> bool:
    card = machine.gpu.total if machine.gpu is not None else 0
    return card >= ENOUGH * recipe.vram_gib * GIB and machine.cpu.total >= ENOUGH * recipe.ram_gib * GIB


def _placed(found: Fitted, machine: Machine, name: str, timings: TimingsOf) -> None:
    try:
        files = models.model_files(name, {})
        plan = Planning(machine, Ask(), timings).of_files(name, files, GenerateRequest(prompt="", seed=0))
    except RelightError as error:
        found.heading.append(f"No plan could be made: {error}")
        return
    found.set("runtime.resolution", f"{plan.width}x{plan.height}", "what the model is for")
    parts = {component.part.name: component.part for component in plan.components}
    for part, components in COMPONENTS.items():
        here = [parts[name] for name in components if name in parts]
        if here and machine.gpu is not None:
            takes = ", ".join(f"{each.name} takes {amount(each.use.total)}" for each in here)
            where = "gpu" if here[0].device == machine.gpu.name else "cpu"
            found.set(f"model_routing.{part}.target", where, f"planned: {takes}")
    if "vae" in parts:
        found.set("model_routing.decoder.tiling", plan.outcome.placement.tile, "planned for this size")


def _seen(machine: Machine) -> list[str]:
    gpu, cpu = machine.gpu, machine.cpu
    lines = [f"Written for {cpu.name}, {cpu.cores} cores, {amount(cpu.total)} of memory;"]
    card = f"{gpu.description}, {amount(gpu.total)}, {amount(gpu.budget)} of it for relight" if gpu else "no GPU"
    return [*lines, f"{card}."]
