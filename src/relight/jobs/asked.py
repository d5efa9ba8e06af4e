"""A request as JSON, with its pictures beside it by name: what a queue keeps and another program sends."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from relight.errors import RequestError
from relight.images.read import read_image, read_mask
from relight.jobs.request import Control, GenerateRequest, Hires, Lora, ModelFiles, Redraw

PLAIN: dict[str, type | tuple[type, ...]] = {
    "prompt": str,
    "negative_prompt": str,
    "width": int,
    "height": int,
    "steps": int,
    "seed": int,
    "rng": str,
    "guidance": (int, float),
    "cfg_scale": (int, float),
    "cfg_rescale": (int, float),
    "clip_skip": int,
    "sampler": str,
    "schedule": str,
    "batch": int,
    "text_tokens": int,
    "tile": int,
    "upscale": (int, float),
    "decode_with": str,
    "preview_every": int,
}
REDRAW: dict[str, type | tuple[type, ...]] = {
    "image": str,
    "mask": str,
    "strength": (int, float),
    "fit": str,
    "mask_blur": (int, float),
    "fill": str,
    "only_masked": bool,
    "padding": int,
}
HIRES: dict[str, type | tuple[type, ...]] = {
    "scale": (int, float),
    "steps": int,
    "strength": (int, float),
    "upscaler": str,
}
LORA: dict[str, type | tuple[type, ...]] = {"name": str, "weight": (int, float), "text_weight": (int, float)}
CONTROL: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "image": str,
    "strength": (int, float),
    "start": (int, float),
    "end": (int, float),
    "canny": list,
}
NESTED = ("sigmas", "redraw", "hires", "loras", "controls")
FIELDS = (*PLAIN, *NESTED)
"""What a request may have; `image` and `mask` inside name one of the pictures sent with it."""


def request_of(
    asked: Mapping[str, Any], inputs: Mapping[str, bytes], files: ModelFiles | None = None
) -> GenerateRequest:
    """Raises RequestError that names the field, for what is unknown, of another type, or cannot be done.

    `files` have the ControlNets that may be named; paths are never taken from a request.
    """
    values = fields("", asked, PLAIN, NESTED)
    if "prompt" not in values:
        raise RequestError("prompt: is missing")
    if asked.get("sigmas") is not None:
        values["sigmas"] = tuple(number("sigmas", value) for value in sequence("sigmas", asked["sigmas"]))
    if asked.get("redraw") is not None:
        values["redraw"] = redraw(asked["redraw"], inputs)
    if asked.get("hires") is not None:
        values["hires"] = Hires(**fields("hires.", asked["hires"], HIRES))
    values["loras"] = tuple(Lora(**fields("loras.", each, LORA)) for each in sequence("loras", asked.get("loras", [])))
    controls = sequence("controls", asked.get("controls", []))
    values["controls"] = tuple(control(each, inputs, files) for each in controls)
    return GenerateRequest(**values)


def pictures_named(asked: Mapping[str, Any]) -> list[str]:
    """Of a request that may not be checked yet: the pictures it names, each once."""
    parts = [asked.get("redraw"), *(asked.get("controls") or [])]
    names = [part.get(field) for part in parts if isinstance(part, Mapping) for field in ("image", "mask")]
    return list(dict.fromkeys(name for name in names if isinstance(name, str)))


def redraw(asked: Mapping[str, Any], inputs: Mapping[str, bytes]) -> Redraw:
    values = fields("redraw.", asked, REDRAW)
    if "image" not in values:
        raise RequestError("redraw.image: is missing; name the picture to begin from")
    values["image"] = read_image(picture("redraw.image", values["image"], inputs), "redraw.image")
    if "mask" in values:
        values["mask"] = read_mask(picture("redraw.mask", values["mask"], inputs), "redraw.mask")
    return Redraw(**values)


def control(asked: Mapping[str, Any], inputs: Mapping[str, bytes], files: ModelFiles | None) -> Control:
    values = fields("controls.", asked, CONTROL)
    there = files.controlnets if files else {}
    name = values.pop("model", None)
    if name not in there:
        near = difflib.get_close_matches(str(name), there, n=3) or sorted(there)[:3]
        raise RequestError(
            f"controls.model: no ControlNet {name!r}" + (f"; there are {', '.join(near)}" if near else "")
        )
    if "image" not in values:
        raise RequestError("controls.image: is missing; name the picture to follow")
    values["image"] = read_image(picture("controls.image", values["image"], inputs), "controls.image")
    if "canny" in values:
        if len(values["canny"]) != 2:
            raise RequestError("controls.canny: two thresholds, such as [100, 200]")
        low, high = (int(number("controls.canny", value)) for value in values["canny"])
        values["canny"] = (low, high)
    return Control(path=there[name], **values)


def picture(field: str, name: str, inputs: Mapping[str, bytes]) -> bytes:
    if name not in inputs:
        raise RequestError(f"{field}: no picture {name!r} came with the request")
    return inputs[name]


def fields(
    path: str, asked: Any, known: Mapping[str, type | tuple[type, ...]], others: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Those that are given and not null, checked by name and type."""
    if not isinstance(asked, Mapping):
        raise RequestError(f"{path.rstrip('.') or 'request'}: is no object")
    for name in asked:
        if name not in known and name not in others:
            near = difflib.get_close_matches(str(name), [*known, *others], n=1)
            raise RequestError(f"{path}{name}: is not known" + (f"; did you mean {near[0]}?" if near else ""))
    given = {name: value for name, value in asked.items() if name in known and value is not None}
    for name, value in given.items():
        wanted = known[name]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise RequestError(f"{path}{name}: {value!r} is no {_word(wanted)}")
    return given


def sequence(field: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise RequestError(f"{field}: is no list")
    return value


def number(field: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RequestError(f"{field}: {value!r} is no number")
    return float(value)


def _word(wanted: type | tuple[type, ...]) -> str:
    return {str: "text", int: "whole number", bool: "true or false", list: "list"}.get(wanted, "number")  # type: ignore[arg-type]
