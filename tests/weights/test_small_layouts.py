"""Tiny autoencoders, upscalers, LoRAs and embeddings, as each publisher lays them out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import checkpoints as made
from golden.small_nets import RRDB_KINDS, compact_shapes, rrdb_shapes, taesd_shapes
from relight.errors import ModelFileError
from relight.weights.checkpoint import open_component
from relight.weights.identify import identify
from relight.weights.quants import read_float32
from relight.weights.write import TensorSource, write_safetensors

Shapes = dict[str, tuple[int, ...]]


def arrays(shapes: Shapes) -> made.Arrays:
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def expect(kind: str, path: Path, tensors: made.Arrays) -> None:
    checkpoint = open_component(kind, path)
    assert set(checkpoint) == set(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(read_float32(checkpoint[name]), array, err_msg=name)


def numbered(tensors: made.Arrays, side: str, first: int) -> made.Arrays:
    """One side in the author's numbers."""
    out = {}
    for name, array in tensors.items():
        owner, _, number, rest = name.split(".", 3)
        if owner == side:
            out[f"{int(number) + first}.{rest}"] = array
    return out


@pytest.mark.parametrize("channels", [4, 16])
def test_taesd_of_diffusers_is_read_as_it_is(channels: int, tmp_path: Path) -> None:
    tensors = arrays(taesd_shapes(channels))
    path = made.safetensors(tmp_path / "taesd.safetensors", tensors)
    expect("taesd", path, tensors)
    (component,) = identify(path).components
    assert (component.missing, component.sizes) == ((), {"latent_channels": channels, "channels": 32})
    assert component.model == ("flux" if channels == 16 else "sd1")


@pytest.mark.parametrize("prefix", ["", "taesd_decoder."])
def test_taesd_decoder_of_its_author_counts_the_clamp(prefix: str, tmp_path: Path) -> None:
    tensors = arrays(taesd_shapes(4))
    path = made.safetensors(tmp_path / "decoder", made.prefixed(prefix, numbered(tensors, "decoder", 1)))
    expect("taesd", path, {name: array for name, array in tensors.items() if name.startswith("decoder.")})
    assert identify(path).components[0].missing == ()


def test_taesd_encoder_of_its_author_does_not(tmp_path: Path) -> None:
    tensors = arrays(taesd_shapes(4))
    path = made.safetensors(tmp_path / "encoder", numbered(tensors, "encoder", 0))
    expect("taesd", path, {name: array for name, array in tensors.items() if name.startswith("encoder.")})


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("taesd_decoder.safetensors", "sd1"),
        ("taesdxl_decoder.safetensors", "sdxl"),
        ("taesdxl/diffusion_pytorch_model.safetensors", "sdxl"),
        ("tiny.safetensors", ""),
    ],
)
def test_the_name_tells_whose_latents_a_taesd_reads(name: str, model: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    made.safetensors(path, arrays(taesd_shapes(4)))
    assert open_component("taesd", path).model == identify(path).components[0].model == model


OLD_TAILS = {
    2: {"conv_up1": 3, "conv_up2": 6, "conv_hr": 8, "conv_last": 10},
    1: {"conv_up1": 3, "conv_hr": 5, "conv_last": 7},
}


def esrgan_numbered(tensors: made.Arrays, steps: int) -> made.Arrays:
    blocks = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("body."))
    places = {"conv_first": "model.0", "conv_body": f"model.1.sub.{blocks}"}
    places |= {ours: f"model.{number}" for ours, number in OLD_TAILS[steps].items()}
    out = {}
    for name, array in tensors.items():
        path, _, leaf = name.rpartition(".")
        if path.startswith("body."):
            _, block, rdb, conv = path.split(".")
            out[f"model.1.sub.{block}.{rdb.upper()}.{conv}.0.{leaf}"] = array
        else:
            out[f"{places[path]}.{leaf}"] = array
    return out


def esrgan_spelled(tensors: made.Arrays) -> made.Arrays:
    other = {"conv_body": "trunk_conv", "conv_up1": "upconv1", "conv_up2": "upconv2", "conv_hr": "HRconv"}
    return {
        (
            "RRDB_trunk." + name.removeprefix("body.").replace("rdb", "RDB")
            if name.startswith("body.")
            else name.replace(name.split(".")[0], other.get(name.split(".")[0], name.split(".")[0]))
        ): array
        for name, array in tensors.items()
    }


@pytest.mark.parametrize("kind", RRDB_KINDS)
@pytest.mark.parametrize("layout", ["BasicSR", "params_ema.", "numbered", "spelled"])
def test_esrgan_reads_the_same_from_every_publisher(kind: str, layout: str, tmp_path: Path) -> None:
    unshuffle, steps = RRDB_KINDS[kind]
    tensors = arrays(rrdb_shapes(unshuffle, steps))
    theirs = {
        "BasicSR": lambda: tensors,
        "params_ema.": lambda: made.prefixed("params_ema.", tensors),
        "numbered": lambda: esrgan_numbered(tensors, steps),
        "spelled": lambda: esrgan_spelled(tensors),
    }[layout]()
    path = made.safetensors(tmp_path / "x4.safetensors", theirs)
    expect("upscaler", path, tensors)
    (component,) = identify(path).components
    assert (component.family, component.missing) == ("ESRGAN upscaler", ())
    assert component.sizes["scale"] == 2**steps // unshuffle


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("prefix", ["", "params."])
def test_compact_upscaler_is_read(scale: int, prefix: str, tmp_path: Path) -> None:
    tensors = arrays(compact_shapes(scale))
    path = made.safetensors(tmp_path / "x.safetensors", made.prefixed(prefix, tensors))
    expect("upscaler", path, tensors)
    (component,) = identify(path).components
    assert (component.family, component.missing) == ("Real-ESRGAN compact upscaler", ())
    assert component.sizes["scale"] == scale


def test_upscaler_without_a_layer_names_it(tmp_path: Path) -> None:
    tensors = arrays(rrdb_shapes())
    gone = {name for name in tensors if name.startswith(("conv_hr.", "body.1.rdb2.conv3."))}
    path = made.safetensors(tmp_path / "x", {name: array for name, array in tensors.items() if name not in gone})
    assert set(identify(path).components[0].missing) == gone
    with pytest.raises(ModelFileError, match=f"lacks {len(gone)} of {len(tensors)} tensors"):
        open_component("upscaler", path)


LORAS = {
    "sd1, kohya": ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight", 768, "sd1"),
    "sd2, kohya": (
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight",
        1024,
        "sd2",
    ),
    "sdxl, kohya": ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_v.lora_down.weight", 2048, "sdxl"),
    "sdxl, deep": ("lora_unet_input_blocks_4_1_transformer_blocks_1_ff_net_2.lora_down.weight", 2560, "sdxl"),
    "sdxl, text alone": ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", 1280, "sdxl"),
    "sd1, text alone": ("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", 768, "sd1"),
    "sd1, PEFT": ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight", 768, "sd1"),
    "sdxl, diffusers": (
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora.down.weight",
        2048,
        "sdxl",
    ),
    "sd1, old diffusers": (
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight",
        768,
        "sd1",
    ),
    "flux, kohya": ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", 3072, "flux"),
    "flux, diffusers": ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", 3072, "flux"),
    "sd1, LoHa": ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.hada_w1_b", 768, "sd1"),
    "unknown": ("layers.0.lora_A.weight", 64, ""),
}


@pytest.mark.parametrize("case", LORAS)
def test_lora_is_told_by_names_and_widths(case: str, tmp_path: Path) -> None:
    name, width, model = LORAS[case]
    up = name.replace("down.weight", "up.weight").replace("lora_A", "lora_B").replace("w1_b", "w1_a")
    tensors = {name: np.ones((4, width), np.float32), up: np.ones((8, 4), np.float32)}
    identity = identify(made.safetensors(tmp_path / "x.safetensors", tensors))
    (component,) = identity.components
    assert (component.kind, component.model, component.missing) == ("lora", model, ())
    expect("lora", identity.paths[0], tensors)


def test_the_base_a_lora_was_trained_on_is_believed_where_shapes_do_not_tell(tmp_path: Path) -> None:
    sources = made.sources({"layers.0.lora_A.weight": np.ones((4, 64), np.float32)})
    write_safetensors(tmp_path / "x", sources, {"ss_base_model_version": "sdxl_base_v1-0"})
    assert identify(tmp_path / "x").components[0].model == "sdxl"


@pytest.mark.parametrize(("form", "number"), [("I64", np.int64(8)), ("F64", np.float64(8))])
def test_strength_of_a_lora_may_be_of_any_type(form: str, number: np.generic, tmp_path: Path) -> None:
    alpha = TensorSource("lora_unet_x.alpha", (), form, number.tobytes)
    write_safetensors(tmp_path / "x", [*made.sources({"lora_unet_x.lora_down.weight": np.ones((4, 8))}), alpha])
    checkpoint = open_component("lora", tmp_path / "x")
    assert read_float32(checkpoint["lora_unet_x.alpha"]) == 8


EMBEDDINGS: dict[str, tuple[Shapes, str]] = {
    "A1111": ({"emb_params": (3, 768)}, "sd1"),
    "A1111, SD 2": ({"emb_params": (1, 1024)}, "sd2"),
    "SDXL": ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "sdxl"),
    "diffusers": ({"<cat-toy>": (768,)}, "sd1"),
}


@pytest.mark.parametrize("case", EMBEDDINGS)
def test_embedding_is_told_by_its_width(case: str, tmp_path: Path) -> None:
    shapes, model = EMBEDDINGS[case]
    tensors = arrays(shapes)
    path = made.safetensors(tmp_path / "x.safetensors", tensors)
    (component,) = identify(path).components
    assert (component.kind, component.model) == ("embedding", model)
    expect("embedding", path, tensors)
