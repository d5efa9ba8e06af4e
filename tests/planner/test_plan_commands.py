"""`relight plan` as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relight.cli import configure, parser
from relight.errors import ConfigError, DoesNotFit


def run(*words: str) -> None:
    arguments = parser().parse_args(["plan", *words])
    configure(arguments)
    arguments.run(arguments)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    run(*words, "--json")
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_card_that_is_not_here_is_planned_for(full_models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(str(full_models / "sd15.safetensors"), "--device-profile", "rx470-4g", "--size", "512x768", "--steps", "12")
    text = capsys.readouterr().out
    assert "rx470-4g, 3.75 GiB of 4.00 GiB for relight" in text and "512x768, 12 steps" in text
    assert "pictures an hour" in text and "to run it so: --backend" in text


def test_a_card_of_ones_own_comes_from_a_file(
    full_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "card.yaml"
    file.write_text("# what I found in the attic\nmemory: 3G\ntflops: 2  # less than an RX 580\nlike: rx580-8g\n")
    found = printed(capsys, str(full_models / "sd15.safetensors"), "--device-profile", str(file))
    assert found["plans"][0]["gpu"]["budget_bytes"] == (3 << 30) - (1 << 28)


def test_pictures_and_a_language_model_share_the_card(full_models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    language = str(full_models / "llama-8b-Q4_K.gguf")
    words = (str(full_models / "flux"), "--llm", language, "--device-profile", "rx580-8g", "--ctx", "8192")
    shared = printed(capsys, *words)["together"]
    assert not shared["resident"] and len(shared["swaps"]) == 2 and shared["language_model"]["n_gpu_layers"] == 33
    run("--llm", language, "--device-profile", "rx580-8g")
    assert "n_gpu_layers 33 at 4096 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name a model, or a language model with --llm"),
        (("MODEL", "--threads", "0"), "--threads 0: 1 to 1024"),
        (("MODEL", "--ctx", "0"), "--ctx 0: 1 to 2097152 tokens"),
        (("MODEL", "--size", "big", "--device-profile", "rx580-8g"), "--size big: write it as 1024x1024"),
        (("MODEL", "--device-profile", "rx580"), "--device-profile rx580 is no profile; did you mean rx580-8g"),
    ],
)
def test_what_is_wrong_is_said_with_the_option(full_models: Path, words: tuple[str, ...], said: str) -> None:
    named = [word.replace("MODEL", str(full_models / "sd15.safetensors")) for word in words]
    with pytest.raises(ConfigError, match=said):
        run(*named)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Writes the settings of the folder that relight is started in."""
    monkeypatch.chdir(tmp_path)
    return lambda text: (tmp_path / "relight.yaml").write_text(text) and None


def test_settings_say_what_is_planned_and_options_go_over_them(
    full_models: Path, settings: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    settings(f"""
backend: {{device_index: 3}}
models: {{model: {full_models / "sd15.safetensors"}}}
model_routing: {{text_encoder: {{target: cpu}}, decoder: {{tiling: 32}}}}
runtime: {{denoise_steps: 7, resolution: 768x512, offload_threshold: 0.5}}
engine: {{convolution: im2col}}
language_model: {{model: {full_models / "llama-8b-Q4_K.gguf"}, ctx: 512}}
""")
    found = printed(capsys, "--device-profile", "rx580-8g", "--steps", "9")
    (plan,) = found["plans"]
    assert (plan["width"], plan["height"], plan["steps"], plan["vae_tile"]) == (768, 512, 9, 32)
    assert plan["gpu"]["budget_bytes"] == 4 << 30
    devices = {each["name"]: (each["device"], each["convolution"]) for each in plan["components"]}
    assert devices["clip_l"] == ("cpu", "im2col") and devices["diffusion"] == ("vulkan0", "im2col")
    assert found["together"]["language_model"]["context"] == 512
    run("--device-profile", "rx580-8g", "--max-vram", "2")
    text = capsys.readouterr().out
    assert text.startswith("with the settings of ") and "2.00 GiB of 8.00 GiB for relight" in text


def test_budgets_of_the_settings_hold_for_the_plan_too(full_models: Path, settings: Callable[[str], None]) -> None:
    settings("model_routing: {diffusion: {target: gpu, vram_budget: 1.5GB}}")
    with pytest.raises(DoesNotFit, match=r"relight.yaml:1: .*vram_budget allows 1.50 GiB, and 1.\d\d GiB are needed"):
        run(str(full_models / "sd15.safetensors"), "--device-profile", "rx580-8g")


def test_a_decoder_within_its_ram_budget_is_planned_in_smaller_tiles(
    full_models: Path, settings: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    words = (str(full_models / "sd15.safetensors"), "--device-profile", "rx580-8g", "--size", "1024x1024")
    tiles = []
    for budget in ("9GB", "700MB"):
        settings(f"model_routing: {{decoder: {{target: cpu, ram_budget: {budget}}}}}")
        tiles.append(printed(capsys, *words)["plans"][0]["vae_tile"])
    assert tiles[1] < tiles[0]


def test_the_disk_is_that_of_the_models_files(
    full_models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr("relight.planner.machine.disk_rate", lambda file: asked.append(file) or 1e8)
    monkeypatch.setenv("RELIGHT_MODEL_PATHS", str(full_models))
    run("sd15.safetensors", "--device-profile", "rx580-8g")
    assert asked == [full_models / "sd15.safetensors"]
