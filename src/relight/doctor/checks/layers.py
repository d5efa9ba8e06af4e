"""Implicit layers: code that the loader puts into every Vulkan program."""

from __future__ import annotations

import re
from collections.abc import Iterator

from relight.doctor.facts.vulkan import WITHOUT_LAYERS
from relight.doctor.finding import Finding, fail, ok, variable, warn
from relight.doctor.machine import Machine

TROUBLESOME = (
    (r"MANGOHUD", "MangoHud ends programs that compute on several queues, among them ggml on Polaris"),
    (
        r"AMD_switchable_graphics",
        "AMD's layer for switchable graphics hides cards when RADV is installed beside AMDVLK",
    ),
    (r"RTSS|RivaTuner", "overlays that draw into every program end those that have no window"),
    (r"OW_OVERLAY|OW_OBS|overwolf", "overlays that draw into every program end those that have no window"),
    (r"OBS_(vkcapture|HOOK)", "capture layers wrap every submission and have ended programs without a window"),
    (r"vkBasalt|RESHADE", "post-processing layers expect a window and cost time at every submission"),
    (r"NV_optimus", "it reorders devices, so that vulkan0 may be another card than ggml lists"),
)
"""Layers by a part of their names, and what they have done to programs that compute."""


def implicit(machine: Machine) -> Iterator[Finding]:
    """Those that are active here and known for crashes; and a crash that goes away without layers."""
    vulkan = machine.vulkan
    off = variable(*next(iter(WITHOUT_LAYERS.items())), "switch all implicit layers off")
    if vulkan.crash and not vulkan.crash_without_layers:
        active = ", ".join(layer.name for layer in vulkan.layers if layer.active) or "one of them"
        yield fail(
            "layers",
            f"with implicit layers: {vulkan.crash}; without them the drivers answer ({active})",
            "a layer ends every program that uses Vulkan, relight's worker too",
            off,
        )
        return
    active_layers = [layer for layer in vulkan.layers if layer.active]
    known = False
    for layer in active_layers:
        why = next((why for pattern, why in TROUBLESOME if re.search(pattern, layer.name, re.IGNORECASE)), None)
        if why:
            known = True
            switch, _, value = (layer.off_switch or "").partition("=")
            yield warn(
                "layers",
                f"{layer.name} is active ({layer.manifest})",
                why,
                variable(switch, value, "switch it off for relight") if switch else off,
            )
    if not known:
        names = ", ".join(layer.name for layer in active_layers) or "none"
        yield ok("layers", f"implicit layers that are active: {names}")
