"""A sampler's way from noise to picture: its noise levels, its source of noise, and what it remembers of steps done."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from relight.sampling.parameterisation import Parameterisation

BELOW_ALL_NOISE = 1 - 1e-4  # where methods in log SNR begin instead of a flow model's sigma 1, as in ComfyUI


class Model(Protocol):
    def __call__(self, x: np.ndarray, sigma: float, /) -> np.ndarray:
        """The picture that x at `sigma` is taken for, of x's shape."""


class Ancestral(NamedTuple):
    """A step with fresh noise: to sigma `down`, then x * keep + noise * up is at the next sigma."""

    down: float
    keep: float
    up: float


@dataclass
class Course:
    """One run of a sampler; x are all its pictures' latents. `draw` gives standard normal noise of x's shape.

    `eta` is how much of a step's noise is fresh: None takes the sampler's usual, 0 none, 1 as much as there is.
    `s_noise` multiplies it. `history` (newest last) and `corrected` are what methods of several steps remember.
    """

    sigmas: Sequence[float]
    draw: Callable[[], np.ndarray]
    space: Parameterisation
    eta: float | None = None
    s_noise: float = 1.0
    history: list[np.ndarray] = field(default_factory=list)
    corrected: np.ndarray | None = None
    drawn: int = 0

    def __post_init__(self) -> None:
        self.sigmas = [float(sigma) for sigma in self.sigmas]

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    def interval(self, i: int) -> tuple[float, float]:
        """The sigmas step `i` begins and ends at."""
        return self.sigmas[i], self.sigmas[i + 1]

    def below_one(self, i: int) -> float:
        """Sigma number `i`; a flow model's 1, where log SNR is infinite, becomes a little less."""
        sigma = self.sigmas[i]
        if not (self.space.flow and sigma >= 1):
            return sigma
        following = self.sigmas[i + 1] if i < self.steps else 0.0
        return max(float(self.space.sigma_of(BELOW_ALL_NOISE)), (1 + following) / 2)

    def half_log_snr(self, i: int) -> float:
        return self.space.half_log_snr(self.below_one(i))

    def fresh(self, usual: float = 1.0) -> float:
        """Eta, for a sampler whose usual is `usual`."""
        return usual if self.eta is None else self.eta

    def noise(self) -> np.ndarray:
        self.drawn += 1
        return self.draw()

    def with_noise(self, x: np.ndarray, split: Ancestral) -> np.ndarray:
        return x * split.keep + self.noise() * (split.up * self.s_noise) if split.up else x

    def ancestral(self, i: int, eta: float) -> Ancestral:
        sigma, target = self.interval(i)
        return flow_ancestral(sigma, target, eta) if self.space.flow else ancestral(sigma, target, eta)

    def remember(self, latents: np.ndarray, keep: int) -> None:
        """Add to the history, of which the newest `keep` stay."""
        self.history = [*self.history, latents][-keep:]

    def state(self) -> dict[str, np.ndarray]:
        """What a later `restore` needs beside x and the number of the next step, to go on as if nothing had been."""
        state = {f"history.{age}": latents for age, latents in enumerate(self.history)}
        if self.corrected is not None:
            state["corrected"] = self.corrected
        return state | {"drawn": np.array(self.drawn)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Into a course made as the first one was: noise that had been drawn is drawn again and dropped."""
        count = sum(name.startswith("history.") for name in state)
        self.history = [state[f"history.{age}"] for age in range(count)]
        self.corrected = state.get("corrected")
        while self.drawn < int(state["drawn"]):
            self.noise()


def ancestral(sigma: float, target: float, eta: float) -> Ancestral:
    """The variance at `target` is that at `down` and that of the fresh noise (k-diffusion; Song et al. 2020, "Denoising
    diffusion implicit models", eq. 16)."""
    if not eta:
        return Ancestral(target, 1.0, 0.0)
    up = min(target, eta * math.sqrt(target**2 * (sigma**2 - target**2) / sigma**2))
    return Ancestral(math.sqrt(target**2 - up**2), 1.0, up)


def flow_ancestral(sigma: float, target: float, eta: float) -> Ancestral:
    """For flow models, where picture and noise have to add up to one as well; as in ComfyUI. More than 1 is 1."""
    if not eta or not target:
        return Ancestral(target, 1.0, 0.0)
    down = target * (1 + (target / sigma - 1) * min(eta, 1.0))
    keep = (1 - target) / (1 - down)
    return Ancestral(down, keep, math.sqrt(max(target**2 - (down * keep) ** 2, 0.0)))


def toward(x: np.ndarray, denoised: np.ndarray, ratio: float) -> np.ndarray:
    """x moved along the line to `denoised` until `ratio` of the way is left: to sigma * ratio."""
    return denoised + (x - denoised) * ratio
