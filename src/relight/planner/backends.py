"""`--backend` in the field's spelling: which component computes where."""

from __future__ import annotations

import re
from collections.abc import Mapping

from relight.errors import ConfigError

TEXT_ENCODERS = ("clip_l", "clip_g", "clip_h", "t5xxl")
COMPONENTS = (*TEXT_ENCODERS, "modulation", "diffusion", "vae", "vae_encoder", "taesd", "upscaler")
GROUPS = {"te": TEXT_ENCODERS, **{name: (name,) for name in COMPONENTS}, "vae": ("vae", "vae_encoder")}
CPU_EXECUTORS = ("ggml-cpu", "openvino", "reference")
GPU = "gpu"
"""The card that would be used by itself, whatever its number."""
DEVICE = re.compile(r"vulkan\d+|gpu|cpu|auto|" + "|".join(CPU_EXECUTORS))


def parse(spec: str | None) -> dict[str, str]:
    """`diffusion=vulkan0,te=cpu`, or one device for all, to {component: device}; components not named are `auto`.

    Raises ConfigError naming what is not known.
    """
    chosen = dict.fromkeys(COMPONENTS, "auto")
    for entry in filter(str.strip, (spec or "").split(",")):
        name, equals, device = (part.strip() for part in entry.rpartition("="))
        if not DEVICE.fullmatch(device):
            raise ConfigError(
                f"--backend {entry}: devices are vulkan0 (1, ...), gpu, cpu, {', '.join(CPU_EXECUTORS)} or auto; "
                "relight devices lists those of this machine"
            )
        if equals and name not in GROUPS:
            raise ConfigError(f"--backend {entry}: components are {', '.join(GROUPS)}")
        for component in GROUPS[name] if equals else COMPONENTS:
            chosen[component] = device
    return chosen


def without_card(spec: str | None) -> bool:
    """Whether every component is sent to the CPU."""
    return set(parse(spec).values()) <= {"cpu", *CPU_EXECUTORS}


def named_gpu(spec: str | None) -> str | None:
    """The card that components are sent to by its number."""
    return next((device for device in sorted(parse(spec).values()) if device.startswith("vulkan")), None)


def on_gpu(wanted: Mapping[str, str], gpu: str | None) -> dict[str, str]:
    """With the card's name for `gpu`. Raises ConfigError where something should go there and there is none."""
    lost = [name for name, device in wanted.items() if device == GPU]
    if lost and gpu is None:
        raise ConfigError(
            f"{', '.join(lost)} should be on the GPU, and no Vulkan GPU was found: relight devices lists what is here; "
            "else choose cpu or auto"
        )
    return {name: gpu if device == GPU and gpu else device for name, device in wanted.items()}
