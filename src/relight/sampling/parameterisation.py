"""How a network's output, the noise level and the timestep it is told belong together, for UNets and for flow models.

x is what a sampler holds at noise level sigma: picture + sigma * noise for `Discrete`, (1 - sigma) * picture +
sigma * noise for `Flow`. In both, (x - picture) / sigma is the slope of x over sigma.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np

from relight.errors import RequestError

BETA_FIRST, BETA_LAST = 0.00085, 0.012  # of Stable Diffusion 1.x, 2.x and XL
TIMESTEPS = 1000
ZERO_SNR_ALPHA = 4.8973451890853435e-08  # instead of 0, whose sigma is infinite
PREDICTIONS = ("eps", "v")
FLOW_LEVELS = 1000, 10000  # sigmas of the table without a shift and with one, as ComfyUI has them for schnell and dev


class Parameterisation(Protocol):
    flow: ClassVar[bool]

    @property
    def family(self) -> str: ...

    @property
    def levels(self) -> np.ndarray:
        """The noise levels schedules choose from, low to high, float64."""

    @property
    def sigma_min(self) -> float: ...

    @property
    def sigma_max(self) -> float: ...

    def sigma_of(self, t: np.ndarray | float) -> np.ndarray:
        """The sigma at a place of the schedule: 0 to 999 for UNets, 0 to 1 for flow models; fractions between."""

    def timestep(self, sigma: float) -> float:
        """What the network is told at `sigma`."""

    def input_scale(self, sigma: float) -> float:
        """What x is multiplied by before the network sees it."""

    def denoised(self, x: np.ndarray, output: np.ndarray, sigma: float) -> np.ndarray:
        """The picture that x (not scaled) is taken for, where the network's output is `output`."""

    def noisy(self, latents: np.ndarray, noise: np.ndarray, sigma: float) -> np.ndarray:
        """x at `sigma` of a picture's latents."""

    def half_log_snr(self, sigma: float) -> float:
        """log(share of the picture / share of the noise) in x: falls with sigma; infinite at 0."""

    def sigma_at(self, half_log_snr: float) -> float:
        """The inverse of `half_log_snr`."""


@dataclass(frozen=True)
class Discrete:
    """UNets, trained on 1000 noise levels. `prediction`: `eps` (noise) or `v`; `zero_snr`: betas rescaled so that the
    last level is all noise (Lin et al. 2023); `family` chooses between tables of steps. Raises RequestError."""

    prediction: str = "eps"
    zero_snr: bool = False
    family: str = "sd1"

    flow: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise RequestError(f"prediction: {self.prediction!r} is not one of {', '.join(PREDICTIONS)}")

    @cached_property
    def levels(self) -> np.ndarray:
        betas = np.linspace(BETA_FIRST**0.5, BETA_LAST**0.5, TIMESTEPS) ** 2
        alphas = np.cumprod(1 - betas)
        if self.zero_snr:
            roots = np.sqrt(alphas)
            alphas = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
            alphas[-1] = ZERO_SNR_ALPHA
        levels: np.ndarray = np.sqrt((1 - alphas) / alphas)
        return levels

    @cached_property
    def _log_levels(self) -> np.ndarray:
        return np.log(self.levels)

    @property
    def sigma_min(self) -> float:
        return float(self.levels[0])

    @property
    def sigma_max(self) -> float:
        return float(self.levels[-1])

    def sigma_of(self, t: np.ndarray | float) -> np.ndarray:
        return np.exp(np.interp(t, np.arange(TIMESTEPS), self._log_levels))

    def timestep(self, sigma: float) -> float:
        """The place in the table, with fractions by log sigma; 0 and 999 beyond its ends."""
        return float(np.interp(math.log(sigma), self._log_levels, np.arange(TIMESTEPS)))

    def input_scale(self, sigma: float) -> float:
        return 1 / math.sqrt(sigma**2 + 1)

    def denoised(self, x: np.ndarray, output: np.ndarray, sigma: float) -> np.ndarray:
        if self.prediction == "eps":
            return x - sigma * output
        return x / (sigma**2 + 1) - output * (sigma / math.sqrt(sigma**2 + 1))

    def noisy(self, latents: np.ndarray, noise: np.ndarray, sigma: float) -> np.ndarray:
        return latents + noise * sigma

    def half_log_snr(self, sigma: float) -> float:
        return -math.log(sigma) if sigma else math.inf

    def sigma_at(self, half_log_snr: float) -> float:
        return math.exp(-half_log_snr)


@dataclass(frozen=True)
class Flow:
    """Flow models, whose output points from picture to noise and whose timestep is sigma. Schedules lean towards noise
    by e^`mu` (Esser et al. 2024, "Scaling rectified flow transformers"); 0 is none."""

    mu: float = 0.0
    family: str = "flux"

    flow: ClassVar[bool] = True
    sigma_max: ClassVar[float] = 1.0

    @cached_property
    def levels(self) -> np.ndarray:
        count = FLOW_LEVELS[self.mu != 0]
        return self.sigma_of(np.arange(1, count + 1) / count)

    @property
    def sigma_min(self) -> float:
        return float(self.levels[0])

    def sigma_of(self, t: np.ndarray | float) -> np.ndarray:
        """e^mu / (e^mu + 1/t - 1), written for 0 too."""
        shift, time = math.exp(self.mu), np.asarray(t, np.float64)
        sigma: np.ndarray = shift * time / (1 + (shift - 1) * time)
        return sigma

    def timestep(self, sigma: float) -> float:
        return sigma

    def input_scale(self, sigma: float) -> float:
        return 1.0

    def denoised(self, x: np.ndarray, output: np.ndarray, sigma: float) -> np.ndarray:
        return x - sigma * output

    def noisy(self, latents: np.ndarray, noise: np.ndarray, sigma: float) -> np.ndarray:
        return latents * (1 - sigma) + noise * sigma

    def half_log_snr(self, sigma: float) -> float:
        if not 0 < sigma < 1:
            return math.inf if sigma <= 0 else -math.inf
        return math.log((1 - sigma) / sigma)

    def sigma_at(self, half_log_snr: float) -> float:
        return 1 / (1 + math.exp(half_log_snr))


KINDS: dict[str, type[Discrete] | type[Flow]] = {"discrete": Discrete, "flow": Flow}


def of(values: Mapping[str, Any]) -> Discrete | Flow:
    """From {"kind": "discrete" or "flow", and the fields that are not the usual ones}, as `values_of` gives them."""
    fields = dict(values)
    return KINDS[fields.pop("kind")](**fields)


def values_of(parameterisation: Discrete | Flow) -> dict[str, Any]:
    """What `of` makes it from again, for a message."""
    return {"kind": "flow" if parameterisation.flow else "discrete", **asdict(parameterisation)}
