"""What a model's users expect unless they say so: sampler, schedule, steps, guidance, size."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

TURBO = re.compile(r"sd[-_ ]?(xl)?[-_ ]?turbo")  # Stability's own, made for one step
EMOJI = re.compile(r"^flux1-emoji")  # the small one that ships with relight
FEW_STEPS = re.compile(r"turbo|lightning|lcm")  # distilled from other models; the weights look like any of the family


@dataclass(frozen=True)
class Defaults:
    """`schedule` None: the one A1111 takes with the sampler (`names.automatic`). `side` in pixels."""

    sampler: str
    schedule: str | None
    steps: int
    cfg_scale: float
    side: int


FLUX = Defaults("euler", "simple", 4, 1.0, 1024)
UNETS = {
    family: Defaults("dpmpp_2m", None, 20, 7.0, side) for family, side in [("sd1", 512), ("sd2", 768), ("sdxl", 1024)]
}


def defaults(family: str, name: str, *, distilled: bool = False) -> Defaults:
    """For a model of this family whose file has this name. `distilled`: FLUX.1 with guidance distilled into it, dev."""
    if family == "flux":
        usual = replace(FLUX, side=128) if EMOJI.search(name) else FLUX
        return replace(usual, steps=20) if distilled else usual
    usual, told = UNETS[family], name.lower()
    if TURBO.search(told):
        return Defaults("euler_ancestral", "sgm_uniform", 1, 1.0, 512)
    if FEW_STEPS.search(told):
        return replace(
            usual, sampler="lcm" if "lcm" in told else "euler", schedule="sgm_uniform", steps=4, cfg_scale=1.0
        )
    return usual
