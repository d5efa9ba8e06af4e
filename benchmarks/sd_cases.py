"""What is asked of both programs: prompts, samplers and guidance in which relight and stable-diffusion.cpp agree.

They differ on purpose elsewhere, where relight follows A1111: a full chunk is cut at the last comma if that is near,
the empty negative prompt of SDXL is encoded and not zeroed, and the mean of weighted tokens is kept in each of SDXL's
encoders by itself.
"""

from __future__ import annotations

from relight.sampling.parameterisation import Discrete
from relight.sampling.sigmas import schedule
from side import Values

FOX = "a red fox asleep in tall grass, morning light, photograph"
BLURRED = "blurry, low quality, text"
LONG = "a harbour town in winter with snow on the roofs and lamps in the windows " * 8  # 112 tokens and no comma
WEIGHTED = "(a red fox:1.4) asleep in [tall grass], ((morning light)), (photograph:0.6)"
STEERED: Values = {"prompt": FOX, "negative_prompt": BLURRED, "cfg_scale": 7.0, "sampler": "euler"}

CASES: dict[str, Values] = {
    "cfg7": STEERED,
    "single-pass": STEERED | {"cfg_scale": 1.0},
    "dpmpp_2m": STEERED | {"sampler": "dpmpp_2m"},
    "euler_ancestral": STEERED | {"sampler": "euler_ancestral"},
    "weights": STEERED | {"prompt": WEIGHTED, "cfg_scale": 3.0},
    "long": STEERED | {"prompt": LONG},
    "both-long": STEERED | {"prompt": LONG, "negative_prompt": LONG.replace("winter", "summer") + BLURRED},
    "clip-skip": STEERED | {"clip_skip": 2},
    "break": STEERED | {"prompt": f"{FOX} BREAK oil painting"},
}


def request(case: str, family: str, width: int, height: int, steps: int, seed: int = 42) -> Values:
    """The same noise levels for both: spread by time, for SDXL as Turbo was trained (999, 749 ...)."""
    named = schedule("sgm_uniform" if family == "sdxl" else "normal", steps, Discrete(family=family))
    levels = [float(level) for level in named]
    return CASES[case] | {"width": width, "height": height, "seed": seed, "sigmas": levels}
