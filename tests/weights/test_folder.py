"""Components found in the folders people have."""

from __future__ import annotations

from pathlib import Path

import pytest

import checkpoints as made
from relight.errors import ModelFileError
from relight.weights.checkpoint import open_component
from relight.weights.folder import find_components
from relight.weights.recognise import FAMILIES

UNIGRAM = '{"model": {"type": "Unigram", "vocab": []}}'
BPE = '{"model": {"type": "BPE", "vocab": {}}}'


def put(folder: Path, names: dict[str, str]) -> None:
    """Tiny networks by file name; the ending chooses the writer."""
    for name, kind in names.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write = made.leejet if path.suffix == ".gguf" else made.safetensors
        write(path, made.arrays(kind))


FLAT = {"flux.gguf": "diffusion", "clip_l.safetensors": "clip_l", "t5.safetensors": "t5xxl", "ae.safetensors": "vae"}
COMFY = {
    "unet/flux1.gguf": "diffusion",
    "clip/clip_l.safetensors": "clip_l",
    "text_encoders/t5xxl_fp16.safetensors": "t5xxl",
    "vae/ae.safetensors": "vae",
}
MISNAMED = {"a.gguf": "vae", "vae.safetensors": "diffusion", "clip_l.safetensors": "t5xxl", "t5xxl.gguf": "clip_l"}


@pytest.mark.parametrize("layout", [FLAT, COMFY, MISNAMED], ids=["flat", "comfy", "misnamed"])
def test_components_are_told_by_their_tensors(layout: dict[str, str], tmp_path: Path) -> None:
    put(tmp_path, layout)
    found = find_components(tmp_path)
    assert {kind: found.require(kind) for kind in FAMILIES["flux"]} == {
        kind: (tmp_path / name,) for name, kind in layout.items()
    }
    assert (found.missing, found.others, found.unreadable) == ({}, {}, {})


def test_diffusers_folder_is_found_whole(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    made.sharded(tmp_path / "transformer", made.diffusers_flux(made.arrays("diffusion")))
    made.sharded(tmp_path / "text_encoder_2", made.arrays("t5xxl"), shards=2, stem="model")
    put(tmp_path, {"text_encoder/model.safetensors": "clip_l", "vae/diffusion_pytorch_model.safetensors": "vae"})
    for name, text in (("tokenizer", BPE), ("tokenizer_2", UNIGRAM)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(text)
    found = find_components(tmp_path)
    assert [len(found.require(kind)) for kind in FAMILIES["flux"]] == [1, 2, 3, 1]
    assert found.tokenizers == (tmp_path / "tokenizer_2" / "tokenizer.json",)
    for kind in FAMILIES["flux"]:
        assert open_component(kind, found.require(kind)).kind == kind


def test_quantised_transformer_is_chosen_and_the_rest_listed(tmp_path: Path) -> None:
    tensors = made.arrays("diffusion")
    full = made.safetensors(tmp_path / "flux1-schnell.safetensors", tensors, "BF16")
    eight = made.city96(tmp_path / "flux1-schnell-Q8_0.gguf", tensors, "Q8_0")
    four = made.city96(tmp_path / "flux1-schnell-Q4_K_S.gguf", tensors, "Q4_K")
    two = made.city96(tmp_path / "flux1-schnell-Q2_K.gguf", tensors, "Q2_K")
    found = find_components(tmp_path)
    assert found.get("diffusion") == (four,)
    assert found.others == {"diffusion": ((two,), (eight,), (full,))}


def test_file_of_its_own_is_chosen_before_an_all_in_one(tmp_path: Path) -> None:
    everything = made.arrays("diffusion") | made.prefixed("vae.", made.arrays("vae"))
    whole = made.safetensors(tmp_path / "a.safetensors", everything)
    alone = made.safetensors(tmp_path / "b.safetensors", made.arrays("vae"))
    found = find_components(tmp_path)
    assert (found.get("vae"), found.get("diffusion"), found.others) == ((alone,), (whole,), {"vae": ((whole,),)})


def test_autoencoder_of_the_transformers_latents_is_chosen(tmp_path: Path) -> None:
    made.city96(tmp_path / "flux.gguf", made.arrays("diffusion"))
    sd = made.safetensors(tmp_path / "a.safetensors", made.arrays("vae", latent=4))
    flux = made.safetensors(tmp_path / "b.safetensors", made.arrays("vae", latent=16), "F16")
    found = find_components(tmp_path)
    assert (found.get("vae"), found.others) == ((flux,), {"vae": ((sd,),)})


@pytest.mark.parametrize(("kind", "other"), [("clip_l", 128), ("t5xxl", 128)])
def test_text_encoder_of_the_transformers_width_is_chosen(kind: str, other: int, tmp_path: Path) -> None:
    made.city96(tmp_path / "flux.gguf", made.arrays("diffusion"))
    made.safetensors(tmp_path / "a.safetensors", made.arrays(kind, hidden=other))
    fitting = made.safetensors(tmp_path / "b.safetensors", made.arrays(kind))
    assert find_components(tmp_path).require(kind) == (fitting,)


def test_whole_file_is_chosen_before_an_incomplete_one(tmp_path: Path) -> None:
    tensors = made.arrays("vae")
    part = {name: array for name, array in tensors.items() if "norm_out" not in name}
    made.safetensors(tmp_path / "a.safetensors", part)
    whole = made.safetensors(tmp_path / "b.safetensors", tensors)
    assert find_components(tmp_path).get("vae") == (whole,)


def test_missing_component_says_what_to_add(tmp_path: Path) -> None:
    put(tmp_path, {"flux.gguf": "diffusion"})
    found = find_components(tmp_path)
    assert set(found.missing) == {"clip_l", "t5xxl", "vae"}
    with pytest.raises(ModelFileError, match=r"no vae here: add the FLUX autoencoder \(ae\.safetensors\)"):
        found.require("vae")


def test_broken_files_and_pickles_are_passed_over_with_the_reason(tmp_path: Path) -> None:
    put(tmp_path, {"ae.safetensors": "vae"})
    (tmp_path / "flux.gguf").write_bytes(b"GGUF")
    (tmp_path / "t5.pt").write_bytes(b"\x80\x02")
    found = find_components(tmp_path)
    assert found.get("vae") is not None
    assert {path.name for path in found.unreadable} == {"flux.gguf", "t5.pt"}
    with pytest.raises(ModelFileError, match="no diffusion here.*passed over .*cut short"):
        found.require("diffusion")


def test_tokenizer_beside_t5_comes_first(tmp_path: Path) -> None:
    put(tmp_path, {"text_encoders/t5.safetensors": "t5xxl"})
    for name in ("a_tokenizer.json", "text_encoders/t5_tokenizer.json"):
        (tmp_path / name).write_text(UNIGRAM)
    (tmp_path / "tokenizer.json").write_text(BPE)
    found = find_components(tmp_path)
    assert found.tokenizers == (tmp_path / "text_encoders/t5_tokenizer.json", tmp_path / "a_tokenizer.json")
    assert found.tokenizer == found.tokenizers[0]


def test_linked_files_are_followed(tmp_path: Path) -> None:
    """Caches of downloads keep blobs elsewhere and link to them."""
    put(tmp_path / "blobs", {"0123": "vae"})
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "ae.safetensors").symlink_to(tmp_path / "blobs" / "0123")
    assert find_components(tmp_path / "snapshot").get("vae") == (tmp_path / "snapshot" / "ae.safetensors",)


def test_file_that_is_no_model_is_named_for_what_it_is(tmp_path: Path) -> None:
    put(tmp_path, {"ae.safetensors": "vae"})
    with pytest.raises(ModelFileError, match="holds AutoencoderKL 16 channels.*not a model; give a checkpoint"):
        find_components(tmp_path / "ae.safetensors")
