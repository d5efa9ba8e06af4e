"""What text encoders gave, kept on disk: found again, bounded, and never in the way of a picture."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tiny_sd
from relight.jobs.conditioning import ConditioningCache, cache_folder, identity, key_of
from relight.jobs.engine import EngineSettings
from relight.jobs.events import Advanced, Event
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import GenerateRequest, ModelFiles

REQUEST = GenerateRequest(prompt="a cat", width=64, height=64, steps=2, seed=1, cfg_scale=1)


def entry(value: float, size: int = 1000) -> dict[str, np.ndarray]:
    return {"hidden": np.full(size, value, np.float32)}


@pytest.fixture
def cache(tmp_path: Path) -> ConditioningCache:
    return ConditioningCache(tmp_path / "kept", most_bytes=12_000)


def test_arrays_come_back_as_they_were(cache: ConditioningCache) -> None:
    assert cache.get(["a"]) is None
    cache.put("a", entry(1) | {"pooled": np.arange(6, dtype=np.float32).reshape(1, 6)})
    (found,) = cache.get(["a"]) or []
    assert np.array_equal(found["hidden"], entry(1)["hidden"]) and found["pooled"].shape == (1, 6)
    assert (cache.hits, cache.misses) == (1, 1)


def test_one_that_lacks_is_a_miss_for_all(cache: ConditioningCache) -> None:
    cache.put("a", entry(1))
    assert cache.get(["a", "b"]) is None


def test_the_longest_unused_goes_first(cache: ConditioningCache) -> None:
    for age, key in enumerate("ab"):
        cache.put(key, entry(age))
        os.utime(cache.folder / f"{key}.npz", (1000 + age, 1000 + age))
    assert cache.get(["a"]) is not None  # which makes `b` the oldest
    cache.put("c", entry(2))
    assert cache.get(["a"]) is not None and cache.get(["b"]) is None and cache.get(["c"]) is not None


def test_a_damaged_file_is_as_none(cache: ConditioningCache) -> None:
    cache.put("a", entry(1))
    path = cache.folder / "a.npz"
    path.write_bytes(path.read_bytes()[:100])
    assert cache.get(["a"]) is None


def test_a_folder_that_cannot_be_written_only_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = ConditioningCache(tmp_path / "file")
    cache.put("a", entry(1))
    assert cache.get(["a"]) is None


def test_a_changed_file_has_another_identity(tmp_path: Path) -> None:
    path = tmp_path / "clip"
    path.write_bytes(b"one")
    before = key_of(identity([path]))
    path.write_bytes(b"three")
    assert key_of(identity([path])) != before


def test_the_folder_is_the_platforms(tmp_path: Path) -> None:
    assert cache_folder({"XDG_CACHE_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}).is_relative_to(tmp_path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return tiny_sd.sd1(tmp_path_factory.mktemp("sd") / "tiny.safetensors")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineSettings]:
    folder = tmp_path_factory.mktemp("kept")
    yield EngineSettings(backend="ggml-cpu", threads=1, check_results=False, conditioning_folder=folder)


def loads(pipeline: Pipeline, request: GenerateRequest) -> tuple[set[str], np.ndarray]:
    """What was loaded for a request, and its picture."""
    events: list[Event] = []
    picture = pipeline.generate(request, events.append).pictures[0].image
    return {e.stage for e in events if isinstance(e, Advanced) and e.stage.startswith("load")}, picture


def test_a_prompt_asked_for_again_loads_no_encoder(files: ModelFiles, settings: EngineSettings) -> None:
    with Pipeline(files, settings) as pipeline:
        first, picture = loads(pipeline, REQUEST)
    with Pipeline(files, settings) as pipeline:
        again, same = loads(pipeline, replace(REQUEST, seed=1))
        other, _ = loads(pipeline, replace(REQUEST, prompt="a dog"))
    assert "load clip_l" in first and "load clip_l" not in again and "load clip_l" in other
    assert np.array_equal(picture, same)
