"""What a user can ask for, checked before anything starts."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from relight.errors import RequestError
from relight.sampling import latents, noise, samplers, sigmas

MAX_STEPS = 1000
MAX_BATCH = 64
MAX_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """The files of FLUX.1, each component in one file or several shards."""

    diffusion: tuple[Path, ...]
    clip_l: tuple[Path, ...]
    t5xxl: tuple[Path, ...]
    vae: tuple[Path, ...]
    t5_tokenizer: Path | None = None

    def of(self, component: str) -> tuple[Path, ...]:
        """The modulation is a part of the diffusion file."""
        paths: tuple[Path, ...] = getattr(self, "diffusion" if component == "modulation" else component)
        return paths


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """One prompt and `batch` pictures of it, with seeds counting up from `seed` (random when None).

    `guidance` is the distilled guidance of FLUX.1 dev; schnell takes none. `sigmas` overrides `schedule` and `steps`.
    `text_tokens` is T5's length: None takes what the model was made for, 256 for schnell and 512 for dev.
    """

    prompt: str
    width: int = 1024
    height: int = 1024
    steps: int | None = None
    seed: int | None = None
    rng: str = "cuda"
    guidance: float | None = None
    sampler: str = "euler"
    schedule: str = "simple"
    sigmas: Sequence[float] | None = None
    batch: int = 1
    text_tokens: int | None = None
    tile: int | None = None

    def __post_init__(self) -> None:
        latents.latent_shape(self.width, self.height)
        samplers.sampler(self.sampler)
        noise.rng(self.rng, 0)
        if self.sigmas is not None:
            sigmas.given(self.sigmas)
        elif self.schedule not in sigmas.SCHEDULES:
            raise RequestError(
                f"schedule: {self.schedule!r} is not one of {', '.join(sigmas.SCHEDULES)}; or give sigmas"
            )
        if self.steps is not None and not 1 <= self.steps <= MAX_STEPS:
            raise RequestError(f"steps {self.steps}: 1 to {MAX_STEPS}")
        if not 1 <= self.batch <= MAX_BATCH:
            raise RequestError(f"batch {self.batch}: 1 to {MAX_BATCH}")
        if self.seed is not None and not 0 <= self.seed <= MAX_SEED - self.batch:
            raise RequestError(f"seed {self.seed}: 0 to {MAX_SEED - self.batch}, or none for a random one")
        if self.guidance is not None and not (math.isfinite(self.guidance) and 0 <= self.guidance <= 100):
            raise RequestError(f"guidance {self.guidance}: 0 to 100")
        if self.tile is not None and not 16 <= self.tile <= 512:
            raise RequestError(f"vae tile size {self.tile}: 16 to 512 latent pixels (8 pixels of the picture each)")
        if self.text_tokens is not None and not 1 <= self.text_tokens <= 512:
            raise RequestError(f"text tokens {self.text_tokens}: 1 to 512")

    def with_seed(self) -> GenerateRequest:
        return self if self.seed is not None else replace(self, seed=random.randrange(2**32))
