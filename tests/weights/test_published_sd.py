"""Stable Diffusion's networks at full size, under every publisher's names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from checkpoints import prefixed
from published import CHECKPOINTS, PUBLISHED, Shapes, averages, original, sd1_checkpoint, theirs, zeros
from relight.weights.checkpoint import Checkpoint, open_component
from relight.weights.identify import Identity, as_dict, describe, identify
from relight.weights.names import clip_names
from relight.weights.names_small import rrdb_names, taesd_names
from relight.weights.names_unet import SD, SDXL, controlnet_names, from_averages, layout_of, unet_names
from relight.weights.quants import read_float32
from relight.weights.write import TensorSource, write_safetensors

WHOLE = {
    "sd1": {"unet": "Stable Diffusion 1.x UNet", "vae": "AutoencoderKL 4 channels (SD, SDXL)", "clip_l": "CLIP-L"},
    "sd2": {"unet": "Stable Diffusion 2.x UNet", "vae": "AutoencoderKL 4 channels (SD, SDXL)", "clip_h": "CLIP-H"},
    "sdxl": {
        "unet": "SDXL UNet",
        "vae": "AutoencoderKL 4 channels (SD, SDXL)",
        "clip_l": "CLIP-L",
        "clip_g": "CLIP-G",
    },
}


@pytest.mark.parametrize("model", CHECKPOINTS)
def test_single_file_checkpoint_holds_every_network_whole(model: str, tmp_path: Path) -> None:
    identity = identify(zeros(tmp_path / "x.safetensors", CHECKPOINTS[model]()))
    assert {c.kind: c.family for c in identity.components} == WHOLE[model]
    assert all(c.missing == () and c.usable for c in identity.components)
    assert next(c.model for c in identity.components if c.kind == "unet") == model
    assert (identity.whole_model, as_dict(identity)["whole_model"]) == (model, model)
    assert any(line.endswith("use as --model") for line in describe(identity))
    assert any(f"{WHOLE[model]['unet']} (unet)" in line and "use as --diffusion" in line for line in describe(identity))


UNETS = {
    "sd1_unet": ("Stable Diffusion 1.x UNet", 4, 768, 0),
    "sd1_inpainting_unet": ("Stable Diffusion 1.x UNet (inpainting)", 9, 768, 0),
    "sd2_unet": ("Stable Diffusion 2.x UNet", 4, 1024, 0),
    "sdxl_unet": ("SDXL UNet", 4, 2048, 2816),
}


@pytest.mark.parametrize("network", UNETS)
def test_unet_reads_the_same_from_diffusers_and_compvis(network: str, tmp_path: Path) -> None:
    family, channels, context, labels = UNETS[network]
    first = open_component("unet", zeros(tmp_path / "diffusion_pytorch_model.safetensors", theirs(network)))
    second = open_component("unet", zeros(tmp_path / "unet.safetensors", original(network)))
    assert {name: first.shape(name) for name in first} == {name: second.shape(name) for name in second}
    assert {name: second.shape(name) for name in second} == original(network)
    assert (first.names_as, second.names_as, first.family, second.family) == ("diffusers", "CompVis", family, family)
    (component,) = identify(tmp_path / "unet.safetensors").components
    found = [component.sizes.get(name, 0) for name in ("in_channels", "context_dim", "label_dim", "out_channels")]
    assert found == [channels, context, labels, 4]


def test_a_tensor_of_diffusers_keeps_its_values_under_its_new_name(tmp_path: Path) -> None:
    """Each holds two numbers of its own; the first attention's shape is looked at, so it has two axes."""
    first = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    values = {name: np.array([i, -i], np.float32) for i, name in enumerate(PUBLISHED["sdxl_unet"])}
    sources = [
        TensorSource(name, (1, 2) if name == first else (2,), "F32", array.tobytes) for name, array in values.items()
    ]
    write_safetensors(tmp_path / "x", sources)
    checkpoint = open_component("unet", tmp_path / "x")
    for name, (_, ours) in PUBLISHED["sdxl_unet"].items():
        np.testing.assert_array_equal(read_float32(checkpoint[ours]).reshape(-1), values[name], err_msg=name)


@pytest.mark.parametrize(
    ("network", "family"), [("sd1_controlnet", "Stable Diffusion 1.x"), ("sdxl_controlnet", "SDXL")]
)
@pytest.mark.parametrize("layout", ["diffusers", "control_model.", ""])
def test_controlnet_reads_the_same_from_every_publisher(network: str, family: str, layout: str, tmp_path: Path) -> None:
    shapes = theirs(network) if layout == "diffusers" else prefixed(layout, original(network))
    checkpoint = open_component("controlnet", zeros(tmp_path / "control.safetensors", shapes))
    assert {name: checkpoint.shape(name) for name in checkpoint} == original(network)
    assert (checkpoint.family, checkpoint.model) == (f"{family} ControlNet", network.split("_")[0])


CLIPS = {"clip_l": "CLIP-L", "clip_h": "CLIP-H", "clip_g": "CLIP-G"}


@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize("layout", ["transformers", "transformers 5", "openclip"])
def test_text_encoder_reads_the_same_from_every_publisher(kind: str, layout: str, tmp_path: Path) -> None:
    shapes = theirs(kind)
    if layout == "openclip":
        shapes = original(kind) | {"logit_scale": (), "attn_mask": (77, 77), "visual.conv1.weight": (8, 3, 14, 14)}
    elif layout == "transformers 5":
        shapes = {name.removeprefix("text_model."): shape for name, shape in shapes.items()}
    checkpoint = open_component(kind, zeros(tmp_path / "clip.safetensors", shapes))
    assert {name: checkpoint.shape(name) for name in checkpoint} == theirs(kind)
    assert checkpoint.family == CLIPS[kind]


def test_openclip_matrices_are_taken_apart_where_they_lie(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    shapes = {n: s for n, s in original("clip_g").items() if "resblocks" not in n and "token" not in n}
    shapes |= {n: s for n, s in original("clip_g").items() if ".resblocks.0." in n and "mlp" not in n}
    shapes |= {"token_embedding.weight": (9, 1280)}
    shapes |= {"transformer.resblocks.0.mlp.c_fc.weight": (8, 1280), "transformer.resblocks.0.mlp.c_fc.bias": (8,)}
    shapes |= {
        "transformer.resblocks.0.mlp.c_proj.weight": (1280, 8),
        "transformer.resblocks.0.mlp.c_proj.bias": (1280,),
    }
    values = {name: rng.standard_normal(shape).astype(np.float16) for name, shape in shapes.items()}
    write_safetensors(
        tmp_path / "clip_g.safetensors",
        [TensorSource(name, array.shape, "F16", array.tobytes) for name, array in values.items()],
    )
    checkpoint = open_component("clip_g", tmp_path / "clip_g.safetensors")
    for leaf in ("weight", "bias"):
        whole = values[f"transformer.resblocks.0.attn.in_proj_{leaf}"]
        for i, part in enumerate("qkv"):
            tensor = checkpoint[f"text_model.encoder.layers.0.self_attn.{part}_proj.{leaf}"]
            np.testing.assert_array_equal(read_float32(tensor), whole[1280 * i : 1280 * (i + 1)].astype(np.float32))
            assert tensor.parts[0].base is not None  # a view
    projection = checkpoint["text_projection.weight"]
    np.testing.assert_array_equal(read_float32(projection), values["text_projection"].T.astype(np.float32))
    assert (projection.format, projection.nbytes) == ("F16", 2 * 1280 * 1280)
    np.testing.assert_array_equal(read_float32(projection, [7, 3]), values["text_projection"].T[[7, 3]])


def test_the_projection_of_transformers_is_not_turned(tmp_path: Path) -> None:
    checkpoint = open_component("clip_g", zeros(tmp_path / "x.safetensors", theirs("clip_g")))
    assert not checkpoint.ignored
    assert checkpoint["text_projection.weight"].parts[0].base is not None


def test_whole_networks_have_the_published_number_of_tensors() -> None:
    for network, layout in (("sd1_unet", SD), ("sd2_unet", SD), ("sdxl_unet", SDXL)):
        assert layout_of(original(network)) == layout
        assert set(unet_names(layout)) <= set(original(network)) <= set(unet_names(layout, shortcuts=True))
    assert len(original("sd1_unet")) == 686 and len(original("sdxl_unet")) == 1680
    assert set(controlnet_names(SD)) < set(original("sd1_controlnet"))
    assert set(taesd_names(("decoder", "encoder"))) == set(theirs("taesd"))
    assert set(clip_names(32, projection=True)) == set(theirs("clip_g"))
    assert len(list(rrdb_names(23, 2))) == 702


PARTS = {
    "a block": "output_blocks.4.",
    "an attention": "input_blocks.5.1.",
    "an upsampling": "output_blocks.2.2.conv",
    "the time": "time_embed.2",
    "the end": "out.2",
    "a shortcut": "input_blocks.4.0.skip_connection",
}


@pytest.mark.parametrize("part", PARTS)
def test_a_unet_without_a_part_names_what_it_lacks(part: str, tmp_path: Path) -> None:
    whole = original("sdxl_unet")
    shapes = {name: shape for name, shape in whole.items() if not name.startswith(PARTS[part])}
    (component,) = identify(zeros(tmp_path / "x.safetensors", shapes)).components
    assert set(component.missing) == set(whole) - set(shapes)


@pytest.mark.parametrize("model", ["sd1", "sd2", "sdxl"])
def test_averages_alone_are_a_unet(model: str, tmp_path: Path) -> None:
    checkpoint = open_component("unet", zeros(tmp_path / "ema.safetensors", averages(model)))
    assert {name: checkpoint.shape(name) for name in checkpoint} == original(f"{model}_unet")
    assert checkpoint.model == model


def test_weights_go_before_their_averages(tmp_path: Path) -> None:
    checkpoint = open_component("unet", zeros(tmp_path / "full.safetensors", sd1_checkpoint() | averages("sd1")))
    assert checkpoint.prefix == "model.diffusion_model."
    assert len(checkpoint) == 686


def test_no_two_names_are_one_without_their_dots() -> None:
    rename = from_averages()
    for model in ("sd1", "sdxl"):
        for name in original(f"{model}_unet"):
            assert [place.name for place in rename(name.replace(".", ""))] == [name]


def one(path: Path) -> tuple[Identity, Checkpoint]:
    identity = identify(path)
    return identity, open_component("unet", path)


@pytest.mark.parametrize(
    ("extra", "metadata", "prediction"),
    [
        ({}, {}, None),
        ({"v_pred": ()}, {}, "v"),
        ({}, {"modelspec.prediction_type": "v"}, "v"),
        ({}, {"modelspec.prediction_type": "epsilon"}, "eps"),
        ({}, {"modelspec.architecture": "stable-diffusion-v2-768-v"}, "v"),
        ({}, {"modelspec.prediction_type": "cat"}, None),
    ],
)
def test_prediction_is_what_the_file_says(
    extra: Shapes, metadata: dict[str, str], prediction: str | None, tmp_path: Path
) -> None:
    path = zeros(tmp_path / "x.safetensors", original("sd2_unet") | extra, **metadata)
    identity, checkpoint = one(path)
    assert identity.prediction == checkpoint.prediction == prediction
    said = [line.strip() for line in describe(identity) if "it predicts" in line]
    assert said == {None: [], "v": ["it predicts v"], "eps": ["it predicts noise"]}[prediction]
