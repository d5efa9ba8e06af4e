"""Samplers that remember: one evaluation a step, and the earlier ones tell how the picture changes.

Names and formulas as in k-diffusion and ComfyUI. On the first step of a course each is its first-order method.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from relight.sampling.course import Course, Model, toward

LMS_ORDER = 4
ONE = np.polynomial.Polynomial([1.0])

type Correction = Callable[[Course, int, np.ndarray, float, float], np.ndarray]
"""From course, i, denoised, and the step without and with noise in half log SNR: what the steps before add."""


def dpmpp_2m(model: Model, x: np.ndarray, course: Course, i: int) -> np.ndarray:
    """DPM-Solver++(2M) (Lu et al. 2022), in -log sigma for flow models too."""
    sigma, target = course.interval(i)
    denoised = guess = model(x, sigma)
    if course.history and target:
        slant = math.log(sigma / target) / math.log(course.sigmas[i - 1] / sigma) / 2
        guess = denoised + (denoised - course.history[-1]) * slant
    course.remember(denoised, 1)
    return toward(x, guess, target / sigma)


def dpmpp_2m_v2(model: Model, x: np.ndarray, course: Course, i: int) -> np.ndarray:
    """stable-diffusion.cpp's variant for few steps: as if both steps were equally long."""
    sigma, target = course.interval(i)
    denoised = model(x, sigma)
    if course.history and target:
        steps = math.log(sigma / target), math.log(course.sigmas[i - 1] / sigma)
        slant = min(steps) / max(steps) / 2
        guess = denoised + (denoised - course.history[-1]) * slant
        out = x * (target / sigma) - guess * math.expm1(-sum(steps) / 2)
    else:
        out = toward(x, denoised, target / sigma)
    course.remember(denoised, 1)
    return out


def dpmpp_2m_sde(model: Model, x: np.ndarray, course: Course, i: int) -> np.ndarray:
    return _dpmpp_sde(model, x, course, i, _midpoint)


def dpmpp_2m_sde_heun(model: Model, x: np.ndarray, course: Course, i: int) -> np.ndarray:
    return _dpmpp_sde(model, x, course, i, _heun)


def dpmpp_3m_sde(model: Model, x: np.ndarray, course: Course, i: int) -> np.ndarray:
    return _dpmpp_sde(model, x, course, i, _third_order)


def _dpmpp_sde(model: Model, x: np.ndarray, course: Course, i: int, correction: Correction) -> np.ndarray:
    """DPM-Solver++ for the stochastic equation, in half log SNR."""
    sigma, target = course.below_one(i), course.sigmas[i + 1]
    denoised = model(x, sigma)
    out = denoised
    if target:
        eta = course.fresh()
        step = course.half_log_snr(i + 1) - course.half_log_snr(i)
        alpha = target * math.exp(course.half_log_snr(i + 1))  # the picture's share in x
        whole = step * (eta + 1)
        out = x * (target / sigma * math.exp(-step * eta)) - denoised * (alpha * math.expm1(-whole))
        if course.history:
            out = out + correction(course, i, denoised, step, whole) * alpha
        if eta and course.s_noise:
            out = out + course.noise() * (target * math.sqrt(-math.expm1(-2 * step * eta)) * course.s_noise)
    course.remember(denoised, 2)
    return out


def _length(course: Course, i: int, back: int) -> float:
    """Of the step `back` steps before step i, in half log SNR."""
    return course.half_log_snr(i - back + 1) - course.half_log_snr(i - back)


def _midpoint(course: Course, i: int, denoised: np.ndarray, step: float, whole: float) -> np.ndarray:
    ratio = _length(course, i, 1) / step
    return (denoised - course.history[-1]) * (-math.expm1(-whole) / 2 / ratio)


def _heun(course: Course, i: int, denoised: np.ndarray, step: float, whole: float) -> np.ndarray:
    ratio = _length(course, i, 1) / step
    return (denoised - course.history[-1]) * (_phi_2(whole) / ratio)


def _third_order(course: Course, i: int, denoised: np.ndarray, step: float, whole: float) -> np.ndarray:
    if len(course.history) < 2:
        return _heun(course, i, denoised, step, whole)
    r0, r1 = _length(course, i, 1) / step, _length(course, i, 2) / step
    near = (denoised - course.history[-1]) / r0
    far = (course.history[-1] - course.history[-2]) / r1
    bend = (near - far) / (r0 + r1)
    phi_2 = _phi_2(whole)
    return (near + bend * r0) * phi_2 - bend * (phi_2 / whole - 0.5)


def _phi_2(h: float) -> float:
    return math.expm1(-h) / h + 1


def res_multistep(model: Model, x: np.ndarray, course: Course, i: int) -> np.ndarray:
    """Exponential integrator of second order (Zhang et al. 2023, "Improved order analysis and design of exponential
    integrator for diffusion models sampling")."""
    sigma, target = course.interval(i)
    denoised = model(x, sigma)
    if course.history and target:
        h = math.log(sigma / target)
        back = -math.log(course.sigmas[i - 1] / sigma) / h
        phi_1 = -math.expm1(-h) / h
        phi_2 = (1 - phi_1) / h
        out = x * math.exp(-h) + (denoised * (phi_1 - phi_2 / back) + course.history[-1] * (phi_2 / back)) * h
    else:
        out = toward(x, denoised, target / sigma)
    course.remember(denoised, 1)
    return out


def lms(model: Model, x: np.ndarray, course: Course, i: int) -> np.ndarray:
    """Adams-Bashforth over sigma, of up to four slopes."""
    sigma, target = course.interval(i)
    denoised = model(x, sigma)
    course.remember((x - denoised) / sigma, LMS_ORDER)
    if not target:
        return denoised
    known = [course.sigmas[i - age] for age in range(len(course.history))]
    for age, slope in enumerate(reversed(course.history)):
        x = x + slope * _lagrange_integral(known, age, sigma, target)
    return x


def _lagrange_integral(known: list[float], chosen: int, begin: float, end: float) -> float:
    """Of the polynomial that is 1 at the chosen place and 0 at the other known ones."""
    others = [place for age, place in enumerate(known) if age != chosen]
    # Around `begin`, where all places are: in plain sigma the terms cancel.
    basis = np.polynomial.Polynomial.fromroots([place - begin for place in others]) if others else ONE
    scale = math.prod(known[chosen] - place for place in others)
    return float(basis.integ()(end - begin) / scale)
