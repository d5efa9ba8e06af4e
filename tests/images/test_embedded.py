"""The model that ships with relight draws what it is asked for, on the way of every other model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from relight.demo import EMBEDDED, SIZE
from relight.jobs.engine import EngineSettings
from relight.jobs.models import files_in
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import GenerateRequest
from relight.weights.identify import identify

LARGEST_BYTES = 40_000_000
INK = 60  # less than white by this much in some channel


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Pipeline]:
    with Pipeline(files_in(EMBEDDED), EngineSettings(backend="cpu", threads=2)) as made:
        yield made


def colour_of(pipeline: Pipeline, prompt: str) -> np.ndarray:
    """Mean red, green and blue of what is not white."""
    image = pipeline.generate(GenerateRequest(prompt=prompt, width=SIZE, height=SIZE, seed=7)).pictures[0].image
    drawn = image[image.min(axis=2) < 255 - INK]
    assert 0.15 < len(drawn) / SIZE**2 < 0.9, f"{prompt}: {len(drawn)} pixels are drawn"
    return drawn.mean(axis=0)


@pytest.mark.parametrize(
    ("prompt", "strongest", "others"),
    [("a red apple", 0, 1.5), ("a blue heart", 2, 1.2), ("green circle", 1, 1.2), ("please draw a red square", 0, 1.5)],
)
def test_a_colour_asked_for_is_the_colour_drawn(pipeline: Pipeline, prompt: str, strongest: int, others: float) -> None:
    mean = colour_of(pipeline, prompt)
    assert mean[strongest] > others * np.delete(mean, strongest).max(), f"{prompt}: {mean}"


def test_a_seed_gives_the_same_picture_again(pipeline: Pipeline) -> None:
    request = GenerateRequest(prompt="rocket", width=SIZE, height=SIZE, seed=3)
    first, again = (pipeline.generate(request).pictures[0].image for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_it_is_told_as_flux_by_its_tensors() -> None:
    families = {identify(path).family for path in sorted(EMBEDDED.glob("*.gguf"))}
    assert "FLUX.1 schnell" in families


def test_it_stays_small() -> None:
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir() if path.is_file()) <= LARGEST_BYTES
