"""Samplers and schedules by the names people know: ComfyUI's, A1111's, stable-diffusion.cpp's and ours."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from relight.errors import RequestError
from relight.sampling.samplers import SAMPLERS
from relight.sampling.sigmas import SCHEDULES

# As written without spaces, hyphens, underscores and a leading k, in small letters, ++ as pp.
SAMPLER_ALIASES = {
    "eulera": "euler_ancestral",
    "dpm2a": "dpm_2_ancestral",
    "dpmpp2sa": "dpmpp_2s_ancestral",
    "dpmppsdegpu": "dpmpp_sde",
    "dpmpp2msdegpu": "dpmpp_2m_sde",
    "dpmpp2msdeheungpu": "dpmpp_2m_sde_heun",
    "dpmpp3msdegpu": "dpmpp_3m_sde",
    "unipcbh1": "uni_pc",
}
SCHEDULE_ALIASES = {
    "discrete": "normal",
    "uniform": "normal",
    "sgm": "sgm_uniform",
    "ddim": "ddim_uniform",
    "ays": "align_your_steps",
    "alignyoursteps11": "align_your_steps",
}
# Names that carry a schedule with them; A1111 used to write both in one ("DPM++ 2M SDE Karras").
WITH_SCHEDULE = {"ddimtrailing": ("ddim", "simple")}
SUFFIXES = ("karras", "exponential")

REFUSED_SAMPLERS = {
    "dpmfast": "it chooses its own noise levels; dpmpp_2m is faster and follows the schedule",
    "dpmadaptive": "it chooses its own number of steps; dpmpp_2m with 20 to 30 steps comes to the same picture",
    "ddimcfgpp": "CFG++ needs both passes at every step apart; ddim is there without it",
    "eulercfgpp": "CFG++ needs both passes at every step apart; euler is there without it",
    "euleracfgpp": "CFG++ needs both passes at every step apart; euler_ancestral is there without it",
    "tcd": "its noise levels are those of one distilled model; lcm is the nearest",
    "dpmpp2msdebt": "its noise comes from a tree of its own; dpmpp_2m_sde is the same method",
}
REFUSED_SCHEDULES = {
    "gits": "its tables were searched for single models; align_your_steps is the nearest",
    "polyexponential": "it is exponential as it is usually set; take exponential",
    "lcm": "sgm_uniform is as good for lcm",
}

# A1111's "Automatic".
AUTOMATIC = {
    "dpmpp_2m": "karras",
    "dpmpp_2m_v2": "karras",
    "dpmpp_sde": "karras",
    "dpmpp_2s_ancestral": "karras",
    "dpm_2": "karras",
    "dpm_2_ancestral": "karras",
    "dpmpp_2m_sde": "exponential",
    "dpmpp_2m_sde_heun": "exponential",
    "dpmpp_3m_sde": "exponential",
    "ddim": "ddim_uniform",
    "lcm": "sgm_uniform",
}


class Named(NamedTuple):
    """A sampler by its own name, and the schedule that the name it was asked for carries, if it does."""

    name: str
    schedule: str | None


def sampler(name: str) -> Named:
    """Raises RequestError for unknown names, with those that are close, and for known ones relight has not."""
    key = _key(name)
    if key in WITH_SCHEDULE:
        return Named(*WITH_SCHEDULE[key])
    known = _keys(SAMPLERS, SAMPLER_ALIASES)
    if key in known:
        return Named(known[key], None)
    for suffix in SUFFIXES:
        if key.endswith(suffix) and key.removesuffix(suffix) in known:
            return Named(known[key.removesuffix(suffix)], suffix)
    raise _unknown("sampler", name, known, REFUSED_SAMPLERS)


def schedule(name: str) -> str | None:
    """None for A1111's "Automatic", which depends on the sampler. Raises RequestError as `sampler` does."""
    key = _key(name)
    if key in ("automatic", "auto"):
        return None
    known = _keys(SCHEDULES, SCHEDULE_ALIASES)
    if key in known:
        return known[key]
    raise _unknown("schedule", name, known, REFUSED_SCHEDULES)


def automatic(sampler: str) -> str:
    """The schedule A1111 takes with a sampler, by its own name, for UNets that were not distilled."""
    return AUTOMATIC.get(sampler, "normal")


def _key(name: str) -> str:
    plain = "".join(letter for letter in name.lower().replace("++", "pp") if letter not in " _-")
    return plain[1:] if plain.startswith(("keuler", "kheun", "kdpm", "klms")) else plain


def _keys(names: Iterable[str], aliases: Mapping[str, str]) -> dict[str, str]:
    return {_key(name): name for name in names} | dict(aliases)


def _unknown(kind: str, name: str, known: Mapping[str, str], refused: Mapping[str, str]) -> RequestError:
    key = _key(name)
    if key in refused:
        return RequestError(f"{kind}: {name!r} is not made: {refused[key]}")
    close = dict.fromkeys(known[match] for match in difflib.get_close_matches(key, known, n=3))
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return RequestError(f"{kind}: {name!r} is not one of {', '.join(dict.fromkeys(known.values()))}{hint}")
