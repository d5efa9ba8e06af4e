"""`relight config` and `--config`, as users type them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

import tiny_flux
from relight.configuration.load import load
from relight.workers.link import child_environment

ROUTED = """
model_routing:
  diffusion: {path: flux1-schnell-tiny.safetensors, quantization: fp16}
  text_encoder: {path: /models/clip_l.safetensors, target: cpu}
  context_encoder: {path: t5xxl_fp16.safetensors, target: cpu, ram_budget: RAM}
  decoder: {path: ae.safetensors, quantization: FP32, tiling: true}
runtime: {denoise_steps: 1, resolution: 64x64, io_scheduler: mq-deadline, nvme_queue_depth: 64}
models: {directory: .}
engine: {backend: ggml-cpu, threads: 1, checks: false, prompt_cache: false}
"""


def relight(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run in `folder`, with no settings but those."""
    own = child_environment(os.environ, {}) | {"XDG_CONFIG_HOME": str(folder / "none")} | environ
    command = [sys.executable, "-m", "relight", *arguments]
    return subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, timeout=110)


@pytest.fixture
def routed(tmp_path: Path) -> Path:
    tiny_flux.write(tmp_path)
    (tmp_path / "relight.yaml").write_text(ROUTED.replace("RAM", "9GB"))
    return tmp_path


def test_a_prompt_is_enough_where_a_file_names_the_model(routed: Path) -> None:
    done = relight(routed, "generate", "a cat", "--json", "--seed", "1")
    report = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0 and report["width"] == 64 and len(report["seconds"]["steps"][0]) == 1
    assert report["components"]["diffusion"]["executor"] == "ggml-cpu"
    with Image.open(routed / "relight.png") as image:
        assert image.size == (64, 64)
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: relight.yaml:")]
    about = ("runtime.io_scheduler", "runtime.nvme_queue_depth", "text_encoder.path", "decoder.quantization")
    assert [name for name in about if not any(name in note for note in notes)] == []


def test_a_component_over_its_budget_is_refused_with_both_numbers(routed: Path) -> None:
    (routed / "relight.yaml").write_text(ROUTED.replace("RAM", "1MB"))
    done = relight(routed, "generate", "a cat", "--json")
    assert done.returncode == 1
    message = json.loads(done.stdout)["error"]
    assert message.startswith("relight.yaml:5: model_routing.context_encoder.ram_budget allows 1.0 MiB, and ")
    assert "are needed (t5xxl " in message


@pytest.mark.parametrize("command", [["generate", "a cat"], ["models"]])
def test_nothing_starts_with_a_mistake_in_the_settings(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "mine.yaml").write_text("runtime:\n  steps: 4\n")
    done = relight(tmp_path, *command, "--config", "mine.yaml")
    assert done.returncode == 2
    assert done.stderr == "relight: mine.yaml:2: runtime.steps is no setting; did you mean runtime.denoise_steps?\n"


def test_models_are_looked_for_in_the_folder_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "relight.yaml").write_text("models: {directory: mine}\n")
    assert json.loads(relight(tmp_path, "models", "--json").stdout)["directory"] == str(tmp_path / "mine")


def test_show_gives_what_is_in_force_with_flags_over_variables(tmp_path: Path) -> None:
    (tmp_path / "relight.yaml").write_text("runtime: {cfg_scale: 1, denoise_steps: 2}\n")
    done = relight(tmp_path, "config", "show", "--steps", "8", "--no-checks", RELIGHT_SERVER_PORT="9000")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == "# relight.yaml"
    for line in (
        "cfg_scale: 1.0 # relight.yaml:1",
        "denoise_steps: 8 # --steps",
        "checks: false # --no-checks",
        "port: 9000 # RELIGHT_SERVER_PORT",
        "threads: null # default",
    ):
        assert line in lines
    assert yaml.safe_load(done.stdout)["runtime"]["denoise_steps"] == 8


def test_init_writes_a_file_that_is_right_and_keeps_one_that_is_there(tmp_path: Path) -> None:
    arguments = ("config", "init", "--write", "relight.yaml", "--device-profile", "rx580-8g")
    first = relight(tmp_path, *arguments, RELIGHT_MODELS=str(tmp_path / "models"))
    assert first.returncode == 0, first.stderr
    assert load(tmp_path / "relight.yaml", environ={}).settings.backend.device_index == 0
    again = relight(tmp_path, *arguments)
    assert again.returncode == 2 and "relight.yaml: is there already; --force replaces it" in again.stderr


def test_check_names_what_is_wrong_and_notes_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "relight.yaml").write_text("model_routing:\n  decoder: {path: gone.safetensors}\n")
    right = relight(tmp_path, "config", "check", RELIGHT_MODELS=str(tmp_path))
    assert right.returncode == 0 and right.stdout.endswith("relight.yaml: right; 1 settings\n")
    assert "note: relight.yaml:2: model_routing.decoder.path: " in right.stderr
    (tmp_path / "wrong.yaml").write_text("backend: {type: rocm}\n")
    wrong = relight(tmp_path, "config", "check", "wrong.yaml")
    assert wrong.returncode == 2 and wrong.stderr.startswith("relight: wrong.yaml:1: backend.type should be one of")


def test_check_needs_a_file(tmp_path: Path) -> None:
    done = relight(tmp_path, "config", "check")
    assert done.returncode == 2 and "no relight.yaml was found" in done.stderr
