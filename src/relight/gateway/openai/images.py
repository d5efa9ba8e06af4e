"""POST /v1/images/generations, edits and variations."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from relight.gateway.body import File, form_body, json_body
from relight.gateway.catalogue import model_for
from relight.gateway.node import ImageAsk
from relight.gateway.openai.image_run import ImageRun
from relight.gateway.openai.image_shapes import EditBody, ImageBody, Pictured, VariationBody
from relight.gateway.pictures import painted_mask, size_of
from relight.gateway.problem import invalid
from relight.gateway.state import Answer, Call

EDIT_STRENGTH, MASKED_STRENGTH, VARIATION_STRENGTH = 0.75, 1.0, 0.6
PLAIN = ("steps", "negative_prompt", "cfg_scale", "guidance", "sampler", "schedule", "clip_skip")


async def generations(call: Call) -> Answer:
    body = await json_body(call, ImageBody)
    call.admit()
    if not body.prompt.strip():
        raise invalid("prompt", "is empty")
    return answer(call, body, {"prompt": body.prompt}, {}, "image_generation")


async def edits(call: Call) -> Answer:
    body, files = await form_body(call, EditBody)
    call.admit()
    limits = call.gateway.settings.limits
    inputs = {"image": the_image(files)}
    redraw: dict[str, Any] = {"image": "image", "strength": EDIT_STRENGTH}
    masks = [each.content for each in files if each.field == "mask"]
    if masks:
        inputs["mask"] = await asyncio.to_thread(painted_mask, masks[0], "mask", limits)
        redraw |= {"mask": "mask", "strength": MASKED_STRENGTH}
        if size_of(inputs["mask"], "mask", limits) != size_of(inputs["image"], "image", limits):
            raise invalid("mask", "has another size than the image")
    if body.strength is not None:
        redraw["strength"] = body.strength
    return answer(call, body, {"prompt": body.prompt, "redraw": redraw}, inputs, "image_edit")


async def variations(call: Call) -> Answer:
    body, files = await form_body(call, VariationBody)
    call.admit()
    strength = VARIATION_STRENGTH if body.strength is None else body.strength
    redraw = {"image": "image", "strength": strength}
    asked = {"prompt": body.prompt, "redraw": redraw}
    return answer(call, body, asked, {"image": the_image(files)}, "image_variation")


def the_image(files: Sequence[File]) -> bytes:
    images = [each.content for each in files if each.field in ("image", "image[]")]
    if not images:
        raise invalid("image", "is missing: send the picture as a file")
    if len(images) > 1:
        raise invalid("image", f"{len(images)} pictures were sent, and one can be edited at a time")
    return images[0]


def answer(call: Call, body: Pictured, asked: dict[str, Any], inputs: dict[str, bytes], event: str) -> Answer:
    limits = call.gateway.settings.limits
    model = model_for(call.gateway.node, body.model, "image")
    n = body.n or 1
    if "image" in inputs:
        size_of(inputs["image"], "image", limits)
    width, height = body.pixels or (None, None)
    if n > limits.output_pictures:
        raise invalid("n", f"more than {limits.output_pictures} pictures")
    if (width or 1) * (height or 1) * n > limits.output_pixels:
        raise invalid("size", f"n x width x height is more than {limits.output_pixels} pixels")
    request = {**asked, **{name: value for name in PLAIN if (value := getattr(body, name)) is not None}}
    request |= {"batch": n}
    if width is not None:
        request |= {"width": width, "height": height}
    if body.seed is not None and body.seed >= 0:
        request["seed"] = body.seed
    if body.stream and body.partial_images:
        request["preview_every"] = 1
    run = ImageRun(call, model.id, ImageAsk(request=request, inputs=inputs), body, event)
    return run.stream() if body.stream else run.whole()
