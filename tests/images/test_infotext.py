"""Settings as A1111 writes and reads them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from relight.errors import RequestError
from relight.images.infotext import infotext, parse_parameters
from relight.images.read import read_image
from relight.images.write import FORMATS, encoded, read_parameters

SETTINGS: dict[str, object] = {
    "Steps": 20,
    "Sampler": "DPM++ 2M",
    "Schedule type": "Karras",
    "CFG scale": 7.5,
    "Seed": 965400086,
    "Size": "512x768",
    "Model": "photo, v1: pruned",
    "Clip skip": None,
    "Lora hashes": "detail: 0a1b, light: 2c3d",
}
TEXT = (
    "a cat, sitting\non a mat\nNegative prompt: ugly, (blurry:1.2)\nSteps: 20, Sampler: DPM++ 2M, "
    'Schedule type: Karras, CFG scale: 7.5, Seed: 965400086, Size: 512x768, Model: "photo, v1: pruned", '
    'Lora hashes: "detail: 0a1b, light: 2c3d"'
)
PUBLISHED = (
    "girl with an artist's beret, blue eyes, ((eyeshadow)), detailed\n"
    "Negative prompt: ugly, (((deformed))), [blurry]\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x512, Model hash: 45dee52b"
)
PICTURE = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)


def test_settings_are_written_in_their_order_and_without_what_is_none() -> None:
    assert infotext("a cat, sitting\non a mat", "ugly, (blurry:1.2)", SETTINGS) == TEXT


def test_without_a_negative_prompt_there_is_no_line_for_it() -> None:
    assert infotext("a cat", "", {"Steps": 1}) == "a cat\nSteps: 1"


def test_what_is_written_is_read() -> None:
    read = parse_parameters(TEXT)
    assert (read.pop("Prompt"), read.pop("Negative prompt")) == ("a cat, sitting\non a mat", "ugly, (blurry:1.2)")
    assert read == {name: str(value) for name, value in SETTINGS.items() if value is not None}


def test_what_a1111_wrote_is_read() -> None:
    read = parse_parameters(PUBLISHED)
    assert read["Prompt"] == "girl with an artist's beret, blue eyes, ((eyeshadow)), detailed"
    assert read["Negative prompt"] == "ugly, (((deformed))), [blurry]"
    assert (read["Sampler"], read["Size"], read["Model hash"]) == ("Euler a", "512x512", "45dee52b")


@pytest.mark.parametrize("text", ["", "a cat", "a cat: on, a: mat", "one\ntwo\n\nthree"])
def test_text_without_settings_is_a_prompt(text: str) -> None:
    assert parse_parameters(text) == {"Prompt": text, "Negative prompt": ""}


@given(st.text(max_size=200))
def test_any_text_is_read_as_something(text: str) -> None:
    assert {"Prompt", "Negative prompt"} <= parse_parameters(text).keys()


@given(st.text(max_size=60).filter(lambda text: "\r" not in text))
def test_any_value_is_read_back(value: str) -> None:
    settings = {"Steps": 1, "Model": f"x{value}x", "Seed": 2, "Size": "8x8"}
    assert parse_parameters(infotext("p", "", settings))["Model"] == f"x{value}x"


def test_a_hostile_line_takes_no_time() -> None:
    parse_parameters('a: "' + "\\" * 100_000 + "\n" + 'b: "' + 'x"' * 50_000)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("text", [TEXT, "", "Ein süßer Käfer 猫 🐈"])
def test_settings_are_read_again_from_every_format(format: str, text: str) -> None:
    assert read_parameters(encoded(PICTURE, text, format)) == text


@pytest.mark.parametrize("format", FORMATS)
def test_a_picture_is_what_its_format_says(format: str) -> None:
    image = read_image(encoded(PICTURE, TEXT, format, quality=100))
    assert image.shape == PICTURE.shape
    if format == "png":
        np.testing.assert_array_equal(image, PICTURE)


def test_quality_makes_files_smaller() -> None:
    assert len(encoded(PICTURE, format="jpeg", quality=20)) < len(encoded(PICTURE, format="jpeg", quality=95))


def test_settings_too_long_for_exif_are_left_out_and_the_picture_is_whole() -> None:
    content = encoded(PICTURE, "x" * 100_000, "jpeg")
    assert read_parameters(content) == "" and read_image(content).shape == PICTURE.shape


def test_a_png_of_someone_else_has_no_settings(tmp_path: object) -> None:
    path = f"{tmp_path}/plain.png"
    Image.fromarray(PICTURE).save(path)
    assert read_parameters(path) == ""


@pytest.mark.parametrize(("format", "quality"), [("gif", 90), ("jpeg", 0), ("webp", 101)])
def test_formats_and_qualities_there_are_not_are_refused(format: str, quality: int) -> None:
    with pytest.raises(RequestError, match=f"{format!r}|{quality} is not"):
        encoded(PICTURE, "", format, quality)
