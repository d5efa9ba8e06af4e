"""What the facts mean here: each check turns a snapshot of the machine into findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from relight.doctor.checks import (
    access,
    cache,
    card,
    clocks,
    disk,
    driver,
    engine,
    layers,
    link,
    memory,
    processor,
    recipe,
    surroundings,
    watchdog,
)
from relight.doctor.finding import Finding
from relight.doctor.machine import Machine

Check = Callable[[Machine], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    driver.loader,
    driver.installed,
    layers.implicit,
    driver.in_use,
    driver.one_driver_a_card,
    engine.chosen,
    engine.vulkan_version,
    engine.features,
    engine.limits,
    engine.variables,
    access.nodes,
    card.video_memory,
    card.reachable_memory,
    link.width_and_speed,
    card.shared_memory,
    watchdog.submissions,
    clocks.temperature,
    clocks.power,
    processor.instructions,
    processor.cores,
    memory.for_models,
    memory.swap,
    memory.bandwidth,
    memory.error_correction,
    disk.kind,
    disk.file_system,
    disk.queue,
    disk.cold_read,
    disk.room,
    cache.pipelines,
    surroundings.wsl,
    surroundings.container,
    surroundings.other_stacks,
    surroundings.sqlite,
    recipe.wrong_advice,
    recipe.settings,
)


def examine(machine: Machine) -> list[Finding]:
    """Every finding, in the order in which they are read."""
    return [finding for check in CHECKS for finding in check(machine)]
