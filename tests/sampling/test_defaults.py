"""What models get whose users say nothing."""

from __future__ import annotations

import pytest

from relight.sampling.defaults import defaults
from relight.sampling.samplers import SAMPLERS
from relight.sampling.sigmas import SCHEDULES

FAMILIES = ("flux", "sd1", "sd2", "sdxl")


@pytest.mark.parametrize(
    ("family", "name", "distilled", "expected"),
    [
        ("flux", "flux1-schnell-Q4_K_S", False, ("euler", "simple", 4, 1.0, 1024)),
        ("flux", "flux1-dev-Q4_K_S", True, ("euler", "simple", 20, 1.0, 1024)),
        ("flux", "flux1-emoji-Q8_0", False, ("euler", "simple", 4, 1.0, 128)),
        ("sd1", "v1-5-pruned-emaonly", False, ("dpmpp_2m", None, 20, 7.0, 512)),
        ("sd2", "v2-1_768-ema-pruned", False, ("dpmpp_2m", None, 20, 7.0, 768)),
        ("sdxl", "sd_xl_base_1.0", False, ("dpmpp_2m", None, 20, 7.0, 1024)),
        ("sdxl", "sd_xl_turbo_1.0_fp16", False, ("euler_ancestral", "sgm_uniform", 1, 1.0, 512)),
        ("sdxl", "sdxl-turbo-Q8_0", False, ("euler_ancestral", "sgm_uniform", 1, 1.0, 512)),
        ("sd2", "sd_turbo", False, ("euler_ancestral", "sgm_uniform", 1, 1.0, 512)),
        ("sdxl", "DreamShaperXL_Turbo_v2", False, ("euler", "sgm_uniform", 4, 1.0, 1024)),
        ("sdxl", "RealVisXL_V4.0_Lightning", False, ("euler", "sgm_uniform", 4, 1.0, 1024)),
        ("sd1", "dreamshaper_8LCM", False, ("lcm", "sgm_uniform", 4, 1.0, 512)),
    ],
)
def test_each_kind_of_model_gets_its_own(family: str, name: str, distilled: bool, expected: tuple[object, ...]) -> None:
    found = defaults(family, name, distilled=distilled)
    assert (found.sampler, found.schedule, found.steps, found.cfg_scale, found.side) == expected
    assert found.sampler in SAMPLERS and (found.schedule is None or found.schedule in SCHEDULES)
