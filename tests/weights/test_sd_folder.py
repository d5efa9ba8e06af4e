"""Models of Stable Diffusion found in the folders people have them in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import checkpoints as made
from checkpoints import prefixed
from published import CHECKPOINTS, original, sd1_checkpoint, sdxl_checkpoint, theirs, zeros
from relight.errors import ModelFileError
from relight.weights.checkpoint import open_component
from relight.weights.folder import find_components
from relight.weights.recognise import FAMILIES
from relight.weights.survey import describe_folder, folder_as_dict


@pytest.mark.parametrize("model", CHECKPOINTS)
def test_one_checkpoint_is_a_whole_model(model: str, tmp_path: Path) -> None:
    path = zeros(tmp_path / "cat.safetensors", CHECKPOINTS[model]())
    for given in (path, tmp_path):
        found = find_components(given)
        assert (found.family, found.kinds, found.missing) == (model, FAMILIES[model], {})
        assert {kind: found.require(kind) for kind in found.kinds} == dict.fromkeys(FAMILIES[model], (path,))
        assert (found.others, found.extras, found.unreadable) == ({}, {}, {})


@pytest.mark.parametrize("model", CHECKPOINTS)
def test_diffusers_folder_is_found_whole(model: str, tmp_path: Path) -> None:
    text = {"text_encoder": "clip_h" if model == "sd2" else "clip_l"}
    text |= {"text_encoder_2": "clip_g"} if model == "sdxl" else {}
    for folder, kind in text.items():
        zeros(tmp_path / folder / "model.safetensors", theirs(kind))
    zeros(tmp_path / "unet" / "diffusion_pytorch_model.safetensors", theirs(f"{model}_unet"))
    zeros(tmp_path / "unet" / "diffusion_pytorch_model.non_ema.safetensors", theirs(f"{model}_unet"))
    zeros(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", theirs("vae_4"))
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": "v_prediction"}))
    found = find_components(tmp_path)
    assert (found.family, found.missing, found.prediction) == (model, {}, "v")
    assert [path.name for path in found.require("unet")] == ["diffusion_pytorch_model.safetensors"]
    for kind in found.kinds:
        assert open_component(kind, found.require(kind)).kind == kind


def test_a_checkpoints_own_autoencoder_stays_with_it(tmp_path: Path) -> None:
    """A1111's tree: of several checkpoints one is chosen, with its own parts; the others are told."""
    models = tmp_path / "models"
    first = zeros(models / "Stable-diffusion" / "a.safetensors", sd1_checkpoint())
    second = zeros(models / "Stable-diffusion" / "b.safetensors", sd1_checkpoint())
    vae = zeros(models / "VAE" / "vae-ft-mse-840000.safetensors", original("vae_4"))
    lora = made.safetensors(
        models / "x.safetensors", {"lora_unet_double_blocks_0_x.lora_down.weight": made.np.ones((4, 8))}
    )
    found = find_components(tmp_path)
    assert {found.require(kind) for kind in found.kinds} == {(first,)}
    assert found.others == {"clip_l": ((second,),), "unet": ((second,),), "vae": ((vae,), (second,))}
    assert found.extras == {"lora": ((lora,),)}
    assert find_components(second).require("vae") == (second,)


def test_what_a_checkpoint_lacks_is_taken_from_its_tree(tmp_path: Path) -> None:
    """ComfyUI's tree: a UNet alone, the rest in folders beside; whole checkpoints lend nothing."""
    unet = zeros(tmp_path / "unet" / "sdxl.safetensors", original("sdxl_unet"))
    zeros(tmp_path / "checkpoints" / "other.safetensors", sdxl_checkpoint())
    parts = {
        "clip_l": zeros(tmp_path / "clip" / "clip_l.safetensors", theirs("clip_l")),
        "clip_g": zeros(tmp_path / "clip" / "clip_g.safetensors", original("clip_g")),
        "vae": zeros(tmp_path / "vae" / "sdxl_vae.safetensors", original("vae_4")),
    }
    zeros(tmp_path / "vae" / "a-vae-ft-mse-840000.safetensors", original("vae_4"))
    found = find_components(unet)
    assert (found.family, found.missing) == ("sdxl", {})
    assert found.files == {"unet": (unet,)} | {kind: (path,) for kind, path in parts.items()}


def test_text_encoders_must_be_those_the_unet_reads(tmp_path: Path) -> None:
    zeros(tmp_path / "unet.safetensors", original("sd2_unet"))
    zeros(tmp_path / "vae.safetensors", original("vae_4"))
    zeros(tmp_path / "clip_l.safetensors", theirs("clip_l"))
    found = find_components(tmp_path)
    assert (found.family, set(found.missing)) == ("sd2", {"clip_h"})
    with pytest.raises(ModelFileError, match="no clip_h here: add a CLIP-H text encoder"):
        found.require("clip_h")


def test_the_family_that_is_whole_is_chosen(tmp_path: Path) -> None:
    made.city96(tmp_path / "flux.gguf", made.arrays("diffusion"))
    path = zeros(tmp_path / "sd.safetensors", sd1_checkpoint())
    found = find_components(tmp_path)
    assert (found.family, found.get("unet"), found.others) == (
        "sd1",
        (path,),
        {"diffusion": ((tmp_path / "flux.gguf",),)},
    )


@pytest.mark.parametrize(
    ("name", "beside", "prediction"),
    [
        ("v2-1_768-ema-pruned.safetensors", {}, "v"),
        ("512-base-ema.safetensors", {}, "eps"),
        ("cat.safetensors", {}, None),
        ("cat.safetensors", {"cat.yaml": 'model:\n  params:\n    parameterization: "v"\n'}, "v"),
        ("cat.safetensors", {"cat.yaml": "[" * 70_000}, None),
    ],
)
def test_what_sd2_predicts_is_looked_for_beside_it(
    name: str, beside: dict[str, str], prediction: str | None, tmp_path: Path
) -> None:
    path = zeros(tmp_path / name, CHECKPOINTS["sd2"]())
    for file, text in beside.items():
        (tmp_path / file).write_text(text)
    assert find_components(path).prediction == prediction


def test_a_refiner_is_no_model_and_is_named(tmp_path: Path) -> None:
    refiner = prefixed("model.diffusion_model.", original("sdxl_unet") | {"label_emb.0.0.weight": (1280, 2560)})
    path = zeros(tmp_path / "sd_xl_refiner_1.0.safetensors", refiner)
    with pytest.raises(ModelFileError, match="holds SDXL refiner UNet, not a model"):
        find_components(path)
    assert find_components(tmp_path).unreadable == {path: f"{path}: SDXL refiner UNet, which relight does not run"}


def test_a_folder_is_described_whole(tmp_path: Path) -> None:
    zeros(tmp_path / "a.safetensors", sdxl_checkpoint(), **{"modelspec.prediction_type": "epsilon"})
    zeros(tmp_path / "taesdxl.safetensors", theirs("taesd"))
    (tmp_path / "old.ckpt").write_bytes(b"\x80\x02")
    lines = describe_folder(tmp_path)
    assert lines[0] == f"{tmp_path}: SDXL model, complete; it predicts noise"
    assert lines[1].startswith(f"  clip_l: {tmp_path / 'a.safetensors'}: SDXL UNet + ")
    assert [line.split(": ")[0] for line in lines[1:]] == [
        "  clip_l", "  clip_g", "  unet", "  vae", "  also taesd", "  passed over",
    ]  # fmt: skip
    plain = json.loads(json.dumps(folder_as_dict(tmp_path)))
    assert (plain["model"], plain["complete"], plain["missing"], plain["prediction"]) == ("sdxl", True, {}, "eps")
    assert plain["files"]["vae"]["bytes"] == (tmp_path / "a.safetensors").stat().st_size
    assert "loading a pickle runs whatever code" in plain["unreadable"][str(tmp_path / "old.ckpt")]


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    assert describe_folder(tmp_path) == [f"{tmp_path}: no model"]
