"""What `open_component` refuses, and what it says then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import checkpoints as made
from relight.errors import ModelFileError, WeightMissing
from relight.weights.checkpoint import open_component
from relight.weights.quants import read_float32
from relight.weights.write import TensorSource, write_gguf, write_safetensors

FLAGS = {"clip_l": "--clip-l", "t5xxl": "--t5xxl", "diffusion": "--diffusion", "vae": "--vae"}
CALLED = {"clip_l": "CLIP", "t5xxl": "T5", "diffusion": "FLUX.1", "vae": "AutoencoderKL"}


@pytest.mark.parametrize("kind", FLAGS)
@pytest.mark.parametrize("asked", FLAGS)
def test_mixed_up_file_says_what_it_is_and_where_to_give_it(kind: str, asked: str, tmp_path: Path) -> None:
    path = made.safetensors(tmp_path / "mixed-up.safetensors", made.arrays(kind))
    if kind == asked:
        assert open_component(asked, path).kind == kind
        return
    with pytest.raises(
        ModelFileError, match=rf"mixed-up.*holds {CALLED[kind]}.*not an? {CALLED[asked]}.*{FLAGS[kind]}"
    ):
        open_component(asked, path)


OTHERS = {
    "SDXL refiner UNet": {"input_blocks.1.0.in_layers.0.weight": (8,), "label_emb.0.0.weight": (8, 2560)},
    "Stable Diffusion 2.x UNet of 5 input channels .depth": {
        "model.diffusion_model.input_blocks.1.0.in_layers.0.weight": (8,),
        "model.diffusion_model.input_blocks.0.0.weight": (8, 5, 3, 3),
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (8, 1024),
    },
    "SDXL ControlNet Union": {
        "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
        "add_embedding.linear_1.weight": (8, 2816),
        "controlnet_down_blocks.0.weight": (8, 8, 1, 1),
        "task_embedding": (8, 8),
    },
    "SwinIR or HAT upscaler": {"params.layers.0.residual_group.blocks.0.norm1.weight": (8,)},
    "Stable Diffusion 3 transformer": {"joint_blocks.0.context_block.attn.qkv.weight": (8, 8)},
    "Chroma transformer": {
        "double_blocks.0.img_attn.proj.weight": (8, 8),
        "distilled_guidance_layer.in_proj.weight": (8, 8),
    },
    "FLUX.2 transformer": {
        "double_blocks.0.img_attn.proj.weight": (8, 8),
        "double_stream_modulation_img.lin.weight": (8, 8),
    },
    "language model": {"blk.0.attn_q.weight": (8, 8)},
    "UMT5 encoder": {
        "encoder.block.0.layer.0.SelfAttention.q.weight": (8, 8),
        "encoder.block.0.layer.1.DenseReluDense.wi_0.weight": (8, 8),
        "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight": (8, 8),
    },
    "T5 v1.0": {"encoder.block.0.layer.0.SelfAttention.q.weight": (8, 8)},
}


@pytest.mark.parametrize("family", OTHERS)
def test_network_relight_does_not_run_is_named(family: str, tmp_path: Path) -> None:
    path = made.safetensors(tmp_path / "x.safetensors", {n: np.zeros(s, np.float32) for n, s in OTHERS[family].items()})
    for kind in FLAGS:
        with pytest.raises(ModelFileError, match=rf"holds {family}.*take another file"):
            open_component(kind, path)


def test_unknown_tensors_are_counted(tmp_path: Path) -> None:
    path = made.safetensors(tmp_path / "x.safetensors", {"a.weight": np.zeros(3), "b.weight": np.zeros(3)})
    with pytest.raises(ModelFileError, match="none of its 2 tensors.*a T5 v1.1 encoder is needed"):
        open_component("t5xxl", path)


@pytest.mark.parametrize("kind", FLAGS)
def test_missing_tensors_are_counted_and_named(kind: str, tmp_path: Path) -> None:
    tensors = made.arrays(kind)
    gone = [name for name in tensors if "bias" in name or "layer_norm" in name][-2:]
    rest = {name: array for name, array in tensors.items() if name not in gone}
    with pytest.raises(WeightMissing, match=rf"lacks 2 of {len(tensors)} tensors \({gone[0]}, {gone[1]}\)"):
        open_component(kind, made.safetensors(tmp_path / "x.safetensors", rest))


def test_missing_piece_of_a_joined_tensor_names_the_tensor(tmp_path: Path) -> None:
    theirs = made.diffusers_flux(made.arrays("diffusion", hidden=128))
    del theirs["transformer_blocks.0.attn.to_k.weight"]
    with pytest.raises(WeightMissing, match=r"0\.img_attn\.qkv\.weight is made of 3.*to_v\.weight is there"):
        open_component("diffusion", made.safetensors(tmp_path / "x.safetensors", theirs))


def test_pieces_in_different_formats_cannot_be_joined(tmp_path: Path) -> None:
    theirs = made.diffusers_flux(made.arrays("diffusion", hidden=256))
    values = {"transformer_blocks.0.attn.to_v.weight": theirs.pop("transformer_blocks.0.attn.to_v.weight")}
    write_gguf(tmp_path / "x.gguf", made.sources(theirs) + made.sources(values, "Q8_0"))
    with pytest.raises(ModelFileError, match=r"cannot be joined from.*to_q\.weight F32.*to_v\.weight Q8_0"):
        open_component("diffusion", tmp_path / "x.gguf")


def test_format_without_arithmetic_is_refused_by_name(tmp_path: Path) -> None:
    some = made.sources(made.arrays("t5xxl"))
    some[0] = TensorSource(some[0].name, (3, 256), "IQ3_S", lambda: bytes(330))
    write_gguf(tmp_path / "x.gguf", some)
    with pytest.raises(ModelFileError, match=r"shared\.weight is stored as IQ3_S"):
        open_component("t5xxl", tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("shape", "values", "message"),
    [((2,), [1, 2], r"scale_weight is F32 \[2\]"), ((), [np.inf], "scales inf"), ((), [np.nan], "scales nan")],
)
def test_scale_that_is_not_one_finite_number_is_refused(
    shape: tuple[int, ...], values: list[float], message: str, tmp_path: Path
) -> None:
    mark = TensorSource("shared.scale_weight", shape, "F32", lambda: np.float32(values))
    write_safetensors(tmp_path / "x", [*made.sources(made.arrays("t5xxl"), "F8_E4M3"), mark])
    with pytest.raises(ModelFileError, match=message):
        open_component("t5xxl", tmp_path / "x")


def test_same_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    one, two = (made.safetensors(tmp_path / name, made.arrays("clip_l")) for name in ("a", "b"))
    with pytest.raises(ModelFileError, match="b and .*a both have"):
        open_component("clip_l", [one, two])


def test_component_may_come_in_several_files(tmp_path: Path) -> None:
    tensors = made.arrays("vae")
    names = list(tensors)
    paths = [
        made.safetensors(tmp_path / f"{i}.safetensors", {name: tensors[name] for name in names[i::2]}) for i in range(2)
    ]
    checkpoint = open_component("vae", paths)
    assert checkpoint.paths == tuple(paths)
    assert set(checkpoint) == set(tensors)


def test_shape_that_city96_kept_aside_is_restored(tmp_path: Path) -> None:
    tensors = made.arrays("t5xxl")
    reshaped = tensors | {"shared.weight": tensors["shared.weight"].reshape(-1, 256)}
    original = {"comfy.gguf.orig_shape.shared.weight": np.array(tensors["shared.weight"].shape, np.int32)}
    write_gguf(tmp_path / "x.gguf", made.sources(reshaped), original)
    checkpoint = open_component("t5xxl", tmp_path / "x.gguf")
    np.testing.assert_array_equal(read_float32(checkpoint["shared.weight"]), tensors["shared.weight"])


def test_false_claim_of_another_shape_is_refused(tmp_path: Path) -> None:
    write_gguf(
        tmp_path / "x.gguf",
        made.sources(made.arrays("t5xxl")),
        {"comfy.gguf.orig_shape.shared.weight": np.array([2**15, 2**15], np.int32)},
    )
    with pytest.raises(ModelFileError, match=r"claims to be \[32768, 32768\]"):
        open_component("t5xxl", tmp_path / "x.gguf")


def test_tensors_outlive_a_closed_checkpoint(tmp_path: Path) -> None:
    tensors = made.arrays("clip_l")
    checkpoint = open_component("clip_l", made.safetensors(tmp_path / "x", tensors))
    name = "text_model.final_layer_norm.weight"
    kept = checkpoint[name]
    checkpoint.close()
    assert len(checkpoint) == 0
    np.testing.assert_array_equal(read_float32(kept), tensors[name])


def test_unknown_kind_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'cat' is none of clip_l"):
        open_component("cat", tmp_path)
