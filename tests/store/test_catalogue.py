"""What is on the machine: listed, found by name, verified, removed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import checkpoints as made
import tiny_sd
from llm.tiny_model import write_model
from relight import demo
from relight.errors import RequestError, StoreError
from relight.store.catalogue import find_model, models, remove, verify, verify_header, weights_in
from relight.store.manifest import KeptFile, Manifest, find_manifest, own_place
from relight.store.places import Places
from relight.tuning.commands import default_models
from relight.weights.container import open_container
from relight.weights.folder import Components, find_components

REPO = "maker/tiny"
ROLES = {
    "flux.gguf": "diffusion",
    "clip_l.safetensors": "clip_l",
    "t5.safetensors": "t5xxl",
    "ae.safetensors": "vae",
    "tokenizer.json": "tokenizer",
}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.setenv("RELIGHT_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("RELIGHT_MODEL_PATHS", raising=False)
    return Places.of()


def write(path: Path, kind: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "tokenizer":
        path.write_text('{"model": {"type": "Unigram"}}')
    elif path.suffix == ".gguf":
        made.leejet(path, made.arrays(kind))
    else:
        made.safetensors(path, made.arrays(kind))
    return path


def pulled(places: Places, name: str, files: dict[str, str]) -> Manifest:
    """A set as `pull` leaves it."""
    kept = []
    for path, role in files.items():
        place = own_place(places, REPO, path)
        if not place.exists():
            write(place, "diffusion" if role == "model" else role)
        body = place.read_bytes()
        kept.append(KeptFile(role, REPO, path, "c0ffee", len(body), hashlib.sha256(body).hexdigest()))
    manifest = Manifest(name, name.title(), ("MIT",), tuple(kept))
    manifest.write(places)
    return manifest


def test_a_set_is_listed_with_family_formats_and_size(places: Places) -> None:
    manifest = pulled(places, "flux-tiny", ROLES)
    (model,) = models(places)
    assert (model.name, model.family, model.missing) == ("flux-tiny", "FLUX.1 schnell", ())
    assert {"Q8_0", "F32"} <= set(model.formats)
    assert model.size == sum(file.size for file in manifest.files)
    assert json.loads(json.dumps(model.as_dict()))["complete"] is True


def test_the_warm_up_takes_sets_that_draw(places: Places) -> None:
    assert default_models() == [demo.EMBEDDED]
    pulled(places, "flux-tiny", ROLES)
    for name, role in (("qwen-tiny", "model"), ("ae-tiny", "vae")):
        place = own_place(places, REPO, f"{name}.gguf")
        if role == "model":
            write_model(place)
        pulled(places, name, {place.name: role})
    assert [model.family for model in models(places) if model.name == "qwen-tiny"] == ["language model"]
    assert default_models() == ["flux-tiny"]


def test_a_set_says_what_it_lacks(places: Places) -> None:
    pulled(places, "flux-tiny", ROLES)
    own_place(places, REPO, "ae.safetensors").unlink()
    short = own_place(places, REPO, "clip_l.safetensors")
    short.write_bytes(short.read_bytes()[:1000])
    (model,) = models(places)
    assert model.missing[0].startswith("clip_l.safetensors: 1000 of ")
    assert model.missing[1] == "ae.safetensors: not there"


def test_a_flux_set_is_found_as_its_components(places: Places) -> None:
    pulled(places, "flux-tiny", ROLES)
    found = find_model("flux-tiny")
    assert isinstance(found, Components) and found.missing == {}
    paths = [found.require(kind) for kind in ("diffusion", "clip_l", "t5xxl", "vae")]
    assert [path.name for (path,) in paths] == ["flux.gguf", "clip_l.safetensors", "t5.safetensors", "ae.safetensors"]
    assert found.tokenizer is not None and found.tokenizer.name == "tokenizer.json"


def test_a_set_of_one_file_is_found_as_that_file(places: Places) -> None:
    pulled(places, "sd-tiny", {"sd.safetensors": "model"})
    assert find_model("sd-tiny") == own_place(places, REPO, "sd.safetensors")


@pytest.mark.parametrize(("name", "write_checkpoint"), [("sd15", tiny_sd.sd1), ("sdxl-turbo", tiny_sd.sdxl)])
def test_a_stable_diffusion_set_is_a_whole_model(
    name: str, write_checkpoint: Callable[[Path], object], places: Places
) -> None:
    place = own_place(places, REPO, "model.safetensors")
    place.parent.mkdir(parents=True)
    write_checkpoint(place)
    pulled(places, name, {"model.safetensors": "model"})
    (model,) = models(places)
    assert model.missing == () and "UNet" in model.family
    path = find_model(name)
    assert isinstance(path, Path)
    found = find_components(path)
    assert found.missing == {} and set(found.files.values()) == {(place,)}


def test_a_checkpoint_that_lacks_a_network_says_which(places: Places) -> None:
    place = own_place(places, REPO, "model.safetensors")
    place.parent.mkdir(parents=True)
    tiny_sd.sdxl(place)
    container = open_container(place)
    rest = {
        name: np.array(container.bytes_of(entry)).view(np.float16).reshape(entry.shape)
        for name, entry in container.entries.items()
        if not name.startswith("conditioner.embedders.1.")
    }
    made.safetensors(place, rest)
    pulled(places, "sdxl-cut", {"model.safetensors": "model"})
    assert models(places)[0].missing == ("model.safetensors: no clip_g in it",)


def test_an_incomplete_set_is_not_used(places: Places) -> None:
    pulled(places, "flux-tiny", ROLES)
    own_place(places, REPO, "t5.safetensors").unlink()
    with pytest.raises(StoreError, match=r"t5\.safetensors is not there any more; run `relight pull flux-tiny`"):
        find_model("flux-tiny")


def test_a_path_is_what_it_is(places: Places, tmp_path: Path) -> None:
    assert find_model(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("flux-schnell-q4", "not on this machine yet: relight pull flux-schnell-q4"),
        ("flux-tin", "did you mean flux-tiny?"),
        ("../sets/flux-tiny", "no such path"),
    ],
)
def test_an_unknown_name_gets_a_way_out(places: Places, name: str, words: str) -> None:
    pulled(places, "flux-tiny", {"flux.gguf": "diffusion"})
    with pytest.raises(RequestError) as caught:
        find_model(name)
    assert words in str(caught.value)


def test_comfyuis_files_are_recognised_where_they_lie(places: Places, tmp_path: Path) -> None:
    comfy = tmp_path / "ComfyUI"
    for path, kind in {
        "unet/flux1.gguf": "diffusion",
        "text_encoders/clip_l.safetensors": "clip_l",
        "text_encoders/t5xxl_fp16.safetensors": "t5xxl",
        "vae/ae.safetensors": "vae",
    }.items():
        write(comfy / "models" / path, kind)
    (comfy / "models/checkpoints").mkdir()
    (comfy / "models/checkpoints/broken.safetensors").write_bytes(b"<html>")
    places.add_folder(comfy)
    listed = {model.name: model for model in models(places)}
    assert listed["comfyui/unet/flux1.gguf"].family == "FLUX.1 schnell"
    assert listed["comfyui/vae/ae.safetensors"].family.startswith("AutoencoderKL 16")
    assert "web page" in listed["comfyui/checkpoints/broken.safetensors"].missing[0]
    assert find_model("comfyui") == comfy / "models"
    assert find_model("flux1") == find_model("comfyui/unet/flux1.gguf") == comfy / "models/unet/flux1.gguf"
    folder = find_model("comfyui")
    assert isinstance(folder, Path) and find_components(folder).missing == {}


def test_shards_are_listed_once(tmp_path: Path) -> None:
    made.sharded(tmp_path / "transformer", made.diffusers_flux(made.arrays("diffusion")))
    assert [path.name[-22:] for path in weights_in(tmp_path)] == ["00001-of-00003.safetensors"[-22:]]


def test_a_folder_put_into_the_model_directory_is_one_too(places: Places) -> None:
    write(places.directory / "mine/ae.safetensors", "vae")
    pulled(places, "flux-tiny", {"flux.gguf": "diffusion"})
    assert [model.name for model in models(places)] == ["flux-tiny", "mine/ae.safetensors"]
    assert find_model("mine") == places.directory / "mine"


def test_a_folder_that_is_gone_is_said(places: Places, tmp_path: Path) -> None:
    (tmp_path / "sd").mkdir()
    places.add_folder(tmp_path / "sd")
    (tmp_path / "sd").rmdir()
    (model,) = models(places)
    assert model.missing == ("the folder is not there",)


def test_verify_finds_a_flipped_bit(places: Places) -> None:
    manifest = pulled(places, "flux-tiny", ROLES)
    assert verify(manifest, places) == {}
    place = own_place(places, REPO, "ae.safetensors")
    body = bytearray(place.read_bytes())
    body[-1] ^= 1
    place.write_bytes(body)
    wrong = verify(manifest, places)
    assert list(wrong) == ["ae.safetensors"]
    assert hashlib.sha256(body).hexdigest() in wrong["ae.safetensors"]


def test_verify_names_what_is_short_or_gone(places: Places) -> None:
    manifest = pulled(places, "flux-tiny", ROLES)
    own_place(places, REPO, "flux.gguf").unlink()
    own_place(places, REPO, "t5.safetensors").write_bytes(b"short")
    wrong = verify(manifest, places)
    assert wrong["flux.gguf"].startswith("not there") and wrong["t5.safetensors"].startswith("has 5 bytes, and ")


def test_a_header_tells_a_file_that_is_not_whole(tmp_path: Path) -> None:
    arrays = made.arrays("diffusion")
    arrays.pop("final_layer.linear.bias")
    assert "final_layer.linear.bias" in str(verify_header(made.safetensors(tmp_path / "part.safetensors", arrays)))
    assert verify_header(write(tmp_path / "whole.safetensors", "vae")) is None


def test_remove_keeps_what_other_sets_use(places: Places) -> None:
    pulled(places, "two", {"other.gguf": "diffusion", "ae.safetensors": "vae"})
    manifest = pulled(places, "one", {"flux.gguf": "diffusion", "ae.safetensors": "vae"})
    part = own_place(places, REPO, "flux.gguf.0123456789abcdef.part")
    part.write_bytes(b"begun")
    assert remove(manifest, places) == manifest.files[0].size
    assert sorted(path.name for path in own_place(places, REPO, "").iterdir()) == ["ae.safetensors", "other.gguf"]
    assert find_manifest(places, "one") is None and find_manifest(places, "two") is not None
    remove(pulled(places, "two", {"other.gguf": "diffusion", "ae.safetensors": "vae"}), places)
    assert not own_place(places, "maker", "").exists()


@pytest.mark.parametrize(
    "change", [{"path": "../../../mine"}, {"repository": "/etc"}, {"sha256": "x"}, {"role": "cat"}]
)
def test_a_manifest_that_leads_out_of_the_store_is_refused(places: Places, change: dict[str, str]) -> None:
    pulled(places, "tiny", {"ae.safetensors": "vae"})
    file = places.directory / "sets/tiny.json"
    stored = json.loads(file.read_text())
    stored["files"][0] |= change
    file.write_text(json.dumps(stored))
    with pytest.raises(StoreError, match=r"tiny\.json"):
        models(places)
