"""Names people type, and what becomes of them."""

from __future__ import annotations

import pytest

from relight.errors import RequestError
from relight.sampling import names
from relight.sampling.samplers import SAMPLERS
from relight.sampling.sigmas import SCHEDULES


@pytest.mark.parametrize("name", SAMPLERS)
def test_own_names_are_kept(name: str) -> None:
    assert names.sampler(name) == (name, None)


@pytest.mark.parametrize("name", SCHEDULES)
def test_own_schedules_are_kept(name: str) -> None:
    assert names.schedule(name) == name


@pytest.mark.parametrize(
    ("name", "sampler", "schedule"),
    [
        ("Euler a", "euler_ancestral", None),
        ("Euler", "euler", None),
        ("LMS", "lms", None),
        ("Heun", "heun", None),
        ("DPM2", "dpm_2", None),
        ("DPM2 a Karras", "dpm_2_ancestral", "karras"),
        ("DPM++ 2S a", "dpmpp_2s_ancestral", None),
        ("DPM++ 2M", "dpmpp_2m", None),
        ("DPM++ 2M Karras", "dpmpp_2m", "karras"),
        ("DPM++ SDE Karras", "dpmpp_sde", "karras"),
        ("DPM++ 2M SDE Exponential", "dpmpp_2m_sde", "exponential"),
        ("DPM++ 2M SDE Heun", "dpmpp_2m_sde_heun", None),
        ("DPM++ 3M SDE", "dpmpp_3m_sde", None),
        ("k_euler_a", "euler_ancestral", None),
        ("k_dpmpp_2m", "dpmpp_2m", None),
        ("k_dpm_2", "dpm_2", None),
        ("DDIM", "ddim", None),
        ("UniPC", "uni_pc", None),
        ("LCM", "lcm", None),
        ("euler_a", "euler_ancestral", None),
        ("dpm2", "dpm_2", None),
        ("dpm++2s_a", "dpmpp_2s_ancestral", None),
        ("dpm++2m", "dpmpp_2m", None),
        ("dpm++2mv2", "dpmpp_2m_v2", None),
        ("dpm++2m_sde", "dpmpp_2m_sde", None),
        ("ddim_trailing", "ddim", "simple"),
        ("dpmpp_2m_sde_gpu", "dpmpp_2m_sde", None),
        ("uni_pc_bh2", "uni_pc_bh2", None),
    ],
)
def test_samplers_by_the_names_of_others(name: str, sampler: str, schedule: str | None) -> None:
    found = names.sampler(name)
    assert (found.name, found.schedule) == (sampler, schedule)


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("Automatic", None),
        ("Uniform", "normal"),
        ("discrete", "normal"),
        ("Karras", "karras"),
        ("SGM Uniform", "sgm_uniform"),
        ("SGMUniform", "sgm_uniform"),
        ("KL Optimal", "kl_optimal"),
        ("Align Your Steps", "align_your_steps"),
        ("ays", "align_your_steps"),
        ("DDIM", "ddim_uniform"),
        ("Beta", "beta"),
    ],
)
def test_schedules_by_the_names_of_others(name: str, schedule: str | None) -> None:
    assert names.schedule(name) == schedule


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_has_a_schedule_by_itself(name: str) -> None:
    assert names.automatic(name) in SCHEDULES


def test_schedules_by_themselves_are_a1111s() -> None:
    chosen = {name: names.automatic(name) for name in ("dpmpp_2m", "dpmpp_3m_sde", "euler_ancestral", "ddim")}
    assert list(chosen.values()) == ["karras", "exponential", "normal", "ddim_uniform"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dpmpp_2n", "sampler: 'dpmpp_2n' is not one of euler, .*; did you mean dpmpp_2m"),
        ("", "sampler: '' is not one of euler"),
        ("DPM adaptive", "sampler: 'DPM adaptive' is not made: it chooses its own number of steps; dpmpp_2m"),
        ("euler_cfg_pp", "is not made: CFG"),
        ("++", "sampler: .* is not one of"),
    ],
)
def test_unknown_samplers_are_refused_with_what_is_near(name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        names.sampler(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("karas", "schedule: 'karas' is not one of normal, .*; did you mean karras"),
        ("gits", "schedule: 'gits' is not made: its tables were searched for single models; align_your_steps"),
    ],
)
def test_unknown_schedules_are_refused_with_what_is_near(name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        names.schedule(name)
