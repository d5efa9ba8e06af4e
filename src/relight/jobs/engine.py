"""How pictures are made, as opposed to what is made: what the user set, and the environment that workers get of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from relight.executors.base import CompileOptions
from relight.jobs.budgets import Budget
from relight.jobs.conditioning import DEFAULT_BYTES, ConditioningCache
from relight.planner.profiles import Profile
from relight.tuning import pipelines
from relight.workers.patience import DEFAULT_S


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How to run, as opposed to what to make.

    `backend` as `--backend` takes it; `max_vram_bytes` bounds what is allocated on the GPU; `threads` of each CPU
    executor (None: physical cores); `profile` is a card to pretend to have. `check_results` looks at what comes out.
    `nodes_per_submit` bounds the operations that a GPU gets at a time (None: as suits the card).
    `gpu` is the card to use where components are not sent to one by name; `max_vram_share` what part of its memory may
    be filled. `budgets` bound single components, `largest_tile` the autoencoder's tiles in latent pixels.
    `conditioning_folder` keeps what text encoders gave, up to `conditioning_bytes`; None keeps nothing. `tuning` is the
    folder of what `relight warm` measured; with it drivers keep their pipelines where that put them. `hang_s` is how
    long a worker may be silent (relight.workers.patience), 0 for ever.
    """

    backend: str | None = None
    max_vram_bytes: int | None = None
    threads: int | None = None
    options: CompileOptions = CompileOptions()
    profile: Profile | None = None
    check_results: bool = True
    nodes_per_submit: int | None = None
    gpu: str | None = None
    max_vram_share: float | None = None
    budgets: tuple[Budget, ...] = ()
    largest_tile: int | None = None
    conditioning_folder: Path | None = None
    conditioning_bytes: int = DEFAULT_BYTES
    tuning: Path | None = None
    hang_s: float = DEFAULT_S

    def environment(self, tuned: Mapping[str, str] | None = None) -> dict[str, str]:
        """Of the workers, where the user has not set it; `tuned` is what was found to be quicker."""
        environment = pipelines.environment() if self.tuning is not None else {}
        if self.profile is not None:
            environment |= self.profile.environment
        environment |= tuned or {}
        if self.nodes_per_submit is not None:
            environment["GGML_VK_MAX_NODES_PER_SUBMIT"] = str(self.nodes_per_submit)
        return environment

    def cache(self) -> ConditioningCache | None:
        if self.conditioning_folder is None:
            return None
        return ConditioningCache(self.conditioning_folder, self.conditioning_bytes)
