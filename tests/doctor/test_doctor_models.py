"""From the names a user gives to files and what they take."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_flux
from doctor.boxes import flux
from relight.doctor.models import ModelFile, ModelSet, model_sets
from relight.errors import RequestError
from relight.store.places import Places


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "models", {})


def test_t5_stays_in_memory_and_the_backbone_goes_to_the_card() -> None:
    model = flux(t5_bytes=5_000)
    assert (model.card_bytes, model.host_bytes(has_gpu=True)) == (6_783_943_712, 5_000)
    assert model.host_bytes(has_gpu=False) == model.bytes and model.largest.role == "diffusion"


def test_t5_in_8_bits_of_float_grows_when_it_is_loaded() -> None:
    model = ModelSet("m", (ModelFile("t5xxl", Path("t5"), 100, grows=2), ModelFile("vae", Path("vae"), 10)))
    assert (model.host_bytes(has_gpu=True), model.host_bytes(has_gpu=False)) == (200, 210)


def test_a_folder_is_taken_by_its_components(places: Places, tmp_path: Path) -> None:
    files = tiny_flux.write(tmp_path / "tiny")
    (found,) = model_sets([str(tmp_path / "tiny")], places)
    assert {file.role for file in found.files} == {"diffusion", "clip_l", "t5xxl", "vae"}
    assert found.bytes == sum(path.stat().st_size for kind in files.paths for path in files.paths[kind])
    assert all(file.path.is_absolute() for file in found.files)


def test_a_file_alone_is_a_model(places: Places, tmp_path: Path) -> None:
    file = tmp_path / "llama.gguf"
    file.write_bytes(b"GGUF" + bytes(96))
    (found,) = model_sets([str(file)], places)
    assert (found.card_bytes, found.files[0].role) == (100, "model")


def test_nothing_pulled_is_no_model_and_a_wrong_name_an_error(places: Places) -> None:
    assert model_sets([], places) == ()
    with pytest.raises(RequestError, match="flux-schnel"):
        model_sets(["flux-schnel"], places)
