"""One network, laid out by every publisher, reads the same under our names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import checkpoints as made
from relight.weights.checkpoint import Checkpoint, open_component
from relight.weights.quants import F8_E4M3, read_float32
from relight.weights.write import TensorSource, write_safetensors

PUBLISHED = json.loads((Path(__file__).parent / "published_names.json").read_text())
"""Names and shapes as diffusers 0.42 and transformers 5 save them."""

Write = Callable[[Path, made.Arrays], Path]


def expect(checkpoint: Checkpoint, tensors: made.Arrays, tolerance: float = 0) -> None:
    """Same names, same shapes; same values within the relative tolerance of the format."""
    assert set(checkpoint) == set(tensors)
    for name, array in tensors.items():
        assert checkpoint.shape(name) == array.shape, name
        values, smallest = read_float32(checkpoint[name]), 1e-7 if tolerance else 0  # F16 has subnormals
        np.testing.assert_allclose(values, array, rtol=tolerance, atol=smallest, err_msg=name)


FLUX: dict[str, tuple[Write, str]] = {
    "black-forest-labs": (lambda path, t: made.safetensors(path / "flux1.safetensors", t), "black-forest-labs"),
    "all-in-one": (
        lambda path, t: made.safetensors(path / "x.safetensors", made.prefixed("model.diffusion_model.", t)),
        "black-forest-labs",
    ),
    "diffusers": (
        lambda path, t: made.safetensors(path / "diffusion_pytorch_model.safetensors", made.diffusers_flux(t)),
        "diffusers",
    ),
    "diffusers, index": (lambda path, t: made.sharded(path, made.diffusers_flux(t)), "diffusers"),
    "diffusers, folder": (
        lambda path, t: made.sharded(path / "transformer", made.diffusers_flux(t)).parent,
        "diffusers",
    ),
    "diffusers, one shard": (
        lambda path, t: next(made.sharded(path, made.diffusers_flux(t)).parent.glob("*-00002-of-*")),
        "diffusers",
    ),
    "leejet": (lambda path, t: made.leejet(path / "flux1.gguf", t, "F32"), "black-forest-labs"),
    "leejet with a prefix": (
        lambda path, t: made.leejet(path / "flux1.gguf", t, "F32", "model.diffusion_model."),
        "black-forest-labs",
    ),
}


@pytest.mark.parametrize("guidance", [False, True])
@pytest.mark.parametrize("layout", FLUX)
def test_flux_reads_the_same_from_every_publisher(layout: str, guidance: bool, tmp_path: Path) -> None:
    write, names_as = FLUX[layout]
    tensors = made.arrays("diffusion", guidance=guidance, hidden=128)
    checkpoint = open_component("diffusion", write(tmp_path, tensors))
    assert checkpoint.names_as == names_as
    assert checkpoint.family == ("FLUX.1 dev" if guidance else "FLUX.1 schnell")
    expect(checkpoint, tensors)


def test_joined_tensors_are_parts_of_the_map_in_order(tmp_path: Path) -> None:
    tensors = made.arrays("diffusion", hidden=128)
    checkpoint = open_component("diffusion", made.safetensors(tmp_path / "x", made.diffusers_flux(tensors)))
    linear1 = checkpoint["single_blocks.0.linear1.weight"]
    assert [part.size for part in linear1.parts] == [4 * 128 * 128] * 3 + [4 * 128 * 512]
    assert linear1.nbytes == 4 * 7 * 128 * 128
    assert len(checkpoint["double_blocks.0.txt_attn.qkv.bias"].parts) == 3
    qkv = "double_blocks.0.img_attn.qkv.weight"
    np.testing.assert_array_equal(read_float32(checkpoint[qkv], [130, 1]), tensors[qkv][[130, 1]])


def test_scale_and_shift_of_diffusers_change_places(tmp_path: Path) -> None:
    tensors = made.arrays("diffusion", hidden=128)
    theirs = made.diffusers_flux(tensors)
    checkpoint = open_component("diffusion", made.safetensors(tmp_path / "x", theirs))
    scale, shift = np.split(theirs["norm_out.linear.bias"], 2)
    np.testing.assert_array_equal(read_float32(checkpoint["final_layer.adaLN_modulation.1.bias"]), [*shift, *scale])


def test_city96_file_keeps_its_mix_of_formats(tmp_path: Path) -> None:
    tensors = made.arrays("diffusion")
    checkpoint = open_component("diffusion", made.city96(tmp_path / "flux1-schnell-Q4_K_S.gguf", tensors))
    assert set(checkpoint) == set(tensors)
    assert checkpoint.format("double_blocks.0.img_attn.qkv.weight") == "Q4_K"
    assert checkpoint.format("double_blocks.0.img_attn.qkv.bias") == "F32"
    assert checkpoint.format("img_in.weight") == "F16"
    assert checkpoint.metadata["general.architecture"] == "flux"
    np.testing.assert_allclose(read_float32(checkpoint["img_in.weight"]), tensors["img_in.weight"], rtol=1e-3)


CLIP: dict[str, Write] = {
    "comfy": lambda path, t: made.safetensors(path / "clip_l.safetensors", t, "F32"),
    "transformers 5": lambda path, t: made.safetensors(
        path / "model.safetensors", {name.removeprefix("text_model."): array for name, array in t.items()}
    ),
    "all-in-one": lambda path, t: made.safetensors(
        path / "flux1-all.safetensors", made.prefixed("text_encoders.clip_l.transformer.", t)
    ),
    "SD 1": lambda path, t: made.leejet(path / "sd1.gguf", t, "F32", "cond_stage_model.transformer."),
}


@pytest.mark.parametrize("layout", CLIP)
def test_clip_reads_the_same_from_every_publisher(layout: str, tmp_path: Path) -> None:
    tensors = made.arrays("clip_l")
    expect(open_component("clip_l", CLIP[layout](tmp_path, tensors)), tensors)


def test_position_ids_and_scales_of_logits_are_left_out(tmp_path: Path) -> None:
    tensors = made.arrays("clip_l")
    extra = [
        TensorSource("text_model.embeddings.position_ids", (1, 77), "I64", lambda: np.arange(77)),
        TensorSource("logit_scale", (), "F32", lambda: bytes(4)),
        TensorSource("text_projection.weight", (2, 2), "F32", lambda: bytes(16)),
    ]
    write_safetensors(tmp_path / "clip_l.safetensors", made.sources(tensors) + extra)
    checkpoint = open_component("clip_l", tmp_path / "clip_l.safetensors")
    expect(checkpoint, tensors)
    assert set(checkpoint.ignored) == {source.name for source in extra}


T5: dict[str, Write] = {
    "comfy": lambda path, t: made.safetensors(path / "t5xxl.safetensors", t),
    "embedding twice": lambda path, t: made.safetensors(
        path / "t5xxl.safetensors", t | {"encoder.embed_tokens.weight": t["shared.weight"]}
    ),
    "embedding under its other name": lambda path, t: made.safetensors(
        path / "t5xxl.safetensors",
        {"encoder.embed_tokens.weight" if name == "shared.weight" else name: array for name, array in t.items()},
    ),
    "with a decoder": lambda path, t: made.safetensors(
        path / "model.safetensors", t | {"decoder.block.0.layer.0.SelfAttention.q.weight": t["shared.weight"]}
    ),
    "all-in-one": lambda path, t: made.safetensors(
        path / "flux1-all.safetensors", made.prefixed("text_encoders.t5xxl.transformer.", t)
    ),
    "llama.cpp": lambda path, t: made.llama_cpp_t5(path / "t5-v1_1-xxl-encoder-f32.gguf", t, "F32"),
}


@pytest.mark.parametrize("layout", T5)
def test_t5_reads_the_same_from_every_publisher(layout: str, tmp_path: Path) -> None:
    tensors = made.arrays("t5xxl")
    expect(open_component("t5xxl", T5[layout](tmp_path, tensors)), tensors)


def test_llama_cpp_t5_brings_its_vocabulary(tmp_path: Path) -> None:
    path = made.llama_cpp_t5(tmp_path / "t5.gguf", made.arrays("t5xxl"), "Q8_0")
    checkpoint = open_component("t5xxl", path)
    assert checkpoint.names_as == "llama.cpp"
    assert checkpoint.format("encoder.block.1.layer.1.DenseReluDense.wi_0.weight") == "Q8_0"
    assert list(checkpoint.metadata["tokenizer.ggml.tokens"])[:4] == ["<pad>", "</s>", "<unk>", "▁"]
    assert checkpoint.metadata["tokenizer.ggml.precompiled_charsmap"].tolist() == list(range(200))


@pytest.mark.parametrize(("format_name", "tolerance"), [("F16", 1e-3), ("BF16", 8e-3)])
def test_half_precision_t5_keeps_its_values(format_name: str, tolerance: float, tmp_path: Path) -> None:
    tensors = made.arrays("t5xxl")
    path = made.safetensors(tmp_path / "t5xxl_fp16.safetensors", tensors, format_name)
    expect(open_component("t5xxl", path), tensors, tolerance)


def test_fp8_t5_is_read(tmp_path: Path) -> None:
    tensors = made.arrays("t5xxl")
    path = made.safetensors(tmp_path / "t5xxl_fp8_e4m3fn.safetensors", tensors, "F8_E4M3")
    checkpoint = open_component("t5xxl", path)
    assert checkpoint.format("shared.weight") == "F8_E4M3"
    assert np.isfinite(read_float32(checkpoint["shared.weight"])).all()


@pytest.mark.parametrize("leaf", ["scale_weight", "weight_scale"])
def test_scaled_fp8_carries_the_scale_of_each_matrix(leaf: str, tmp_path: Path) -> None:
    tensors = made.arrays("t5xxl")
    query = "encoder.block.0.layer.0.SelfAttention.q"
    marks = [
        TensorSource(f"{query}.{leaf}", (), "F32", lambda: np.float32(0.25).tobytes()),
        TensorSource(f"{query}.scale_input", (), "F32", lambda: np.float32(9).tobytes()),
        TensorSource("scaled_fp8", (2,), "F8_E4M3", lambda: bytes(2)),
    ]
    path = tmp_path / "t5xxl_fp8_e4m3fn_scaled.safetensors"
    write_safetensors(path, made.sources(tensors, "F8_E4M3", "F16") + marks)
    checkpoint = open_component("t5xxl", path)
    assert set(checkpoint) == set(tensors)
    assert checkpoint[f"{query}.weight"].scale == 0.25
    assert checkpoint["shared.weight"].scale == 1.0
    unscaled = made.random_blocks("F8_E4M3", (64, 64), np.random.default_rng(0))
    np.testing.assert_array_equal(read_float32(checkpoint[f"{query}.weight"]).reshape(-1), F8_E4M3[unscaled] / 4)


VAE: dict[str, Write] = {
    "ae.safetensors": lambda path, t: made.safetensors(path / "ae.safetensors", t),
    "all-in-one": lambda path, t: made.safetensors(path / "x.safetensors", made.prefixed("first_stage_model.", t)),
    "comfy": lambda path, t: made.safetensors(path / "x.safetensors", made.prefixed("vae.", t)),
    "gguf": lambda path, t: made.leejet(path / "ae.gguf", t, "F32"),
}


@pytest.mark.parametrize("layout", VAE)
def test_vae_reads_the_same_from_every_publisher(layout: str, tmp_path: Path) -> None:
    tensors = made.arrays("vae")
    expect(open_component("vae", VAE[layout](tmp_path, tensors)), tensors)


@pytest.mark.parametrize("sides", [("decoder",), ("decoder", "encoder")])
def test_vae_may_lack_its_encoder(sides: tuple[str, ...], tmp_path: Path) -> None:
    tensors = made.arrays("vae", sides=sides)
    expect(open_component("vae", made.safetensors(tmp_path / "ae.safetensors", tensors)), tensors)


def test_quant_convs_of_sd_are_kept(tmp_path: Path) -> None:
    tensors = made.arrays("vae", latent=4)
    for name, channels in (("quant_conv", 8), ("post_quant_conv", 4)):
        tensors |= {
            f"{name}.weight": np.ones((channels, channels, 1, 1), np.float32),
            f"{name}.bias": np.ones(channels),
        }
    expect(open_component("vae", made.safetensors(tmp_path / "vae.safetensors", tensors)), tensors)


def from_published(path: Path, names: str) -> tuple[Path, made.Arrays]:
    rng = np.random.default_rng(3)
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in PUBLISHED[names].items()}
    return made.safetensors(path / "model.safetensors", arrays), arrays


def test_diffusers_vae_is_renamed_with_its_decoder_counted_from_the_other_end(tmp_path: Path) -> None:
    path, theirs = from_published(tmp_path, "vae_diffusers")
    checkpoint = open_component("vae", path)
    assert len(checkpoint) == len(theirs)
    same = {
        "decoder.up.2.block.0.conv1.weight": "decoder.up_blocks.0.resnets.0.conv1.weight",
        "decoder.up.0.block.2.norm2.bias": "decoder.up_blocks.2.resnets.2.norm2.bias",
        "decoder.up.0.block.0.nin_shortcut.weight": "decoder.up_blocks.2.resnets.0.conv_shortcut.weight",
        "decoder.up.2.upsample.conv.weight": "decoder.up_blocks.0.upsamplers.0.conv.weight",
        "decoder.mid.attn_1.q.weight": "decoder.mid_block.attentions.0.to_q.weight",
        "decoder.mid.attn_1.proj_out.bias": "decoder.mid_block.attentions.0.to_out.0.bias",
        "decoder.mid.attn_1.norm.weight": "decoder.mid_block.attentions.0.group_norm.weight",
        "decoder.mid.block_2.conv1.weight": "decoder.mid_block.resnets.1.conv1.weight",
        "decoder.norm_out.weight": "decoder.conv_norm_out.weight",
        "encoder.down.1.block.0.nin_shortcut.bias": "encoder.down_blocks.1.resnets.0.conv_shortcut.bias",
        "encoder.down.0.downsample.conv.weight": "encoder.down_blocks.0.downsamplers.0.conv.weight",
        "encoder.conv_out.bias": "encoder.conv_out.bias",
    }
    for ours, their in same.items():
        np.testing.assert_array_equal(read_float32(checkpoint[ours]), theirs[their], err_msg=ours)


def test_old_diffusers_names_of_vae_attention_are_known(tmp_path: Path) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    _, theirs = from_published(tmp_path, "vae_diffusers")
    renamed = {}
    for name, array in theirs.items():
        for new, before in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{before}.")
        renamed[name] = array
    checkpoint = open_component("vae", made.safetensors(tmp_path / "old.safetensors", renamed))
    assert checkpoint.shape("decoder.mid.attn_1.proj_out.weight") == (16, 16)


@pytest.mark.parametrize(
    ("names", "kind", "tensors"),
    [("flux_diffusers", "diffusion", 52), ("clip_transformers_5", "clip_l", 36), ("t5_transformers", "t5xxl", 21)],
)
def test_names_that_the_libraries_write_are_all_known(names: str, kind: str, tensors: int, tmp_path: Path) -> None:
    """T5's copy of its embedding is the one tensor without a place of its own."""
    checkpoint = open_component(kind, from_published(tmp_path, names)[0])
    assert len(checkpoint) == tensors
    assert checkpoint.ignored == ()


def test_all_in_one_file_gives_each_component_alone(tmp_path: Path) -> None:
    prefixes = {
        "diffusion": "model.diffusion_model.",
        "vae": "vae.",
        "clip_l": "text_encoders.clip_l.transformer.",
        "t5xxl": "text_encoders.t5xxl.transformer.",
    }
    parts = {kind: made.arrays(kind) for kind in prefixes}
    everything = {k: v for kind, prefix in prefixes.items() for k, v in made.prefixed(prefix, parts[kind]).items()}
    path = made.safetensors(tmp_path / "flux1-schnell-all.safetensors", everything)
    for kind, tensors in parts.items():
        checkpoint = open_component(kind, path)
        assert checkpoint.prefix.startswith(prefixes[kind])
        assert len(checkpoint.ignored) == len(everything) - len(tensors)
        expect(checkpoint, tensors)


def test_nothing_is_copied(tmp_path: Path) -> None:
    tensors = made.arrays("diffusion", hidden=128)
    path = made.safetensors(tmp_path / "x.safetensors", made.diffusers_flux(tensors))
    checkpoint = open_component("diffusion", path)
    file_map = np.frombuffer(checkpoint._containers[0].file.map, np.uint8)
    first, last = file_map.ctypes.data, file_map.ctypes.data + file_map.size
    for tensor in checkpoint.values():
        for part in tensor.parts:
            assert first <= part.ctypes.data <= part.ctypes.data + part.size <= last
            assert (part.dtype, part.ndim, part.flags.writeable) == (np.uint8, 1, False)
