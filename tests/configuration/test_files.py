"""Files that settings name: where they are found, and whether they are what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_flux
from relight.configuration.files import check_formats, find, named_files
from relight.configuration.load import Loaded, load
from relight.errors import ConfigError
from relight.jobs.request import ModelFiles
from relight.store.places import Places


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return tiny_flux.write(tmp_path_factory.mktemp("tiny"))


def places(folder: Path, **environ: str) -> Places:
    return Places.of({"RELIGHT_MODELS": str(folder)} | environ)


def loaded(text: str, folder: Path) -> Loaded:
    (folder / "relight.yaml").write_text(text)
    return load(environ={}, folder=folder)


def test_a_file_is_taken_from_where_it_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "here.gguf").touch()
    assert find(tmp_path / "here.gguf", places(tmp_path / "models"), "x") == tmp_path / "here.gguf"


@pytest.mark.parametrize("said", ["/models/ae.safetensors", "E:\\models\\ae.safetensors"])
@pytest.mark.parametrize("where", ["", "hub/owner/repo", "vae"])
def test_else_it_is_found_by_name_under_the_model_folder(tmp_path: Path, said: str, where: str) -> None:
    file = tmp_path / where / "ae.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    assert find(Path(said), places(tmp_path), "x") == file


def test_folders_of_other_programs_are_looked_through_too(tmp_path: Path) -> None:
    file = tmp_path / "ComfyUI/models/vae/ae.safetensors"
    file.parent.mkdir(parents=True)
    file.touch()
    other = str(tmp_path / "ComfyUI/models")
    assert find(Path("/models/ae.safetensors"), places(tmp_path / "own", RELIGHT_MODEL_PATHS=other), "x") == file


def test_a_file_that_is_nowhere_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^relight.yaml:8: path: .*gone.gguf: no such file, and none of this name"):
        find(tmp_path / "gone.gguf", places(tmp_path), "relight.yaml:8: path")


def test_a_file_taken_from_elsewhere_is_noted(tmp_path: Path) -> None:
    (tmp_path / "ae.safetensors").touch()
    found = loaded("model_routing:\n  decoder:\n    path: /nowhere/ae.safetensors\n", tmp_path)
    files, (note,) = named_files(found, places(tmp_path))
    assert files == {"vae": tmp_path / "ae.safetensors"}
    assert note.startswith("relight.yaml:3: model_routing.decoder.path: /nowhere/ae.safetensors is not there; ")


def test_only_files_that_are_wanted_are_looked_for(tmp_path: Path) -> None:
    found = loaded("model_routing:\n  decoder:\n    path: /nowhere/ae.safetensors\n", tmp_path)
    assert named_files(found, places(tmp_path), {"diffusion"}) == ({}, [])


def test_the_right_format_is_accepted(tmp_path: Path, tiny: ModelFiles) -> None:
    found = loaded("model_routing:\n  diffusion: {quantization: FP16}\n  decoder: {quantization: f16}\n", tmp_path)
    assert check_formats(found, tiny) == []


def test_another_quantisation_is_refused_with_both_formats(tmp_path: Path, tiny: ModelFiles) -> None:
    found = loaded("model_routing:\n  diffusion:\n    quantization: Q4_K_S\n", tmp_path)
    with pytest.raises(
        ConfigError, match=r"relight.yaml:3: .*quantization says Q4_K, and .*tiny.safetensors is in F16"
    ):
        check_formats(found, tiny)


def test_another_width_of_float_is_noted(tmp_path: Path, tiny: ModelFiles) -> None:
    found = loaded("model_routing:\n  decoder:\n    quantization: fp32\n", tmp_path)
    (note,) = check_formats(found, tiny)
    assert "says F32, and ae.safetensors is in F16: it is used as it is" in note


def test_a_file_named_by_option_is_not_checked(tmp_path: Path, tiny: ModelFiles) -> None:
    found = loaded("model_routing:\n  diffusion:\n    quantization: Q4_K\n", tmp_path)
    assert check_formats(found, tiny, {"vae"}) == []
