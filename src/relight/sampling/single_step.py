"""Samplers that look at one step alone. Each takes x at sigma i of the course to sigma i + 1.

Names and formulas as in k-diffusion (Karras et al. 2022; Lu et al. 2022, "DPM-Solver++"), for flow models as in
ComfyUI.
"""

from __future__ import annotations

import math

import numpy as np

from relight.sampling.course import Course, Model, ancestral, toward


def euler(model: Model, x: np.ndarray, course: Course, i: int) -> np.ndarray:
    """Straight on."""
    sigma, target = course.interval(i)
    return toward(x, model(x, sigma), target / sigma)


def heun(model: Model, x: np.ndarray, course: Course, i: int) -> np.ndarray:
    """The mean of the slopes at both ends."""
    sigma, target = course.interval(i)
    denoised = model(x, sigma)
    ahead = toward(x, denoised, target / sigma)
    if not target:
        return ahead
    # x plus the mean slope, written so that large numbers do not cancel.
    return ahead + (denoised - model(ahead, target)) * ((target - sigma) / target / 2)


def dpm_2(model: Model, x: np.ndarray, course: Course, i: int) -> np.ndarray:
    """The slope in the middle, by log sigma."""
    sigma, target = course.interval(i)
    denoised = model(x, sigma)
    return _by_middle(model, x, denoised, sigma, target)


def euler_ancestral(model: Model, x: np.ndarray, course: Course, i: int, usual_eta: float = 1.0) -> np.ndarray:
    """Further than the next sigma, and back to it with fresh noise."""
    split = course.ancestral(i, course.fresh(usual_eta))
    sigma = course.sigmas[i]
    return course.with_noise(toward(x, model(x, sigma), split.down / sigma), split)


def ddim(model: Model, x: np.ndarray, course: Course, i: int) -> np.ndarray:
    """Song et al. 2020: in these terms the ancestral step, without fresh noise unless asked for."""
    return euler_ancestral(model, x, course, i, usual_eta=0.0)


def dpm_2_ancestral(model: Model, x: np.ndarray, course: Course, i: int) -> np.ndarray:
    split = course.ancestral(i, course.fresh())
    sigma = course.sigmas[i]
    return course.with_noise(_by_middle(model, x, model(x, sigma), sigma, split.down), split)


def _by_middle(model: Model, x: np.ndarray, denoised: np.ndarray, sigma: float, down: float) -> np.ndarray:
    if not down:
        return denoised
    middle = math.sqrt(sigma * down)
    change = denoised - model(toward(x, denoised, middle / sigma), middle)
    return toward(x, denoised, down / sigma) + change * ((down - sigma) / middle)  # written as in heun


def dpmpp_2s_ancestral(model: Model, x: np.ndarray, course: Course, i: int) -> np.ndarray:
    """What the picture is taken for in the middle, by log SNR, holds for the whole step."""
    split = course.ancestral(i, course.fresh())
    sigma, down = course.sigmas[i], split.down
    denoised = model(x, sigma)
    if down:
        middle = _middle(course, sigma, down)
        denoised = model(toward(x, denoised, middle / sigma), middle)
    return course.with_noise(toward(x, denoised, down / sigma), split)


def _middle(course: Course, sigma: float, down: float) -> float:
    space = course.space
    if space.flow and sigma >= 1:
        return 0.9999  # ComfyUI's, for the middle between here and infinity
    return space.sigma_at((space.half_log_snr(sigma) + space.half_log_snr(down)) / 2)


def dpmpp_sde(model: Model, x: np.ndarray, course: Course, i: int) -> np.ndarray:
    """As dpmpp_2s_ancestral with fresh noise on both halves, of one Brownian path over sigma."""
    sigma, target = course.below_one(i), course.sigmas[i + 1]
    denoised = model(x, sigma)
    if not target:
        return denoised
    space, noisy = course.space, course.fresh() > 0 and course.s_noise > 0
    start, end = space.half_log_snr(sigma), space.half_log_snr(target)
    middle = space.sigma_at((start + end) / 2)
    first = course.noise() if noisy else None
    halfway = _stochastic(course, x, denoised, sigma, middle, first)
    denoised = model(halfway, middle)
    if first is not None:
        share = (sigma - middle) / (sigma - target)
        first = first * math.sqrt(share) + course.noise() * math.sqrt(1 - share)
    return _stochastic(course, x, denoised, sigma, target, first)


def _stochastic(
    course: Course, x: np.ndarray, denoised: np.ndarray, sigma: float, target: float, noise: np.ndarray | None
) -> np.ndarray:
    """An ancestral step on x over its share of the picture, whose noise level is e^-(half log SNR)."""
    space = course.space
    begin, end = (math.exp(-space.half_log_snr(level)) for level in (sigma, target))
    split = ancestral(begin, end, course.fresh())
    out = toward(x * (begin / sigma), denoised, split.down / begin)
    if noise is not None:
        out = out + noise * (split.up * course.s_noise)
    return out * (target / end)


def lcm(model: Model, x: np.ndarray, course: Course, i: int) -> np.ndarray:
    """To the picture, and back up with fresh noise (Luo et al. 2023, "Latent consistency models")."""
    sigma, target = course.interval(i)
    denoised = model(x, sigma)
    return course.space.noisy(denoised, course.noise(), target) if target else denoised
