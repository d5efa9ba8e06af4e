"""Bodies of the routes that make pictures, with the ranges that are taken."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from relight.gateway.body import Body
from relight.gateway.problem import invalid

MOST_SEED = 2**53
SMALLEST, LARGEST = 64, 4096
Prompt = Annotated[str, Field(max_length=32_000)]
Size = Annotated[str, StringConstraints(pattern=r"^(auto|[0-9]{2,4}x[0-9]{2,4})$")]
Word = Annotated[str, Field(max_length=64)]


class Pictured(Body):
    """What all three have in common. `quality`, `background`, `style`, `moderation` and `user` are left alone."""

    model: Annotated[str, Field(max_length=256)] | None = Field(None, description="none: the only image model")
    n: int | None = Field(None, ge=1, le=10, description="how many pictures, with seeds counting up")
    size: Size | None = Field(None, description="WIDTHxHEIGHT in pixels, or auto: what the model is made for")
    response_format: Literal["b64_json", "url"] = "b64_json"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: int | None = Field(None, ge=0, le=100, description="quality of JPEG and WebP")
    stream: bool | None = Field(None, description="answer by server-sent events")
    partial_images: int | None = Field(None, ge=0, le=3, description="pictures on the way, of a stream")
    steps: int | None = Field(None, ge=1, le=1000)
    seed: int | None = Field(None, ge=-1, le=MOST_SEED, description="-1 or none: a random one")
    negative_prompt: Prompt | None = None
    cfg_scale: float | None = Field(None, ge=0, le=100)
    guidance: float | None = Field(None, ge=0, le=100, description="distilled guidance, of FLUX.1 dev")
    sampler: Word | None = None
    schedule: Word | None = None
    clip_skip: int | None = Field(None, ge=1, le=12)

    @property
    def pixels(self) -> tuple[int, int] | None:
        """Width and height asked for. Raises Problem for a side that no model makes."""
        if self.size is None or self.size == "auto":
            return None
        width, height = map(int, self.size.split("x"))
        if not (SMALLEST <= width <= LARGEST and SMALLEST <= height <= LARGEST):
            raise invalid("size", f"each side is {SMALLEST} to {LARGEST} pixels")
        return width, height


class ImageBody(Pictured):
    """POST /v1/images/generations."""

    prompt: Prompt


class EditBody(Pictured):
    """POST /v1/images/edits: a form; the picture is the file `image` (or `image[]`), `mask` is transparent where to
    paint."""

    prompt: Prompt = ""
    strength: float | None = Field(None, ge=0, le=1, description="how much is redone: 0.75; with a mask 1")


class VariationBody(Pictured):
    """POST /v1/images/variations: a form with the file `image`."""

    prompt: Prompt = ""
    strength: float | None = Field(None, ge=0, le=1, description="how much is redone: 0.6")
