"""Samplers against ComfyUI's, k-diffusion's and diffusers' (tests/golden/make_samplers.py), and what all must do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from relight.errors import RequestError
from relight.sampling.course import Course, Model
from relight.sampling.noise import rng
from relight.sampling.parameterisation import Discrete, Flow, Parameterisation
from relight.sampling.samplers import SAMPLERS, evaluated_levels, evaluations, sampler, step
from relight.sampling.sigmas import schedule

HERE = Path(__file__).parent
GOLDEN = dict(np.load(HERE / "samplers.npz"))
DIFFUSERS = dict(np.load(HERE / "diffusers.npz"))
RUNS = [key for key in GOLDEN if key.count("/") == 2 and not key.startswith("sigmas")]
SPACES: dict[str, Parameterisation] = {"discrete": Discrete(), "dev": Flow(1.15)}
BOTH = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
ALL = pytest.mark.parametrize("name", SAMPLERS)
RTOL = 1e-5  # of the largest number of a picture; float32 here, float64 there


def network(x: np.ndarray, sigma: float) -> np.ndarray:
    mixed = (GOLDEN["mix"] @ x.reshape(-1)) / (1 + sigma) + GOLDEN["bias"] * (1 + sigma / (1 + sigma))
    return np.tanh(mixed).reshape(x.shape)


def draws() -> Callable[[], np.ndarray]:
    numbers: Iterator[np.ndarray] = iter(GOLDEN["draws"])
    return lambda: next(numbers)


def run(name: str, course: Course, model: Model = network, x: np.ndarray | None = None) -> np.ndarray:
    x = GOLDEN["start"] * np.float32(course.sigmas[0]) if x is None else x
    for i in range(course.steps):
        x = step(name)(model, x, course, i)
    return x


def assert_close(x: np.ndarray, golden: np.ndarray) -> None:
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, golden, rtol=0, atol=RTOL * np.abs(golden).max())


@pytest.mark.parametrize("key", RUNS)
def test_runs_are_comfyuis_and_k_diffusions(key: str) -> None:
    called, kind, steps = key.split("/")
    name, _, eta = called.partition(":")
    more = {"eta": float(eta), "s_noise": 0.9} if eta else {}
    course = Course(GOLDEN[f"sigmas/{kind}/{steps}"].tolist(), draws(), SPACES[kind], **more)
    assert_close(run(name, course), GOLDEN[key])


@pytest.mark.parametrize("key", [key for key in DIFFUSERS if not key.endswith("sigmas")])
def test_runs_are_diffusers(key: str) -> None:
    course = Course([*DIFFUSERS[f"{key}/sigmas"].tolist(), 0.0], draws(), Discrete())
    assert_close(run(key.split("/")[0], course), DIFFUSERS[key])


def test_every_sampler_but_two_has_published_runs() -> None:
    golden = {key.split("/")[0] for key in RUNS} | {key.split("/")[0] for key in DIFFUSERS}
    assert set(SAMPLERS) - golden == {"dpmpp_2m_v2"}


def karras(space: Parameterisation, steps: int) -> list[float]:
    return schedule("karras", steps, space).tolist()


@ALL
@BOTH
@pytest.mark.parametrize("cut", [1, 2, 5])
def test_a_run_goes_on_from_its_saved_state_to_the_last_bit(name: str, space: Parameterisation, cut: int) -> None:
    levels = karras(space, 7)
    whole, first, second = (Course(levels, draws(), space) for _ in range(3))
    x = GOLDEN["start"] * np.float32(levels[0])
    for i in range(cut):
        x = step(name)(network, x, first, i)
    second.restore({key: array.copy() for key, array in first.state().items()})
    for i in range(cut, first.steps):
        x = step(name)(network, x, second, i)
    assert np.array_equal(x, run(name, whole)) and second.drawn == whole.drawn


@ALL
@BOTH
@pytest.mark.parametrize("steps", [1, 2, 6])
def test_the_network_is_asked_as_often_and_where_it_was_said(name: str, space: Parameterisation, steps: int) -> None:
    asked: list[float] = []

    def counted(x: np.ndarray, sigma: float) -> np.ndarray:
        asked.append(sigma)
        return network(x, sigma)

    levels = schedule("simple", steps, space)
    course = Course(levels.tolist(), draws(), space)
    run(name, course, counted)
    assert len(asked) == evaluations(name, steps)
    assert list(dict.fromkeys(asked)) == evaluated_levels(name, levels, space)
    assert bool(course.drawn) == (sampler(name).noise and steps > 1)


@ALL
@BOTH
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_a_network_that_knows_the_picture_leads_to_it(name: str, space: Parameterisation, steps: int) -> None:
    picture = GOLDEN["bias"].reshape(GOLDEN["start"].shape)
    found = run(name, Course(karras(space, steps), draws(), space), lambda x, sigma: picture)
    np.testing.assert_allclose(found, picture, atol=0.02 if "uni_pc" in name else 2e-5)  # UniPC ends at sigma 0.001


@ALL
@BOTH
def test_a_step_leaves_as_much_noise_as_its_sigma_says(name: str, space: Parameterisation) -> None:
    """Fresh noise included, also where it is added between."""
    picture, noise = np.float32(0.5), rng("cuda", 1)
    x = space.noisy(np.full((1, 4, 128, 128), picture), noise.normal((1, 4, 128, 128)), 0.9)
    course = Course([0.9, 0.6, 0.35, 0.0], lambda: noise.normal(x.shape), space)
    for i, sigma in enumerate((0.6, 0.35)):
        x = step(name)(lambda x, sigma: np.full_like(x, picture), x, course, i)
        share = 1 - sigma if space.flow else 1
        assert x.mean() == pytest.approx(picture * share, abs=0.02)
        assert x.std() == pytest.approx(sigma, rel=0.02)


@BOTH
def test_pictures_of_a_batch_are_those_made_alone(space: Parameterisation) -> None:
    shape, levels = (4, 2, 3), karras(space, 5)

    def pictures(seeds: list[int]) -> np.ndarray:
        sources = [rng("cpu", seed) for seed in seeds]

        def draw() -> np.ndarray:
            return np.stack([source.normal(shape) for source in sources])

        start = draw() * np.float32(levels[0])
        return run("dpmpp_2m_sde", Course(levels, draw, space), lambda x, sigma: np.tanh(x), start)

    assert np.array_equal(pictures([3, 4]), np.concatenate([pictures([3]), pictures([4])]))


@ALL
def test_flow_models_start_from_all_noise_without_infinities(name: str) -> None:
    for levels in ([1.0, 0.5, 0.0], [1.0, 0.99999, 0.5, 0.0], [1.0, 0.0]):
        assert np.isfinite(run(name, Course(levels, draws(), Flow(1.15)))).all()


@pytest.mark.parametrize("name", [name for name, kept in SAMPLERS.items() if kept.noise and name != "lcm"])
@BOTH
def test_eta_zero_draws_nothing(name: str, space: Parameterisation) -> None:
    course = Course(karras(space, 4), draws(), space, eta=0.0)
    assert np.isfinite(run(name, course)).all() and course.drawn == 0


@BOTH
def test_ddim_is_euler_and_with_eta_the_ancestral_one(space: Parameterisation) -> None:
    levels = karras(space, 5)
    assert np.array_equal(run("ddim", Course(levels, draws(), space)), run("euler", Course(levels, draws(), space)))
    ancestral = run("euler_ancestral", Course(levels, draws(), space, eta=1.0))
    assert np.array_equal(run("ddim", Course(levels, draws(), space, eta=1.0)), ancestral)


def test_the_second_version_of_2m_is_the_first_where_steps_are_equal() -> None:
    levels = schedule("exponential", 6, Discrete()).tolist()
    one, two = (run(name, Course(levels, draws(), Discrete())) for name in ("dpmpp_2m", "dpmpp_2m_v2"))
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_the_second_version_of_2m_takes_the_mean_of_unequal_steps() -> None:
    course = Course([8.0, 4.0, 1.0, 0.0], draws(), Discrete())
    x = np.float32([2.0])
    for i, said in enumerate((0.25, 1.0)):
        x = step("dpmpp_2m_v2")(lambda x, sigma, said=said: np.float32([said]), x, course, i)
    # Steps of ln 2 and ln 4: after the first 1.125, then with r = 2 the picture 1.25 - 0.0625 over sqrt(1 / 8).
    assert x[0] == pytest.approx(1.125 / 4 + (1.25 * 1.0 - 0.25 * 0.25) * (1 - math.sqrt(1 / 8)), rel=1e-6)


def test_an_unknown_sampler_names_those_there_are() -> None:
    with pytest.raises(RequestError, match="sampler: 'dpmpp_9m' is not one of euler, euler_ancestral"):
        sampler("dpmpp_9m")
