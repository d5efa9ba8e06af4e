"""Bodies of relight's own routes. Unlike those of others' dialects, they know no key that is not here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from relight.gateway.openai.image_shapes import LARGEST, MOST_SEED, SMALLEST, Prompt, Word

Strength = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=SMALLEST, le=LARGEST)]
InputName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9_]+$")]
FileName = Annotated[str, Field(min_length=1, max_length=256)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class RedrawBody(Strict):
    """A picture to begin from; `image` and `mask` name inputs."""

    image: InputName
    mask: InputName | None = None
    strength: Strength | None = None
    fit: Literal["stretch", "crop", "fill"] | None = None
    mask_blur: float | None = Field(None, ge=0, le=256)
    fill: Literal["fill", "original", "latent_noise", "latent_nothing"] | None = None
    only_masked: bool | None = None
    padding: int | None = Field(None, ge=0, le=1024)


class HiresBody(Strict):
    """A second pass over the picture made larger."""

    scale: float | None = Field(None, ge=1, le=8)
    steps: int | None = Field(None, ge=1, le=1000)
    strength: Strength | None = None
    upscaler: Word | None = None


class LoraBody(Strict):
    """A LoRA by its name, which is no path."""

    name: FileName
    weight: float | None = Field(None, ge=-20, le=20)
    text_weight: float | None = Field(None, ge=-20, le=20)


class ControlBody(Strict):
    """A ControlNet by its name, and the input it follows."""

    model: FileName
    image: InputName
    strength: float | None = Field(None, ge=0, le=10)
    start: Strength | None = None
    end: Strength | None = None
    canny: Annotated[list[Annotated[int, Field(ge=0, le=65_535)]], Field(min_length=2, max_length=2)] | None = None


class RequestBody(Strict):
    """A picture in relight's own words."""

    prompt: Prompt
    negative_prompt: Prompt | None = None
    width: Side | None = None
    height: Side | None = None
    steps: int | None = Field(None, ge=1, le=1000)
    seed: int | None = Field(None, ge=0, le=MOST_SEED)
    rng: Word | None = None
    guidance: float | None = Field(None, ge=0, le=100)
    cfg_scale: float | None = Field(None, ge=0, le=100)
    cfg_rescale: Strength | None = None
    clip_skip: int | None = Field(None, ge=1, le=12)
    sampler: Word | None = None
    schedule: Word | None = None
    sigmas: Annotated[list[float], Field(min_length=2, max_length=1001)] | None = None
    batch: int | None = Field(None, ge=1, le=64)
    text_tokens: int | None = Field(None, ge=1, le=512)
    tile: int | None = Field(None, ge=16, le=512)
    redraw: RedrawBody | None = None
    hires: HiresBody | None = None
    loras: Annotated[list[LoraBody], Field(max_length=32)] | None = None
    controls: Annotated[list[ControlBody], Field(max_length=8)] | None = None
    upscale: float | None = Field(None, ge=1, le=8)
    decode_with: Literal["vae", "taesd"] | None = None
    preview_every: int | None = Field(None, ge=0, le=1000)


class JobBody(Strict):
    """POST /api/jobs."""

    model: Annotated[str, Field(max_length=256)] | None = Field(None, description="none: the only image model")
    request: RequestBody
    inputs: Annotated[dict[InputName, str], Field(max_length=16)] = Field(
        default_factory=dict, description="pictures by name: data URLs or plain base64 of PNG, JPEG or WebP"
    )
    priority: int = Field(0, ge=-10, le=10, description="higher ones run first")


class UnloadBody(Strict):
    """POST /api/unload."""

    model: Annotated[str, Field(min_length=1, max_length=256)]


class PlanBody(Strict):
    """POST /api/plan."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    width: Side | None = None
    height: Side | None = None
    steps: int | None = Field(None, ge=1, le=1000)
    batch: int = Field(1, ge=1, le=64)
    context: int | None = Field(None, ge=1, le=1 << 22, description="tokens of a conversation")
