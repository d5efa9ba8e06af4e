"""The options of `relight generate`, as the request they stand for."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from making import photograph
from relight.errors import ConfigError, RequestError
from relight.jobs import options
from relight.jobs.request import GenerateRequest, Lora


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """`photo.png`, `mask.png` of its size, and `small.png`, which is another's."""
    Image.fromarray(photograph()).save(tmp_path / "photo.png")
    mask = np.zeros(photograph().shape[:2], np.uint8)
    mask[20:50, 30:60] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(mask[:32, :32]).save(tmp_path / "small.png")
    (tmp_path / "control.safetensors").write_bytes(b"")
    return tmp_path


def parsed(*arguments: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("prompt")
    for add in (
        options.add_files,
        options.add_picture,
        options.add_redraw,
        options.add_hires,
        options.add_control,
        options.add_previews,
    ):
        add(parser)
    parser.add_argument("--vae-tile-size", type=int)
    return parser.parse_args(["a cat", *map(str, arguments)])


def asked(*arguments: object) -> GenerateRequest:
    return options.request(parsed(*arguments))


def test_nothing_said_is_left_to_the_model() -> None:
    assert asked() == GenerateRequest(prompt="a cat")


def test_each_option_of_the_picture_reaches_the_request() -> None:
    found = asked(
        *("--negative", "dog", "--width", 512, "--height", 768, "--steps", 25, "--seed", 7, "--rng", "cpu"),
        *("--guidance", 3, "--cfg-scale", 7.5, "--cfg-rescale", 0.7, "--clip-skip", 2, "--sampler", "Euler a"),
        *("--schedule", "karras", "--sigmas", "10,5,0", "--batch", 2, "--vae-tile-size", 32, "--upscale", 2),
        *("--lora", "ink:0.5", "--lora", "wash", "--decode-with", "taesd", "--preview-dir", ".", "--preview-every", 3),
    )
    assert found == GenerateRequest(
        prompt="a cat",
        negative_prompt="dog",
        width=512,
        height=768,
        steps=25,
        seed=7,
        rng="cpu",
        guidance=3.0,
        cfg_scale=7.5,
        cfg_rescale=0.7,
        clip_skip=2,
        sampler="Euler a",
        schedule="karras",
        sigmas=[10.0, 5.0, 0.0],
        batch=2,
        tile=32,
        loras=(Lora("ink", 0.5), Lora("wash")),
        upscale=2.0,
        decode_with="taesd",
        preview_every=3,
    )


def test_previews_come_at_every_step_unless_said() -> None:
    assert asked("--preview-dir", ".").preview_every == 1


@pytest.mark.parametrize(
    ("text", "lora"),
    [("ink", Lora("ink")), ("ink:0.8", Lora("ink", 0.8)), ("a:b", Lora("a:b")), ("a:b:-1", Lora("a:b", -1.0))],
)
def test_a_lora_is_a_name_and_perhaps_a_weight(text: str, lora: Lora) -> None:
    assert options.lora(text) == lora


def test_a_picture_to_begin_from_with_its_mask(pictures: Path) -> None:
    redraw = asked("--init-image", pictures / "photo.png").redraw
    assert redraw is not None and redraw.mask is None and (redraw.strength, redraw.fit) == (0.75, "crop")
    np.testing.assert_array_equal(redraw.image, photograph())
    redraw = asked(
        *("--init-image", pictures / "photo.png", "--mask", pictures / "mask.png", "--strength", 0, "--resize", "fill"),
        *("--mask-blur", 0, "--inpaint-fill", "latent_noise", "--only-masked", "--mask-padding", 0),
    ).redraw
    assert redraw is not None and redraw.mask is not None and redraw.mask.mean() == pytest.approx(900 / 6300)
    assert (redraw.strength, redraw.fit, redraw.mask_blur, redraw.fill) == (0, "fill", 0, "latent_noise")
    assert redraw.only_masked and redraw.padding == 0


def test_a_mask_of_another_picture_is_refused(pictures: Path) -> None:
    with pytest.raises(RequestError, match="mask: 32x32 pixels, and the picture has 90x70: make them alike"):
        asked("--init-image", pictures / "photo.png", "--mask", pictures / "small.png")


def test_a_second_pass() -> None:
    settings = ("--hires-steps", 9, "--hires-strength", 0.4, "--hires-upscaler", "lanczos")
    for arguments, expected in (((), (2, None, 0.7, "latent")), (settings, (2, 9, 0.4, "lanczos"))):
        found = asked("--hires", 2, *arguments).hires
        assert found is not None and (found.scale, found.steps, found.strength, found.upscaler) == expected


def test_several_controlnets_each_with_its_picture(pictures: Path) -> None:
    one, other = asked(
        *("--controlnet", "a", "--control-image", pictures / "photo.png", "--controlnet", "b"),
        *("--control-image", pictures / "mask.png", "--control-strength", 0.5, "--control-end", 0.6, "--canny"),
    ).controls
    assert (one.path, one.strength, one.start, one.end, one.canny) == (Path("a"), 0.5, 0, 0.6, (100, 200))
    assert other.path == Path("b") and other.image.shape == (70, 90, 3) and other.image[30, 40].tolist() == [255] * 3


@pytest.mark.parametrize("text", ["x", "1", "1,2,3", "nan,1", "1.5,2", "inf,inf"])
def test_thresholds_are_two_whole_numbers(pictures: Path, text: str) -> None:
    with pytest.raises(RequestError, match=r"--canny .*: give two whole numbers with a comma, such as 100,200"):
        asked("--controlnet", "a", "--control-image", pictures / "photo.png", "--canny", text)


@pytest.mark.parametrize("option", sorted(options.BELONGS_TO))
def test_an_option_that_belongs_to_another_is_refused_without_it(pictures: Path, option: str) -> None:
    """Also at its default value: what was said was meant."""
    values = {
        **dict.fromkeys(("mask", "control_image"), pictures / "mask.png"),
        "resize": "crop",
        "inpaint_fill": "original",
        "hires_upscaler": "latent",
    }
    switches = ("only_masked", "canny")
    given = (options.flag(option),) if option in switches else (options.flag(option), values.get(option, 0))
    needed = options.flag(options.BELONGS_TO[option])
    with pytest.raises(ConfigError, match=f"{options.flag(option)} does nothing without {needed}: give that too"):
        asked(*given)


def test_files_that_are_not_there_are_named(pictures: Path) -> None:
    with pytest.raises(ConfigError, match="--controlnet /nonexistent: no such file"):
        options.model_files(parsed("--controlnet", "/nonexistent", "--control-image", pictures / "photo.png"))
    with pytest.raises(ConfigError, match="--upscaler /nonexistent: no such file"):
        options.model_files(parsed("--upscaler", "/nonexistent"))


def test_loras_are_called_by_their_names_and_the_first_folder_wins(pictures: Path, shelf: Path) -> None:
    for folder in ("mine", "more/deep"):
        (pictures / folder).mkdir(parents=True)
        (pictures / folder / "ink.safetensors").write_bytes(b"")
    (pictures / "more/deep/other.safetensors").write_bytes(b"")
    files = options.model_files(
        parsed("--model", shelf / "sd15.safetensors", "--lora-dir", pictures / "mine", "--lora-dir", pictures / "more")
    )
    assert files.loras["ink"] == pictures / "mine/ink.safetensors"
    assert files.loras["other"] == pictures / "more/deep/other.safetensors"
    assert files.family.name == "sd1"


def test_one_checkpoint_is_a_whole_model_and_a_named_file_takes_its_part(shelf: Path, pictures: Path) -> None:
    whole = options.model_files(parsed("--model", shelf / "sd15.safetensors"))
    assert set(whole.paths.values()) == {(shelf / "sd15.safetensors",)}
    other = options.model_files(
        parsed("--model", shelf / "sd15.safetensors", "--taesd", shelf / "taesd.safetensors", "--prediction", "v")
    )
    assert other.of("taesd") == (shelf / "taesd.safetensors",) and other.prediction == "v"
