"""Why a card is too small for what should go there, in numbers, and which changes alone would do."""

from __future__ import annotations

from collections.abc import Mapping

from relight.executors.base import MemoryUse
from relight.planner.amounts import amount, peak

MOVABLE = ("modulation", "upscaler", "taesd", "clip_g", "clip_h", "clip_l", "vae_encoder", "vae", "t5xxl")
"""In the order in which they had better leave the card."""
REMEDY = ". What would fit: "
ON_THE_CPU = ", or --backend diffusion=cpu"


def refusal(gpu: str, here: Mapping[str, MemoryUse], budget: int) -> str:
    """What is needed on a device by what should go there, what is allowed, and the changes of which each would do."""
    parts = ", ".join(f"{name} {amount(use.weights)} + {amount(use.compute)}" for name, use in here.items())
    needed = peak(list(here.values()), False)
    return (
        f"{amount(needed)} are needed on {gpu} ({parts}; weights + buffer) and {amount(budget)} are allowed"
        f"{REMEDY}{', or '.join(ways_to_fit(here, budget))}"
    )


def reason(refused: str) -> str:
    """Of a refusal, without what would fit: for what is not going to be done anyway."""
    return refused.partition(REMEDY)[0]


def ways_to_fit(here: Mapping[str, MemoryUse], budget: int) -> list[str]:
    """Each alone makes what stays on the device fit, the last resort last."""

    def fits_without(*names: str) -> bool:
        return peak([use for name, use in here.items() if name not in names], False) <= budget

    movable = [name for name in MOVABLE if name in here]
    ways = [f"--backend {name}=cpu" for name in movable if fits_without(name)]
    if not ways and len(movable) > 1 and fits_without(*movable):
        ways = ["--backend " + ",".join(f"{name}=cpu" for name in movable)]
    if "diffusion" in here:
        ways += _ways_for_diffusion(here, budget)
    if fits_without("diffusion"):
        ways.append("--backend diffusion=cpu")
    return ways or ["--backend cpu"]


def _ways_for_diffusion(here: Mapping[str, MemoryUse], budget: int) -> list[str]:
    """A smaller picture has a smaller buffer, nearly in proportion; a smaller quantisation smaller weights."""
    diffusion = here["diffusion"]
    others = max((use.compute for name, use in here.items() if name != "diffusion"), default=0)
    weights = sum(use.weights for use in here.values())
    ways = []
    share = 0.9 * (budget - weights) / max(diffusion.compute, 1)
    if others <= budget - weights and 0.1 <= share < 1:
        ways.append(f"a picture of at most {share:.0%} of the pixels")
    room = budget - (peak(list(here.values()), False) - diffusion.weights)
    if room >= diffusion.weights / 4:
        ways.append(f"a smaller quantisation (relight quantize), with at most {amount(room)} of diffusion weights")
    return ways


def too_large(component: str, gpu: str, nbytes: int, limit: int) -> str:
    return (
        f"{component} has a tensor of {amount(nbytes)}, and {gpu} allocates at most {amount(limit)} at once"
        f"{REMEDY}a smaller picture, smaller tiles, or --backend {component}=cpu"
    )
