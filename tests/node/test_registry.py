"""Models by the names of requests, which are never paths."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_sd
from llm.tiny_model import write_model
from relight import demo
from relight.configuration.load import load
from relight.errors import RequestError
from relight.jobs.models import files_in
from relight.node.opened import registry_of
from relight.node.registry import EMBEDDED, Registry


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """relight's own directory with a folder of models in it."""
    monkeypatch.setenv("RELIGHT_MODELS", str(tmp_path))
    monkeypatch.delenv("RELIGHT_MODEL_PATHS", raising=False)
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


def test_an_empty_machine_has_the_model_that_ships(folder: Path) -> None:
    registry = Registry()
    assert list(registry.entries()) == [EMBEDDED]
    assert registry.files(EMBEDDED) == files_in(demo.EMBEDDED)


def test_models_in_folders_have_the_kind_that_their_tensors_say(folder: Path) -> None:
    tiny_sd.sd1(folder / "picture.safetensors")
    write_model(folder / "words.gguf")
    entries = Registry().entries()
    assert {name: entry.kind for name, entry in entries.items()} == {
        "mine/picture.safetensors": "image",
        "mine/words.gguf": "chat",
        EMBEDDED: "image",
    }
    assert Registry().files("mine/picture.safetensors").of("diffusion") == (folder / "picture.safetensors",)
    assert entries["mine/words.gguf"].path == folder / "words.gguf"
    assert entries["mine/words.gguf"].created == int((folder / "words.gguf").stat().st_mtime)


def test_a_named_language_model_goes_by_its_short_name(tmp_path: Path, folder: Path) -> None:
    path = write_model(tmp_path / "named.gguf")
    assert Registry(chat={"named": path}).chat_file("named") == path


@pytest.mark.parametrize("name", ["../other", "/etc/passwd", ".", "", "mine/../picture.safetensors", "mine"])
def test_paths_are_no_names(folder: Path, name: str) -> None:
    tiny_sd.sd1(folder.parent / "other")
    with pytest.raises(RequestError, match=f"there are .*{EMBEDDED}"):
        Registry().files(name)


def test_an_existing_file_is_not_opened_by_its_path(folder: Path) -> None:
    path = folder.parent / "outside.safetensors"
    tiny_sd.sd1(path)
    assert path.is_file()
    with pytest.raises(RequestError, match="is none for pictures here"):
        Registry().files(str(path))


def test_a_model_of_the_other_kind_is_refused(folder: Path) -> None:
    with pytest.raises(RequestError, match="none for conversations here; there are none"):
        Registry().chat_file(EMBEDDED)


def test_what_settings_name_is_a_model_and_comes_first(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "style.safetensors").write_bytes(b"")
    file = tmp_path / "relight.yaml"
    file.write_text(f"models:\n  model: {demo.EMBEDDED}\n  lora_dir: [{tmp_path / 'loras'}]\n")
    registry = registry_of(load(file))
    assert list(registry.entries()) == ["embedded", EMBEDDED]
    files = registry.files("embedded")
    assert files.paths == files_in(demo.EMBEDDED).paths and list(files.loras) == ["style"]


def test_a_model_here_that_settings_name_only_comes_first(tmp_path: Path, folder: Path) -> None:
    for name in ("a", "b"):
        tiny_sd.sd1(folder / f"{name}.safetensors")
    file = tmp_path / "settings" / "relight.yaml"
    file.parent.mkdir()
    file.write_text("models:\n  model: mine/b.safetensors\n")
    registry = registry_of(load(file))
    assert list(registry.entries()) == ["mine/b.safetensors", "mine/a.safetensors", EMBEDDED]
    assert registry.where("mine/b.safetensors") == "mine/b.safetensors"
