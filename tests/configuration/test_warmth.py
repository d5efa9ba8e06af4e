"""The warm-up that settings ask for: only with a card, and only for what was not warmed up yet."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_flux
from relight.configuration import warmth
from relight.configuration.load import load
from relight.configuration.warmth import warm_first, warm_on
from relight.jobs.request import GenerateRequest, ModelFiles
from relight.planner.machine import Cpu, Machine, of_profile
from relight.planner.profiles import PROFILES
from relight.tuning.tuned import Tuned
from relight.tuning.warm import Warmed, Warmup

GIB = 1 << 30
CPU = Cpu("Xeon E5", cores=8, available=28 * GIB, total=32 * GIB)
CARD = Machine(CPU, of_profile(PROFILES["rx580-8g"]))
REQUEST = GenerateRequest(prompt="", width=64, height=64, steps=1, seed=0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return tiny_flux.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def warmed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Models that were warmed up, in place of doing it; nothing is measured yet."""
    found: list[str] = []

    def warm(self: Warmup, files: ModelFiles, request: GenerateRequest) -> Warmed:
        found.append(files.name)
        return Warmed(files.name, 2.0, 1.0, 0.5, 3, ())

    monkeypatch.setattr(Warmup, "warm", warm)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return found


@pytest.mark.parametrize("text", ["", "backend: {compute_shaders: on_demand}", "backend: {type: cpu}"])
def test_without_being_asked_for_no_device_is_asked(
    tmp_path: Path, files: ModelFiles, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.delattr(warmth, "machine_for")
    (tmp_path / "relight.yaml").write_text(text)
    assert not warm_first(load(environ={}, folder=tmp_path).settings, files, REQUEST, lambda line: None)


def test_a_machine_without_a_card_has_nothing_to_build(files: ModelFiles, warmed: list[str]) -> None:
    assert not warm_on(Machine(CPU), files, REQUEST, None, lambda line: None)
    assert warmed == []


def test_a_model_that_was_never_warmed_up_is(files: ModelFiles, warmed: list[str]) -> None:
    said: list[str] = []
    assert warm_on(CARD, files, REQUEST, None, said.append)
    assert warmed == ["flux1-schnell-tiny"]
    assert "flux1-schnell-tiny is warmed up" in said[0] and "3 timed, pipelines took 0.5 s" in said[1]


def test_a_model_that_was_is_not_again(files: ModelFiles, warmed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    signatures: dict[str, str] = {}

    def needs(tuned: Tuned, names: dict[str, str]) -> bool:
        signatures.update(names)
        return False

    monkeypatch.setattr(warmth, "needs", needs)
    assert not warm_on(CARD, files, REQUEST, None, lambda line: None)
    assert warmed == []
    assert set(signatures) == {"clip_l", "t5xxl", "modulation", "diffusion", "vae"}
