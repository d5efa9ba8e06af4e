"""Where models are looked for on each platform, and folders of other programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from relight.errors import ConfigError, StoreError
from relight.store.places import Places, models_of


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.setenv("HOME", str(home))
    return home


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_each_platform_has_its_directory(home: Path, tmp_path: Path) -> None:
    xdg, local = str(tmp_path / "xdg"), str(tmp_path / "local")
    assert Places.of({"XDG_DATA_HOME": xdg}, "linux").directory == Path(xdg, "relight/models")
    assert Places.of({}, "linux").directory == home / ".local/share/relight/models"
    assert Places.of({"XDG_DATA_HOME": "relative"}, "linux").directory == home / ".local/share/relight/models"
    assert Places.of({"LOCALAPPDATA": local}, "win32").directory == Path(local, "relight/models")
    assert Places.of({}, "darwin").directory == home / "Library/Application Support/relight/models"


def test_the_variable_comes_first(home: Path) -> None:
    assert Places.of({"RELIGHT_MODELS": "~/big"}, "linux").directory == home / "big"


@pytest.mark.parametrize("inner", ["checkpoints", "Stable-diffusion"])
def test_of_an_installation_the_models_inside_are_taken(home: Path, inner: str) -> None:
    folder(home / "Program/models" / inner)
    assert models_of(home / "Program") == home / "Program/models"
    assert models_of(home / "Program/models") == home / "Program/models"


def test_an_added_folder_is_written_without_this_machines_root(home: Path, tmp_path: Path) -> None:
    places = Places(tmp_path / "disk/models", {})
    folder(home / "ComfyUI/models/vae")
    beside = folder(tmp_path / "disk/sd")
    assert places.add_folder(home / "ComfyUI") == home / "ComfyUI/models"
    places.add_folder(beside)
    places.add_folder(beside)  # once more changes nothing
    stored = json.loads((places.directory / "folders.json").read_text())["folders"]
    assert stored == ["~/ComfyUI/models", "../sd"]
    assert places.folders() == {"comfyui": home / "ComfyUI/models", "sd": beside}


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [folder(tmp_path / part / "ComfyUI") for part in "ab"]
    places = Places(tmp_path / "models", {"RELIGHT_MODEL_PATHS": ":".join(map(str, paths))})
    assert places.folders() == {"comfyui": paths[0], "comfyui-2": paths[1]}


def test_a_folder_is_forgotten_not_removed(tmp_path: Path) -> None:
    places = Places(tmp_path / "models", {})
    found = places.add_folder(folder(tmp_path / "sd"))
    assert places.forget_folder(found) and not places.forget_folder(found)
    assert places.folders() == {} and found.is_dir()


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        Places(tmp_path, {}).add_folder(tmp_path / "absent")


def test_a_broken_file_of_folders_is_named(tmp_path: Path) -> None:
    (tmp_path / "folders.json").write_text("[]")
    with pytest.raises(StoreError, match="folders.json"):
        Places(tmp_path, {}).folders()
