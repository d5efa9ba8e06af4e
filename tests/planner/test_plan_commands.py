"""`relight plan` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from relight.cli import parser
from relight.errors import ConfigError


def run(*words: str) -> None:
    arguments = parser().parse_args(["plan", *words])
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
        (("MODEL", "--size", "big", "--device-profile", "rx580-8g"), "--size big: write it as 1024x1024"),
        (("MODEL", "--device-profile", "rx580"), "--device-profile rx580 is no profile; did you mean rx580-8g"),
    ],
)
def test_what_is_wrong_is_said_with_the_option(full_models: Path, words: tuple[str, ...], said: str) -> None:
    named = [word.replace("MODEL", str(full_models / "sd15.safetensors")) for word in words]
    with pytest.raises(ConfigError, match=said):
        run(*named)
