"""The computer's memory: room for the models, swap, speed, error correction."""

from __future__ import annotations

from collections.abc import Iterator

from relight.doctor.finding import GIB, Finding, Remedy, fail, ok, size, warn
from relight.doctor.machine import Machine
from relight.doctor.models import ModelSet

OVERHEAD = int(1.5 * GIB)
"""Programs and buffers of relight's workers, beside weights."""
SYSTEM_BYTES = GIB
SMALLER_T5 = Remedy(
    "take a smaller T5 (F16 9.8 GB, Q8_0 5.1 GB, Q4_K 2.9 GB)",
    "relight pull flux-schnell-q4 --t5 Q8_0",
    "relight pull flux-schnell-q4 --t5 F16",
)
ADD_SWAP = Remedy(
    "add swap, so that what is idle can make room",
    "sudo fallocate -l 16G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile && sudo swapon /swapfile",
    "sudo swapoff /swapfile && sudo rm /swapfile",
)
CLOSE_OTHERS = Remedy("close other programs", "ps aux --sort=-rss | head", "start them again")
SLOW_MEMORY = 12e9


def for_models(machine: Machine) -> Iterator[Finding]:
    """What each model keeps in memory against what there is."""
    memory = machine.memory
    limit = f", {size(memory.usable)} by this control group's limit" if memory.usable < memory.total else ""
    seen = f"{size(memory.total)}{limit}, {size(memory.available)} available"
    numbers = {"total_bytes": memory.total, "available_bytes": memory.available}
    if not machine.models:
        few = memory.usable < 7.5 * GIB
        yield (
            warn(
                "memory",
                seen,
                "FLUX with the smallest T5 wants 8 GiB; Stable Diffusion 1.5 does with less",
                SMALLER_T5,
                **numbers,
            )
            if few
            else ok("memory", f"{seen}; no model is here yet", **numbers)
        )
    for model in machine.models:
        yield _for_model(machine, model, seen)


def _for_model(machine: Machine, model: ModelSet, seen: str) -> Finding:
    memory, smaller = machine.memory, smaller_weights(model)
    needed = model.host_bytes(has_gpu=machine.has_gpu) + OVERHEAD
    numbers = {"model": model.name, "needed_bytes": needed, "available_bytes": memory.available}
    said = f"{model.name} keeps {size(needed)} in memory: {seen}"
    if needed + SYSTEM_BYTES > memory.usable:
        why = "what does not stay in memory is read from the disk again for every prompt: minutes instead of seconds"
        if memory.swap_total == 0 or memory.usable < memory.total:
            why += "; without swap the system ends the largest program when it runs out"
            return fail("memory", said, why, smaller, ADD_SWAP, **numbers)
        return warn("memory", said, why, smaller, **numbers)
    if needed > memory.available:
        why = "other programs have it now; they are pushed into swap, or weights are read again and again"
        return warn("memory", said, why, CLOSE_OTHERS, smaller, **numbers)
    return ok("memory", said, **numbers)


def smaller_weights(model: ModelSet) -> Remedy:
    """A smaller T5 where there is one; else the largest file in a smaller format."""
    if any(file.role == "t5xxl" for file in model.files):
        return SMALLER_T5
    name = model.largest.path.name
    return Remedy("take a smaller format", f"relight quantize {name} smaller.gguf --type Q4_K", "keep the old file")


def swap(machine: Machine) -> Iterator[Finding]:
    """Present where models are large for the memory, and not in use."""
    memory = machine.memory
    if machine.is_windows:
        return  # Windows makes its page file as it needs
    needed = max((m.host_bytes(has_gpu=machine.has_gpu) for m in machine.models), default=0) + OVERHEAD
    seen = f"{size(memory.swap_used)} of {size(memory.swap_total)} swap in use"
    numbers = {"swap_bytes": memory.swap_total, "used_bytes": memory.swap_used}
    if memory.swap_total == 0 and (memory.total < 17 * GIB or needed > memory.total * 0.6):
        yield warn(
            "swap",
            f"no swap, with {size(memory.total)} of memory",
            "while a large model is loaded nothing idle can make room, and the system ends a program instead",
            ADD_SWAP,
            **numbers,
        )
    elif memory.swap_used > max(GIB, memory.total // 10):
        yield warn(
            "swap",
            seen,
            "memory was short: what is in swap comes back at the disk's speed, in the middle of a picture",
            CLOSE_OTHERS,
            SMALLER_T5,
            **numbers,
        )
    else:
        yield ok("swap", seen if memory.swap_total else "no swap, and memory to spare", **numbers)


def bandwidth(machine: Machine) -> Iterator[Finding]:
    rate = machine.bandwidth
    seen = f"memory is copied at {rate / 1e9:.0f} GB/s"
    if rate < SLOW_MEMORY:
        yield warn(
            "bandwidth",
            seen,
            "a language model on the processor reads all its weights for each token (5 GB: "
            f"{rate / 5e9:.1f} tokens a second at most), and offloaded layers the same",
            Remedy(
                "use every memory channel at its rated speed",
                "modules in pairs as the board's manual says; XMP or DOCP on in the firmware's set-up",
                "XMP or DOCP off",
            ),
            bytes_per_s=rate,
        )
    else:
        yield ok("bandwidth", seen, bytes_per_s=rate)


def error_correction(machine: Machine) -> Iterator[Finding]:
    """Only the kernel's EDAC proves that ECC is active; nothing there means unknown."""
    if machine.is_windows:
        yield ok("ecc", "unknown: Windows repeats the firmware's claim, which proves nothing")
        return
    if not machine.controllers:
        hidden = " (hidden in a virtual machine)" if machine.is_wsl else ""
        yield ok("ecc", f"unknown: no EDAC driver reports a memory controller{hidden}")
        return
    for controller in machine.controllers:
        counts = f"{controller.corrected} corrected and {controller.uncorrected} uncorrected errors"
        modes = ", ".join(mode for mode in controller.modes if mode) or "mode unknown"
        seen = f"{controller.name} {controller.kind}: {modes}, {counts}"
        numbers = {"corrected": controller.corrected, "uncorrected": controller.uncorrected}
        replace = Remedy(
            "find and replace the module",
            "grep . /sys/devices/system/edac/mc/mc*/dimm*/dimm_*e_count",
            "nothing to undo",
        )
        if controller.uncorrected:
            yield fail(
                "ecc",
                seen,
                "memory gave wrong values that nothing could repair: pictures and files made since may be damaged",
                replace,
                **numbers,
            )
        elif controller.corrected:
            yield warn("ecc", seen, "a module fails; so far every error was repaired", replace, **numbers)
        elif controller.corrects:
            yield ok("ecc", f"active: {seen}", **numbers)
        else:
            yield ok("ecc", f"not active: {seen}", **numbers)
