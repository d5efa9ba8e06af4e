"""What `relight warm` takes of the settings."""

from __future__ import annotations

import argparse
import lzma
from pathlib import Path

import pytest

import tiny_flux
from relight import cli
from relight.configuration import warmth
from relight.configuration.asked import fill
from relight.configuration.load import load
from relight.configuration.warmth import warm_first
from relight.errors import ConfigError
from relight.jobs.request import GenerateRequest
from relight.planner.machine import Machine, this_cpu

ALL_ON_THE_CPU = "{backend: {compute_shaders: precompiled}, engine: {backend: cpu}}"


def filled(tmp_path: Path, text: str, *arguments: str) -> argparse.Namespace:
    (tmp_path / "relight.yaml").write_text(text)
    found = cli.parser().parse_args(["warm", *arguments])
    fill(found, load(environ={}, folder=tmp_path))
    return found


def test_the_settings_model_is_warmed_up_at_their_size(tmp_path: Path) -> None:
    files = tiny_flux.write(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(lzma.decompress(tiny_flux.TOKENIZER.read_bytes()))
    routed = {"diffusion": "diffusion", "text_encoder": "clip_l", "context_encoder": "t5xxl", "decoder": "vae"}
    lines = [f"  {part}: {{path: {files.paths[kind][0]}}}" for part, kind in routed.items()]
    text = "\n".join(["model_routing:", *lines, "runtime: {resolution: 128x64}", "backend: {device_index: 1}"])
    found = filled(tmp_path, text)
    assert found.own.paths == files.paths and found.size == ["128x64"] and found.engine.gpu == "vulkan1"
    other = filled(tmp_path, text, "sd15")
    assert other.own is None and other.size is None and other.engine.gpu == "vulkan1"


def test_without_a_model_in_the_settings_there_is_none_of_its_own(tmp_path: Path) -> None:
    assert filled(tmp_path, "runtime: {resolution: 128x64}").own is None
    with pytest.raises(ConfigError, match="relight.yaml:1: models.t5_tokenizer: /no.json: no such file"):
        filled(tmp_path, "models: {model: sd15, t5_tokenizer: /no.json}")


def test_the_warm_up_before_a_picture_is_of_the_card_in_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def machine_for(*arguments: object) -> tuple[Machine, None]:
        asked.append(arguments[4])
        return Machine(this_cpu()), None

    monkeypatch.setattr(warmth, "machine_for", machine_for)
    request = GenerateRequest(prompt="", width=64, height=64, steps=1, seed=0)
    files = tiny_flux.write(tmp_path)
    for text in ("device_index: 1", "device_index: null", "type: ggml-vulkan"):
        (tmp_path / "relight.yaml").write_text(f"backend: {{compute_shaders: precompiled, {text}}}")
        warm_first(load(environ={}, folder=tmp_path).settings, files, request, lambda line: None)
    assert asked == ["vulkan1", None, None]
    (tmp_path / "relight.yaml").write_text(ALL_ON_THE_CPU)
    assert not warm_first(load(environ={}, folder=tmp_path).settings, files, request, lambda line: None)
    assert len(asked) == 3
