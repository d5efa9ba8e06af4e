"""What ggml can do with the devices: which one it takes, features and limits it depends on, variables in its way."""

from __future__ import annotations

from collections.abc import Iterator

from relight.doctor.facts.vulkan import VulkanDevice
from relight.doctor.finding import GIB, Finding, Remedy, fail, ok, size, variable, warn, without_variable
from relight.doctor.machine import Machine

NEEDED_VERSION = (1, 2)
TUNING = ("VK_AMD_shader_core_properties", "VK_KHR_shader_integer_dot_product", "VK_EXT_subgroup_size_control")
"""ggml knows an AMD card before RDNA by these three and its 64 lanes; without them it uses untuned shaders."""
UPDATE_MESA = Remedy(
    "update Mesa",
    "sudo apt update && sudo apt install --only-upgrade mesa-vulkan-drivers",
    "sudo apt install mesa-vulkan-drivers=VERSION, with the old version of `apt list -a mesa-vulkan-drivers`",
)
SMALL_SHARED_MEMORY = 32 << 10
LEAST_SHARED_MEMORY = 16 << 10

HARMFUL = {
    "GGML_VK_PREFER_HOST_MEMORY": "weights stay in the computer's memory, behind PCIe: many times slower",
    "GGML_VK_ALLOW_SYSMEM_FALLBACK": "what does not fit the card goes to the computer's memory, ten times slower, and "
    "nothing says so",
    "GGML_VK_SERIALIZE_SUBMISSIONS": "every submission is waited for; meant for finding faults",
    "GGML_VK_SYNC_LOGGER": "meant for finding faults, slow",
    "GGML_VK_MEMORY_LOGGER": "meant for finding faults, slow",
    "GGML_VK_PERF_LOGGER": "meant for measuring, slow",
    "GGML_VK_DISABLE_FUSION": "operations that go together are run one by one",
    "GGML_VK_DISABLE_ASYNC": "the processor waits for every copy",
}
PRESENCE_ONLY = ("DISABLE_", "FORCE_MMVQ", "PREFER_", "ALLOW_", "SERIALIZE_", "ENABLE_", "PERF_LOGGER")


def chosen(machine: Machine) -> Iterator[Finding]:
    """The device relight takes, and whether it is the one with the most memory."""
    if machine.engine.error:
        yield fail(
            "engine",
            f"ggml does not start: {machine.engine.error}",
            "nothing can be computed without it, on the card or on the processor",
            Remedy("install relight's packages again", "./relight setup", "nothing to undo"),
        )
        return
    gpus = machine.engine.gpus
    software = [device for device in machine.engine.devices if device["type"] == "software"]
    named = machine.environ.get("GGML_VK_VISIBLE_DEVICES")
    if software and not gpus:
        yield fail(
            "engine",
            f"ggml is given {software[0]['description']}: the processor pretending to be a card",
            "it is slower than ggml's own code for the processor; relight takes it only where --backend names it",
            without_variable("GGML_VK_VISIBLE_DEVICES", named or "0", "let ggml choose among real cards"),
        )
    elif not gpus:
        yield warn(
            "engine",
            "ggml finds no card, and computes on the processor",
            "pictures take many times as long; the lines about drivers and rights say what is missing",
        )
    else:
        yield _first_of(machine, named)


def _first_of(machine: Machine, named: str | None) -> Finding:
    first, *others = machine.engine.gpus
    larger = [other for other in others if other["memory_total"] > 1.5 * first["memory_total"]]
    integrated = {d.name for d in machine.vulkan.devices if d.type == "integrated"}
    by = f" (GGML_VK_VISIBLE_DEVICES={named})" if named else ""
    seen = f"relight takes {first['name']}, {first['description']}, {size(first['memory_total'])}{by}"
    if larger or (others and first["description"] in integrated):
        best = larger[0] if larger else others[0]
        return warn(
            "engine",
            f"{seen}; {best['name']} is {best['description']} with {size(best['memory_total'])}",
            "the first real device is taken, and here a better one comes after it",
            Remedy(f"name {best['name']}", f"relight generate ... --backend {best['name']}", "leave --backend out"),
            variable("GGML_VK_VISIBLE_DEVICES", best["name"].removeprefix("vulkan"), "show ggml that device alone"),
        )
    return ok("engine", seen, device=first["name"], description=first["description"])


def vulkan_version(machine: Machine) -> Iterator[Finding]:
    for device in machine.vulkan.real_devices:
        text = ".".join(map(str, device.api_version))
        if device.api_version[:2] < NEEDED_VERSION:
            yield fail(
                "vulkan-version",
                f"{device.name} has Vulkan {text}",
                "ggml needs 1.2 and passes over the card; cards from 2012 on have it with a current driver",
                UPDATE_MESA,
            )
        else:
            yield ok("vulkan-version", f"{device.name} has Vulkan {text}")


def features(machine: Machine) -> Iterator[Finding]:
    """16-bit storage, without which ggml passes over a card, and what lets it know an old Radeon."""
    for device in machine.vulkan.real_devices:
        arithmetic = "16-bit arithmetic" if device.float16 else "no 16-bit arithmetic (usual before Vega and Turing)"
        if not device.storage_16bit:
            yield fail(
                "features",
                f"{device.name} ({device.driver}) has no 16-bit storage",
                "weights and shaders need it, and ggml passes over the card",
                UPDATE_MESA,
            )
        elif lacking := untuned(device):
            yield warn(
                "features",
                f"{device.name}: the driver lacks {', '.join(lacking)}",
                "by them ggml knows a Radeon before RDNA; without them it computes with shaders meant for other cards",
                UPDATE_MESA,
            )
        else:
            yield ok("features", f"{device.name}: 16-bit storage, {arithmetic}, {device.subgroup_size} lanes")


def untuned(device: VulkanDevice) -> list[str]:
    """Extensions that RADV has had for years for a card of 64 lanes, and that are missing here."""
    return [name for name in TUNING if name not in device.extensions] if is_old_radeon(device) else []


def is_old_radeon(device: VulkanDevice) -> bool:
    return device.driver == "RADV" and device.subgroup_size == 64


def limits(machine: Machine) -> Iterator[Finding]:
    """Shared memory and the largest block that may be allocated."""
    for device in machine.vulkan.real_devices:
        largest = min(device.max_allocation_bytes or 1 << 62, device.max_buffer_bytes or 1 << 62)
        shared = f"{device.shared_memory_bytes >> 10} KiB shared memory"
        seen = f"{device.name}: blocks of {size(largest)} at most, {shared}"
        numbers = {"max_block_bytes": largest, "shared_memory_bytes": device.shared_memory_bytes}
        forced = machine.environ.get("GGML_VK_FORCE_MAX_ALLOCATION_SIZE", "")
        if forced.isdigit() and int(forced) > largest:
            yield fail(
                "limits",
                f"{seen}, and GGML_VK_FORCE_MAX_ALLOCATION_SIZE is {size(int(forced))}",
                "larger blocks than the driver allows fail, or hold what they should not",
                without_variable("GGML_VK_FORCE_MAX_ALLOCATION_SIZE", forced, "keep to the driver's limit"),
                **numbers,
            )
        elif device.shared_memory_bytes < LEAST_SHARED_MEMORY or largest < GIB:
            yield warn(
                "limits",
                seen,
                "large pictures need blocks of a GiB and more, and ggml's matrix shaders 16 KiB of shared memory; "
                "relight tiles what it can",
                Remedy(
                    "decode in smaller tiles", "relight generate ... --vae-tile-size 32", "leave --vae-tile-size out"
                ),
                **numbers,
            )
        else:
            less = device.driver == "RADV" and device.shared_memory_bytes <= SMALL_SHARED_MEMORY
            yield ok("limits", seen + (" (64 KiB with a current Mesa)" if less else ""), **numbers)


def variables(machine: Machine) -> Iterator[Finding]:
    """GGML_VK_* that slow down, and those whose 0 does not mean off."""
    found = False
    for name in sorted(name for name in machine.environ if name.startswith("GGML_VK_")):
        value, rest = machine.environ[name], name.removeprefix("GGML_VK_")
        if value in ("0", "false", "off") and rest.startswith(PRESENCE_ONLY):
            found = True
            yield warn(
                "variables",
                f"{name}={value}",
                "ggml looks only at whether it is set: 0 switches it on as 1 does",
                without_variable(name, value, "take it away"),
            )
        elif name in HARMFUL:
            found = True
            yield warn("variables", f"{name} is set", HARMFUL[name], without_variable(name, value, "take it away"))
    if not found:
        kept = ", ".join(sorted(name for name in machine.environ if name.startswith("GGML_VK_"))) or "none"
        yield ok("variables", f"GGML_VK_* that are set: {kept}")
