"""Pictures on disk: whole or not at all, readable by others, with ordinary permissions."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from relight.errors import ConfigError, OutputError
from relight.images.infotext import parse_parameters
from relight.jobs import output
from relight.jobs.events import Previewed
from relight.jobs.pictures import Picture
from relight.jobs.request import GenerateRequest, Hires, Redraw

PICTURE = Picture(np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8), seed=7)
REPORT: dict[str, Any] = {
    "prompt": "a cat, sitting\non a mat",
    "negative_prompt": "",
    "family": "flux",
    "steps": 2,
    "sampler": "euler",
    "schedule": "simple",
    "cfg_scale": 1.0,
    "clip_skip": 1,
    "guidance": None,
    "strength": None,
    "hires": None,
    "loras": [],
    "width": 48,
    "height": 32,
    "model": "flux1-schnell-Q4_K_S",
    "rng": "cuda",
}


def written(path: Path, **changes: Any) -> Image.Image:
    output.write_png(path, PICTURE, REPORT | changes)
    with Image.open(path) as image:
        image.load()
        return image


def test_the_picture_comes_back_pixel_by_pixel(tmp_path: Path) -> None:
    np.testing.assert_array_equal(np.asarray(written(tmp_path / "a.png")), PICTURE.image)


def test_parameters_are_the_prompt_and_then_one_line_as_a1111_writes_them(tmp_path: Path) -> None:
    *prompt, settings = written(tmp_path / "a.png").info["parameters"].split("\n")
    assert "\n".join(prompt) == REPORT["prompt"]
    assert settings == (
        "Steps: 2, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Seed: 7, Size: 48x32, "
        "Model: flux1-schnell-Q4_K_S, RNG: GPU, Version: relight"
    )


def test_everything_that_makes_a_picture_of_stable_diffusion_is_read_back_by_a1111s_names(tmp_path: Path) -> None:
    hires = {"from_size": [24, 16], "scale": 2.0, "strength": 0.6, "steps": 10, "upscaler": "latent-nearest-exact"}
    text = written(
        tmp_path / "a.png",
        family="sd1",
        negative_prompt="blurry, text",
        sampler="dpmpp_2m_sde",
        schedule="karras",
        cfg_scale=7.5,
        clip_skip=2,
        steps=20,
        hires=hires,
    ).info["parameters"]
    read = parse_parameters(text)
    assert read["Prompt"] == REPORT["prompt"] and read["Negative prompt"] == "blurry, text"
    expected = {
        "Steps": "20",
        "Sampler": "DPM++ 2M SDE",
        "Schedule type": "Karras",
        "CFG scale": "7.5",
        "Size": "24x16",
        "Clip skip": "2",
        "Denoising strength": "0.6",
        "Hires upscale": "2.0",
        "Hires steps": "10",
        "Hires upscaler": "Latent (nearest-exact)",
    }
    assert {name: read[name] for name in expected} == expected


@pytest.mark.parametrize(("family", "skip"), [("sd1", 1), ("sd2", 2), ("sdxl", 2)])
def test_a_clip_skip_that_is_the_models_own_is_not_named(tmp_path: Path, family: str, skip: int) -> None:
    assert "Clip skip" not in written(tmp_path / "a.png", family=family, clip_skip=skip).info["parameters"]


def test_a_lora_given_beside_the_prompt_is_named_in_it_and_one_in_it_once(tmp_path: Path) -> None:
    loras = [{"name": "ink", "weight": 0.5}, {"name": "wash", "weight": 1.0}]
    text = written(tmp_path / "a.png", prompt="a cat <lora:wash:1>", loras=loras).info["parameters"]
    assert text.split("\n")[0] == "a cat <lora:wash:1> <lora:ink:0.5>"


def test_a_picture_that_began_from_another_says_how_much_is_new(tmp_path: Path) -> None:
    assert "Denoising strength: 0.4" in written(tmp_path / "a.png", strength=0.4).info["parameters"]


def test_guidance_and_the_cpus_noise_are_named(tmp_path: Path) -> None:
    settings = written(tmp_path / "a.png", guidance=3.5, rng="cpu").info["parameters"]
    assert "Distilled CFG Scale: 3.5" in settings and "RNG: CPU" in settings


@pytest.mark.parametrize("prompt", ["", "Ein süßer Käfer", "猫 🐈", "a" * 100_000, "two\n\nlines\n"])
def test_any_prompt_is_read_back_as_it_was(tmp_path: Path, prompt: str) -> None:
    read, _, settings = written(tmp_path / "a.png", prompt=prompt).info["parameters"].rpartition("\n")
    assert read == prompt and settings.startswith("Steps: 2, ")


def test_a_model_name_with_separators_is_quoted(tmp_path: Path) -> None:
    assert 'Model: "flux, mine: v2", RNG' in written(tmp_path / "a.png", model="flux, mine: v2").info["parameters"]


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        written(tmp_path / "a.png")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == mode


def test_a_picture_there_before_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"old")
    assert written(tmp_path / "a.png").size == (48, 32)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_failure_amid_writing_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace_it(part: str, path: Path) -> None:
        assert Path(part).exists()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", replace_it)
    (tmp_path / "a.png").write_bytes(b"old")
    with pytest.raises(OutputError, match=r"a\.png cannot be written: No space left on device; name another place"):
        written(tmp_path / "a.png")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.png", b"old")]


def test_an_interruption_amid_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace_it(part: str, path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", replace_it)
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=re.escape(str(tmp_path / "gone/a.png"))):
        written(tmp_path / "gone/a.png")


def test_one_picture_keeps_its_name_and_several_are_numbered(tmp_path: Path) -> None:
    assert output.prepare(tmp_path / "a.PNG", 1, 64) == [tmp_path / "a.PNG"]
    assert output.prepare(tmp_path / "a.b.png", 3, 64) == [tmp_path / f"a.b-{i}.png" for i in (1, 2, 3)]
    assert list(tmp_path.iterdir()) == []


def test_each_name_of_a_batch_is_checked(tmp_path: Path) -> None:
    (tmp_path / "a-2.png").mkdir()
    with pytest.raises(ConfigError, match=r"a-2\.png: that is a folder"):
        output.prepare(tmp_path / "a.png", 2, 64)


def test_a_name_that_is_too_long_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written: .*too long"):
        output.prepare(tmp_path / f"{'a' * 300}.png", 1, 64)


class Disk(NamedTuple):
    total: int
    used: int
    free: int


def test_room_is_for_the_picture_as_it_ends_up() -> None:
    plain = GenerateRequest(prompt="", width=512, height=256)
    assert output.most_pixels(plain) == 512**2
    assert output.most_pixels(replace(plain, hires=Hires(scale=1.5), upscale=2)) == (512 * 1.5 * 2) ** 2
    photograph, mask = np.zeros((3000, 4000, 3), np.uint8), np.ones((3000, 4000), np.float32)
    redraw = Redraw(image=photograph, mask=mask, only_masked=True)
    assert output.most_pixels(replace(plain, redraw=redraw)) == 3000 * 4000


def test_previews_are_written_over_one_another(tmp_path: Path) -> None:
    previews = output.Previews(tmp_path / "on the way", "cat")
    for step in range(2):
        previews.write(Previewed(1, step + 1, 2, np.full((8, 8, 3), step, np.uint8)))
    (path,) = (tmp_path / "on the way").iterdir()
    with Image.open(path) as image:
        assert path.name == "cat-preview-2.png" and image.getpixel((0, 0)) == (1, 1, 1)


def test_previews_need_a_folder_that_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"--preview-dir .*file: .*; name a folder that exists"):
        output.Previews(tmp_path / "file", "cat")
    with pytest.raises(OutputError, match="--preview-dir"):
        output.Previews(tmp_path / "none" / "below", "cat")


@pytest.fixture
def nearly_full(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Disk(1 << 30, (1 << 30) - (3 << 20), 3 << 20))
    yield


@pytest.mark.usefixtures("nearly_full")
def test_a_disk_too_full_is_told_with_numbers(tmp_path: Path) -> None:
    output.prepare(tmp_path / "a.png", 1, 1 << 20)
    with pytest.raises(OutputError, match=r"3\.00 MiB are free, and the pictures may take 6\.00 MiB; make room"):
        output.prepare(tmp_path / "a.png", 2, 1 << 20)
