"""A request with every default filled in for the model it goes to: sizes, sampler, noise levels of each pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from relight.errors import RequestError
from relight.jobs.checks import Checked
from relight.jobs.request import GenerateRequest
from relight.jobs.size import size_of
from relight.sampling import defaults, guidance, names, samplers, sigmas
from relight.sampling import latents as latent_space
from relight.sampling.parameterisation import Discrete, Flow

SCHNELL_TEXT_TOKENS, DEV_TEXT_TOKENS = 256, 512
DEV_GUIDANCE = 3.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """One run of the sampler. `levels` [steps + 1] are its sigmas, `width` and `height` pixels of its picture."""

    width: int
    height: int
    levels: np.ndarray
    space: Discrete | Flow

    @property
    def latent_size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height // latent_space.SCALE, self.width // latent_space.SCALE


@dataclass(frozen=True, kw_only=True, eq=False)
class Settled:
    """What will be done: `passes` of the sampler, the second one where the picture is made larger. `steps` are those
    of a whole first pass, of which one that begins from a picture takes the last."""

    request: GenerateRequest
    passes: tuple[Pass, ...]
    steps: int
    sampler: str
    schedule: str
    cfg_scale: float
    clip_skip: int
    guidance: float | None
    text_tokens: int

    @property
    def rows(self) -> int:
        """Times the backbone is asked for each picture at each level."""
        return 2 if guidance.needs_negative(self.cfg_scale) else 1

    def evaluated(self, which: Pass) -> list[float]:
        """Every noise level at which the sampler asks the backbone, once each."""
        return samplers.evaluated_levels(self.sampler, which.levels, which.space)


def settle(request: GenerateRequest, checked: Checked) -> Settled:
    """Raises RequestError for what the model cannot do."""
    files, flux = checked.files, checked.flux
    family, distilled = files.family, bool(flux and flux.guidance_embed)
    usual = defaults.defaults(family.name, files.name, distilled=distilled)
    named = names.sampler(request.sampler) if request.sampler else None
    sampler = named.name if named else usual.sampler
    asked = names.schedule(request.schedule) if request.schedule else None
    schedule = asked or (named and named.schedule) or usual.schedule or names.automatic(sampler)
    width, height = size_of(request, family.name, usual.side)
    latent_space.latent_shape(family.name, width, height)
    checked.check_controlnets(control.path for control in request.controls)

    def sized(width: int, height: int, steps: int, strength: float) -> Pass:
        space = space_of(checked, width, height)
        if request.sigmas is not None:
            levels = sigmas.given(request.sigmas, space)
        else:
            discard = samplers.sampler(sampler).discard_penultimate
            levels = sigmas.schedule(schedule, steps, space, discard_penultimate=discard)
        if strength < 1:
            levels = sigmas.truncate(levels, strength)
        return Pass(width=width, height=height, levels=levels, space=space)

    steps = request.steps or usual.steps
    if request.sigmas is not None:
        steps = sum(level > 0 for level in request.sigmas)
    passes = [sized(width, height, steps, request.redraw.strength if request.redraw else 1.0)]
    if request.hires is not None:
        wide, high = (larger(family.name, side, request.hires.scale) for side in (width, height))
        passes.append(sized(wide, high, request.hires.steps or steps, request.hires.strength))
    return Settled(
        request=request,
        passes=tuple(passes),
        steps=steps,
        sampler=sampler,
        schedule=schedule,
        cfg_scale=request.cfg_scale if request.cfg_scale is not None else usual.cfg_scale,
        clip_skip=request.clip_skip or family.clip_skip,
        guidance=guidance_of(request, distilled),
        text_tokens=request.text_tokens or (DEV_TEXT_TOKENS if distilled else SCHNELL_TEXT_TOKENS),
    )


def larger(family: str, side: int, scale: float) -> int:
    """A side of the second pass, in pixels. Raises RequestError where it is more than can be made."""
    wanted = round(side * scale)
    if wanted > latent_space.LARGEST:
        raise RequestError(
            f"hires scale {scale:g}: {side} pixels become {wanted}, and {latent_space.LARGEST} are the most; "
            f"take at most {latent_space.LARGEST / side:g}, or --upscale"
        )
    return latent_space.nearest(family, wanted)


def space_of(checked: Checked, width: int, height: int) -> Discrete | Flow:
    if checked.flux is not None:
        shifted = checked.flux.guidance_embed
        return Flow(sigmas.flux_mu(latent_space.image_tokens(width, height)) if shifted else 0.0)
    return Discrete(checked.prediction or "eps", family=checked.files.family.name)


def guidance_of(request: GenerateRequest, distilled: bool) -> float | None:
    """The distilled guidance in force; None for a model that takes none."""
    if not distilled:
        return None
    return DEV_GUIDANCE if request.guidance is None else request.guidance
