"""Options of `relight generate` that were not given take their settings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from relight import cli
from relight.configuration.flags import OTHERWISE, by_option, files_wanted, fill, given
from relight.configuration.load import load
from relight.errors import ConfigError

GIB = 1 << 30
EVERYTHING = """
model_routing:
  decoder: {tiling: 48}
runtime: {cfg_scale: 2, denoise_steps: 3, resolution: 640x480}
models: {model: sd15, prediction: v, lora_dir: [/l], embedding_dir: [/e]}
engine: {max_vram: 6GB, checks: false, prompt_cache: false}
picture:
  {negative: grey, sampler: euler, schedule: karras, clip_skip: 2, guidance: 4, cfg_rescale: 0.5, rng: cpu,
   decode_with: taesd}
"""


def parsed(*arguments: str) -> argparse.Namespace:
    return cli.parser().parse_args(["generate", "a cat", *arguments])


def filled(tmp_path: Path, text: str, *arguments: str) -> argparse.Namespace:
    (tmp_path / "relight.yaml").write_text(text)
    found = parsed(*arguments)
    fill(found, load(environ={}, folder=tmp_path), {"vae": tmp_path / "ae.safetensors"})
    return found


def test_every_option_of_a_setting_is_one_of_generate() -> None:
    there = vars(parsed())
    assert [name for name in (*by_option(), *OTHERWISE) if name not in there] == []


def test_without_a_file_options_are_what_they_were(tmp_path: Path) -> None:
    found = vars(filled(tmp_path, ""))
    expected = {"negative": "", "cfg_rescale": 0.0, "rng": "cuda", "decode_with": "vae", "attention": "auto"}
    expected |= {"lora_dir": [], "embedding_dir": [], "no_checks": False, "no_prompt_cache": False, "batch": 1}
    assert {name: found[name] for name in expected} == expected
    assert all(found[name] is None for name in ("width", "steps", "model", "diffusion", "max_vram", "vae_tile_size"))


def test_settings_fill_what_was_not_given(tmp_path: Path) -> None:
    found = vars(filled(tmp_path, EVERYTHING))
    expected: dict[str, Any] = {"cfg_scale": 2.0, "steps": 3, "width": 640, "height": 480, "model": "sd15"}
    expected |= {"prediction": "v", "lora_dir": [Path("/l")], "embedding_dir": [Path("/e")], "max_vram": 6.0}
    expected |= {"no_checks": True, "no_prompt_cache": True, "vae_tile_size": 48, "vae": tmp_path / "ae.safetensors"}
    expected |= {"negative": "grey", "sampler": "euler", "schedule": "karras", "clip_skip": 2, "guidance": 4.0}
    expected |= {"cfg_rescale": 0.5, "rng": "cpu", "decode_with": "taesd"}
    assert {name: found[name] for name in expected} == expected


def test_what_was_given_stays(tmp_path: Path) -> None:
    given_ones = "--width 512 --steps 9 --negative x --lora-dir /mine --vae-tile-size 32 --cfg-rescale 0 --vae own.gguf"
    found = filled(tmp_path, EVERYTHING, *given_ones.split())
    assert (found.width, found.height, found.steps, found.negative) == (512, 480, 9, "x")
    assert (found.lora_dir, found.vae_tile_size, found.cfg_rescale) == ([Path("/mine")], 32, 0.0)
    assert found.vae == Path("own.gguf")


def test_options_of_the_engine_are_settings_too() -> None:
    found = given(parsed("--threads", "2", "--max-vram", "6.5", "--no-checks", "--backend", "vae=cpu"))
    assert found == {"engine.threads": 2, "engine.max_vram": 6.5, "engine.checks": False, "engine.backend": "vae=cpu"}
    assert load(flags=found, environ={}).settings.engine.max_vram == 6.5 * GIB
    assert given(parsed()) == {}


@pytest.mark.parametrize(("option", "value"), [("--threads", "0"), ("--max-vram", "nan"), ("--max-vram", "0")])
def test_an_option_out_of_range_is_refused_by_its_name(option: str, value: str) -> None:
    with pytest.raises(ConfigError, match=option):
        given(parsed(option, value))


def test_a_model_by_option_leaves_out_the_files_of_settings() -> None:
    assert files_wanted(parsed("--model", "sd15")) == set()
    wanted = files_wanted(parsed("--vae", "ae.safetensors"))
    assert "diffusion" in wanted and "vae" not in wanted
