"""Settings inside a picture as A1111 writes them, so that it and the many programs that read its pictures read ours.

The prompt, a line that begins "Negative prompt:", then one line of `Name: value` pairs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

NEGATIVE = "Negative prompt:"
FEWEST = 3
"""A last line with fewer settings is part of the prompt."""
SETTING = re.compile(r'\s*([\w ./+-]+):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')

SAMPLERS = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "dpm2": "DPM2",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "lcm": "LCM",
    "ddim": "DDIM",
    "uni_pc": "UniPC",
    "res_multistep": "Res Multistep",
}
SCHEDULES = {
    "normal": "Normal",
    "simple": "Simple",
    "karras": "Karras",
    "exponential": "Exponential",
    "sgm_uniform": "SGM Uniform",
    "beta": "Beta",
    "ddim_uniform": "DDIM",
    "align_your_steps": "Align Your Steps",
}
"""Our names and A1111's, for `Sampler` and `Schedule type`."""


def infotext(prompt: str, negative_prompt: str, settings: Mapping[str, object]) -> str:
    """`settings` by A1111's names ("Steps", "CFG scale"), in their order; those that are None are left out."""
    line = ", ".join(f"{name}: {quoted(value)}" for name, value in settings.items() if value is not None)
    return "\n".join([prompt, *([f"{NEGATIVE} {negative_prompt}"] if negative_prompt else []), line])


def quoted(value: object) -> str:
    """As A1111 writes a value in which its separators occur."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c in text for c in ',:\n"') else text


def parse_parameters(text: str) -> dict[str, str]:
    """What A1111 or we wrote: "Prompt", "Negative prompt" (both always there) and every setting by its name, as text.

    Anything may be passed: what holds no settings is a prompt.
    """
    above, _, last = text.strip().rpartition("\n")
    settings = {name.strip(): unquoted(value.strip()) for name, value in SETTING.findall(last)}
    if len(settings) < FEWEST:
        above, settings = text.strip(), {}
    prompt, negative = split_negative(above)
    return {"Prompt": prompt, "Negative prompt": negative} | settings


def split_negative(text: str) -> tuple[str, str]:
    """Before and after the first line that begins with the mark."""
    before, _, after = f"\n{text}".partition(f"\n{NEGATIVE}")
    return before.strip(), after.strip()


def unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value, strict=False))
    except ValueError:
        return value
