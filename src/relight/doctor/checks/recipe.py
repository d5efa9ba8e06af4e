"""Advice of a published recipe for these cards that does nothing, or the wrong thing, where it is found set."""

from __future__ import annotations

from collections.abc import Iterator

from relight.doctor.facts.disks import Disk
from relight.doctor.finding import Finding, Remedy, fail, ok, warn, without_variable
from relight.doctor.machine import Machine

NO_OPS = ("VK_PIPELINE_CACHE_DIR", "VULKAN_PIPELINE_CACHE_DIR")


def wrong_advice(machine: Machine) -> Iterator[Finding]:
    found = False
    for name in NO_OPS:
        if value := machine.environ.get(name):
            found = True
            yield warn(
                "recipe",
                f"{name}={value}",
                "no driver reads it; Mesa's is MESA_SHADER_CACHE_DIR, NVIDIA's __GL_SHADER_DISK_CACHE_PATH, AMDVLK's "
                "AMD_VK_PIPELINE_CACHE_PATH, and their defaults are sound",
                without_variable(name, value, "take it away"),
            )
    for trace in machine.queue_settings:
        found = True
        away = Remedy("take the line out", f"sudoedit {trace.where}", "put it back")
        if trace.what == "nvme set-feature":
            yield warn(
                "recipe",
                f"{trace.where} runs `nvme set-feature` with feature 7",
                "that is the number of queues, not their depth, and disks refuse it once they are in use",
                away,
            )
        else:
            yield warn(
                "recipe",
                f"{trace.where} sets a scheduler for NVMe disks",
                "they order requests themselves; the kernel's default `none` is right",
                away,
            )
    if not found:
        yield ok("recipe", "none of the recipe's wrong advice is set")


def settings(machine: Machine) -> Iterator[Finding]:
    """relight.yaml: readable, and its storage keys against what the disk has."""
    asked, disk = machine.asked, machine.model_place.disk
    if asked.error:
        change = Remedy("correct it", "relight config check", "put the old line back")
        yield fail("settings", asked.error, "every other command refuses to start with it", change)
        return
    said = False
    if asked.scheduler is not None and disk is not None and disk.scheduler is not None:
        said = True
        yield _scheduler(asked.scheduler, disk)
    if asked.queue_depth is not None and disk is not None and disk.requests is not None:
        said = True
        seen = f"runtime.nvme_queue_depth {asked.queue_depth}; {disk.name} takes {disk.requests} requests"
        if asked.queue_depth == disk.requests:
            yield ok("settings", seen)
        else:
            yield warn(
                "settings",
                seen,
                "the depth is fixed when the disk is found, `nvme set-feature -f 0x07` is the number of queues, and "
                "one program that reads a file from front to back gains from neither",
                Remedy("take the line out", "remove nvme_queue_depth from relight.yaml", "put it back"),
            )
    if not said:
        yield ok("settings", asked.file or "no relight.yaml: defaults")


def _scheduler(asked: str, disk: Disk) -> Finding:
    seen = f"runtime.io_scheduler {asked}; {disk.name} has {disk.scheduler}"
    if disk.kind == "nvme" and asked != "none":
        why = "an NVMe disk orders requests itself: the kernel's `none` is right, and the setting is not"
        wanted = Remedy("say what is right", "io_scheduler: none in relight.yaml", f"io_scheduler: {asked}")
        return warn("settings", seen, why, wanted)
    if asked == disk.scheduler:
        return ok("settings", seen)
    file = f"/sys/block/{disk.name}/queue/scheduler"
    change = Remedy(
        "set it until the next start", f"echo {asked} | sudo tee {file}", f"echo {disk.scheduler} | sudo tee {file}"
    )
    return warn("settings", seen, "relight never changes the system; what the setting asks for is not so", change)
