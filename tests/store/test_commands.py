"""The commands as a user types them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

import checkpoints as made
from relight.errors import RequestError, StoreError
from relight.store.commands import add_commands
from relight.store.manifest import own_place
from relight.store.places import Places
from store.hub_server import Hub


def run(*words: str) -> None:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True), argparse.ArgumentParser(add_help=False))
    arguments = parser.parse_args(words)
    arguments.run(arguments)


@pytest.fixture
def tiny(hub: Hub, places: Places, tmp_path: Path) -> str:
    hub.large["maker/vae", "tiny.safetensors"] = made.safetensors(tmp_path / "v", made.arrays("vae")).read_bytes()
    return "hf:maker/vae/tiny.safetensors"


def test_pull_list_verify_remove(tiny: str, places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    run("pull", tiny)
    assert "tiny: complete" in capsys.readouterr().out
    run("models", "--json")
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert (model["name"], model["complete"]) == ("tiny", True) and model["family"].startswith("AutoencoderKL")
    run("models")
    assert "AutoencoderKL 16 channels (FLUX)  [F32]  complete" in capsys.readouterr().out
    run("models", "verify")
    assert "tiny: 1 files, headers and hashes right" in capsys.readouterr().err
    run("models", "rm", "tiny")
    assert "removed" in capsys.readouterr().out
    assert not own_place(places, "maker/vae", "tiny.safetensors").exists()
    run("models")
    assert "relight pull" in capsys.readouterr().out


def test_verify_ends_with_an_error_when_something_is_wrong(
    tiny: str, places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    run("pull", tiny)
    own_place(places, "maker/vae", "tiny.safetensors").write_bytes(b"short")
    with pytest.raises(StoreError, match="1 of the files is not"):
        run("models", "verify", "tiny")
    assert "tiny: tiny.safetensors: has 5 bytes" in capsys.readouterr().err


def test_files_of_one_name_from_two_repositories_are_two_models(hub: Hub, tiny: str, places: Places) -> None:
    hub.large["other/vae2", "tiny.safetensors"] = b"other bytes"
    run("pull", tiny)
    run("pull", "hf:other/vae2/tiny.safetensors")
    assert sorted(path.name for path in (places.directory / "sets").iterdir()) == ["tiny.json", "vae2-tiny.json"]


def test_a_folder_is_added_listed_and_forgotten(
    places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    made.safetensors(tmp_path / "mine/ae.safetensors", made.arrays("vae"))
    run("models", "add", str(tmp_path / "mine"))
    run("models")
    run("models", "verify", "mine")
    run("models", "rm", "mine")
    out = capsys.readouterr().out
    assert "mine: 1 model files" in out and "mine/ae.safetensors: header right" in out and "forgotten" in out
    assert (tmp_path / "mine/ae.safetensors").exists() and places.folders() == {}


def test_pull_alone_lists_what_can_be_had(capsys: pytest.CaptureFixture[str]) -> None:
    run("pull")
    out = capsys.readouterr().out
    assert "flux-schnell-q2" in out and "FLUX.1 [dev] Non-Commercial License" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pull", "flux"), "no set"),
        (("pull", "sd15", "--t5", "F16"), "has no T5"),
        (("models", "rm", "absent"), "no model pulled"),
        (("models", "verify", "absent"), "no model pulled"),
        (("quantize", "a", "b.gguf", "--type", "Q9"), "type Q9"),
        (("quantize", "a", "b.gguf", "--type", "Q4_K", "--threads", "0"), "1 to 1024"),
    ],
)
def test_wrong_usage_is_explained(places: Places, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        run(*words)


def test_quantize_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cyllama", reason="ggml's libraries are missing")
    source = made.safetensors(tmp_path / "flux.safetensors", made.arrays("diffusion"))
    out = tmp_path / "flux.gguf"
    run("quantize", str(source), str(out), "--type", "q4_k", "--rule", "single_blocks=Q8_0", "--threads", "1")
    text = capsys.readouterr().out
    assert text.startswith(f"{out}: ") and "in Q4_K" in text and "in Q8_0" in text and out.exists()
