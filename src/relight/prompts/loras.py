"""LoRA tags: `<lora:name:0.8>`, `<lora:name:0.8:0.5>` and `<lora:name:te=0.8:unet=0.5>`."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from relight.errors import RequestError

TAG = re.compile(r"<(?:lora|lyco):([^<>]+)>", re.IGNORECASE)


class LoraTag(NamedTuple):
    """A LoRA by name, and how strongly it acts on the backbone and on the text encoders."""

    name: str
    backbone: float = 1.0
    text: float = 1.0


def take_loras(prompt: str) -> tuple[str, tuple[LoraTag, ...]]:
    """The prompt without its tags, and the tags in order.

    As in A1111 one number holds for both, of two the first is the text encoders' and the second the backbone's, and
    `te=` and `unet=` come before either. Raises RequestError for a tag with a number that is none.
    """
    tags: list[LoraTag] = []

    def taken(match: re.Match[str]) -> str:
        tags.append(tag(match[0], match[1]))
        return ""

    return TAG.sub(taken, prompt), tuple(tags)


def tag(whole: str, inside: str) -> LoraTag:
    name, *fields = (field.strip() for field in inside.split(":"))
    named = dict(field.split("=", 1) for field in fields if "=" in field)
    numbers = [field for field in fields if "=" not in field]
    if not name or len(numbers) > 2 or not named.keys() <= {"te", "unet"}:
        raise RequestError(f"{whole} is not understood; write <lora:name:0.8> or <lora:name:te=0.8:unet=0.5>")
    text = number(whole, named.get("te", numbers[0] if numbers else "1"))
    backbone = named.get("unet", numbers[1] if len(numbers) > 1 else None)
    return LoraTag(name, text if backbone is None else number(whole, backbone), text)


def number(whole: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RequestError(f"{whole}: {text!r} is not a number; write <lora:name:0.8>")
    return value
