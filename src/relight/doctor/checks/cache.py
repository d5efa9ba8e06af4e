"""The driver's cache of compiled pipelines: ggml keeps none of its own, so without it every start compiles anew."""

from __future__ import annotations

from collections.abc import Iterator

from relight.doctor.facts.caches import PipelineCache
from relight.doctor.facts.disks import Place
from relight.doctor.finding import MIB, Finding, Remedy, fail, ok, size, variable, warn, without_variable
from relight.doctor.machine import Machine

WHY = "the driver keeps compiled shaders there; without it every start compiles for up to minutes"
LEAST_LIMIT = 256 * MIB
LAYERED = ("overlay", "overlayfs", "aufs", "tmpfs")


def pipelines(machine: Machine) -> Iterator[Finding]:
    for cache, place in zip(machine.caches, machine.cache_places, strict=True):
        yield _judged(machine, cache, place)


def _judged(machine: Machine, cache: PipelineCache, place: Place) -> Finding:
    filled = f"{size(cache.bytes)} in {cache.files} files" if cache.files else "empty so far"
    seen = f"{cache.driver}'s pipeline cache {cache.path}: {filled}"
    numbers = {"path": cache.path, "bytes": cache.bytes, "writable": cache.writable}
    elsewhere = variable(cache.variable, '"$HOME/relight-pipelines"', "put it in a folder you may write")
    if cache.off:
        value = machine.environ.get(cache.off, "")
        return warn(
            "pipeline-cache",
            f"{cache.driver}'s pipeline cache is switched off by {cache.off}={value}",
            WHY,
            without_variable(cache.off, value, "switch it on again"),
            **numbers,
        )
    if not cache.writable:
        return fail(
            "pipeline-cache",
            f"{seen}, and may not be written",
            WHY,
            elsewhere,
            Remedy(
                "or take the folder back", f'sudo chown -R "$USER" {cache.path}', f"sudo chown -R root {cache.path}"
            ),
            **numbers,
        )
    if cache.max_bytes is not None and cache.max_bytes < LEAST_LIMIT:
        return warn(
            "pipeline-cache",
            f"{seen}, {size(cache.max_bytes)} at most",
            f"{WHY}; ggml's pipelines alone are over 100 MiB, and what is over the limit is thrown out",
            variable("MESA_SHADER_CACHE_MAX_SIZE", "1G", "allow more (Mesa's default)"),
            **numbers,
        )
    if machine.container and place.mount and place.mount.type in LAYERED:
        return warn(
            "pipeline-cache",
            f"{seen}, inside the container",
            f"{WHY}; this one goes away with the container",
            Remedy("keep it in a volume", f"-v relight-pipelines:{cache.path}", "leave -v out"),
            **numbers,
        )
    return ok("pipeline-cache", seen, **numbers)
