"""The machine to plan for: the one at hand, asked by a worker of its own, or a card by profile."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from relight.errors import ConfigError
from relight.planner import machine as machines
from relight.planner.estimate import NoTimings, Timings
from relight.planner.machine import Gpu, Machine
from relight.planner.networks import Networks
from relight.planner.profiles import Profile, find_profile, pretended
from relight.tuning import identity, tables
from relight.tuning.tuned import here, signature
from relight.workers.process import Worker

TimingsOf = Callable[[Networks], Timings]


def machine_for(
    profile: str | None,
    max_vram: int | None,
    threads: int | None,
    model: Path | None,
    device: str | None = None,
    share: float | None = None,
) -> tuple[Machine, TimingsOf]:
    """With a profile that card, and of measurements those of this CPU; else what is here, and all that was measured.
    `max_vram` bytes are taken of it at most, `share` is what part of its memory may be filled. `device` names a GPU,
    such as a software one that is never chosen by itself; `model` is a file on the disk that models are read from.

    Raises ConfigError for a profile that is none.
    """
    cpu = machines.this_cpu(threads)
    if model is not None:
        cpu = replace(cpu, disk=machines.disk_rate(model))
    if profile is not None:
        card = machines.of_profile(named(profile), max_vram)
        return Machine(cpu, filled(card, share, card.total)), measured(threads, None)
    gpu = present_gpu(max_vram, device, share)
    return Machine(cpu, gpu), measured(threads, pretended(os.environ), with_gpu=True)


def filled(gpu: Gpu, share: float | None, total: int) -> Gpu:
    """With no more for relight than that part of the card's memory."""
    return gpu if share is None else replace(gpu, budget=min(gpu.budget, int(share * total)))


def measured(threads: int | None, profile: Profile | None, *, with_gpu: bool = False) -> TimingsOf:
    """Of the tables of this machine, by the networks of a model."""
    found = here(tables.folder(), profile, threads, with_gpu=with_gpu)

    def timings(networks: Networks) -> Timings:
        if found is None:
            return NoTimings()

        @functools.cache
        def network(name: str) -> str:
            return signature(name, networks.component(name).checkpoint)

        return replace(found, network=network)

    return timings


def named(profile: str) -> Profile:
    file = Path(profile)
    if "=" not in profile and file.suffix in (".yaml", ".yml") and file.is_file():
        given = settings_of(file)
        return find_profile(",".join(f"{key}={value}" for key, value in given.items()), f"--device-profile {profile}")
    return find_profile(profile, f"--device-profile {profile}")


def settings_of(file: Path) -> Mapping[str, str]:
    """`memory: 8G` in each line, comments after #: what YAML of one level is."""
    lines = (line.partition("#")[0] for line in file.read_text(encoding="utf-8").splitlines())
    return {key.strip(): value.strip() for key, colon, value in (line.partition(":") for line in lines) if colon}


def present_gpu(max_vram: int | None, named: str | None = None, share: float | None = None) -> Gpu | None:
    """The one named, else the first real one, held to RELIGHT_PRETEND. Raises ConfigError for an unknown name."""
    profile = pretended(os.environ)
    worker = Worker("plan", profile.environment if profile else None)
    try:
        devices = worker.call("devices").values["devices"]
    finally:
        worker.close()
    fitting = (each for each in devices if (each["name"] == named if named else each["type"] == "gpu"))
    found = next(fitting, None)
    if found is None and named is not None:
        raise ConfigError(f"no device {named}; this machine has {', '.join(each['name'] for each in devices)}")
    if found is None:
        return None
    budget = machines.allowed(found, profile, max_vram, share)
    largest = largest_allocation(str(found["description"]), int(found["memory_total"]))
    return machines.of_device(found, budget, profile, largest=largest)


def largest_allocation(description: str, total: int) -> int | None:
    """Bytes that the driver of a device allocates at once; None where that is all there is, or no driver says."""
    said = (each for each in identity.probed() if each.get("name") and each["name"] in description)
    found = next(said, {})
    largest = found.get("max_buffer_bytes") or found.get("max_allocation_bytes") or total
    return largest if largest < total else None
