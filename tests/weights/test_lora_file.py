"""What LoRA files look like, by trainer, and which of them are refused and why."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import lora_files
from checkpoints import Arrays
from relight.errors import ModelFileError
from relight.weights.lora_file import LoraFile, open_lora
from relight.weights.write import TensorSource, write_safetensors


def matrix(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def opened(folder: Path, arrays: Arrays, **metadata: str) -> LoraFile:
    return open_lora(lora_files.write(folder / "style.safetensors", arrays, metadata=metadata))


ENDINGS = {
    "kohya": (".lora_down.weight", ".lora_up.weight"),
    "PEFT": (".lora_A.weight", ".lora_B.weight"),
    "PEFT, by adapter": (".lora_A.default.weight", ".lora_B.default.weight"),
    "PEFT, by numbered adapter": (".lora_A.default_0.weight", ".lora_B.default_0.weight"),
    "diffusers": (".lora.down.weight", ".lora.up.weight"),
    "diffusers, first": ("_lora.down.weight", "_lora.up.weight"),
    "diffusers, text encoder": (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
}


@pytest.mark.parametrize("trainer", ENDINGS)
def test_pairs_are_found_under_every_trainers_endings(trainer: str, tmp_path: Path) -> None:
    down, up = ENDINGS[trainer]
    lora = opened(tmp_path, {f"a.b_c.to_q{down}": matrix(4, 9), f"a.b_c.to_q{up}": matrix(7, 4)})
    assert list(lora.layers) == ["a.b_c.to_q"]
    layer = lora.layers["a.b_c.to_q"]
    assert (layer.down.shape, layer.up.shape, layer.rank, layer.scale) == ((4, 9), (7, 4), 4, 1.0)


@pytest.mark.parametrize("form", ["F32", "F16", "BF16", "F64", "I64"])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_an_alpha_is_divided_by_the_rank(form: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    alpha = np.full(shape, 6, np.float64)
    raw = alpha.reshape(-1).view(np.uint8) if form == "F64" else lora_files.stored_as(form, alpha.astype(np.float32))
    sources = [
        TensorSource(name, array.shape, "F32", lambda array=array: lora_files.stored_as("F32", array))  # type: ignore[misc]
        for name, array in {"x.lora_down.weight": matrix(4, 9), "x.lora_up.weight": matrix(7, 4)}.items()
    ]
    write_safetensors(tmp_path / "x", [*sources, TensorSource("x.alpha", shape, form, lambda: raw.reshape(-1))])
    assert open_lora(tmp_path / "x").layers["x"].scale == 1.5


PEFT = {"unet.a.to_q.lora_A.weight": matrix(4, 9), "unet.a.to_q.lora_B.weight": matrix(7, 4)}


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({"unet.lora_alpha": 8, "unet.r": 4}, 2.0),
        ({"unet.lora_alpha": 8, "unet.use_rslora": True}, 4.0),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"to_q": 1.0, "to_k": 3.0}}, 0.25),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"o_q": 1.0}}, 2.0),
        ({"text_encoder.lora_alpha": 8}, 1.0),
        ({}, 1.0),
    ],
)
def test_strengths_kept_by_diffusers_are_read(settings: dict[str, object], scale: float, tmp_path: Path) -> None:
    lora = opened(tmp_path, PEFT, lora_adapter_metadata=json.dumps(settings))
    assert lora.layers["unet.a.to_q"].scale == scale


def test_an_adapter_of_peft_has_its_settings_beside_it(tmp_path: Path) -> None:
    arrays = {f"base_model.model.a.to_q.lora_{part}.weight": matrix(4, 4) for part in "AB"}
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 16, "r": 4}))
    path = lora_files.write(tmp_path / "adapter_model.safetensors", arrays)
    assert open_lora(path).layers["base_model.model.a.to_q"].scale == 4.0
    assert opened(tmp_path, arrays).layers["base_model.model.a.to_q"].scale == 1.0


def test_settings_that_are_no_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"style\.safetensors: the LoRA's settings are no JSON"):
        opened(tmp_path, PEFT, lora_adapter_metadata="{")


KOHYA = {"lora_unet_x.lora_down.weight": matrix(4, 9), "lora_unet_x.lora_up.weight": matrix(7, 4)}
OTHERS = {
    "lora_unet_x.hada_w1_a": "LoHa",
    "lora_unet_x.lokr_w1": "LoKr",
    "lora_unet_x.dora_scale": "DoRA",
    "unet.x.lora_magnitude_vector": "DoRA",
    "unet.x.lora_magnitude_vector.weight": "DoRA",
    "lora_unet_x.on_input": "IA3",
    "lora_unet_x.oft_blocks": "OFT",
    "lora_unet_x.diff": "with whole weights",
    "lora_unet_x.diff_b": "with whole biases",
    "lora_unet_x.w_norm": "with whole norms",
    "unet.x.lora_embedding_A": "for embeddings",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_kinds_are_refused_by_name_with_the_reason(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=rf"{name} makes it a LoRA {OTHERS[name]} .*; relight adds LoRA and LoCon"):
        opened(tmp_path, KOHYA | {name: matrix(2, 2)})


BROKEN: dict[str, tuple[Arrays, str]] = {
    "no down": ({"x.lora_up.weight": matrix(7, 4)}, "x lacks its down matrix"),
    "no up": ({"x.lora_A.weight": matrix(7, 4)}, "x lacks its up matrix"),
    "ranks": (
        {"x.lora_down.weight": matrix(4, 9), "x.lora_up.weight": matrix(7, 5)},
        r"the ranks of x do not agree \(down \[4, 9\], up \[7, 5\]\)",
    ),
    "middle": (
        KOHYA | {"lora_unet_x.lora_mid.weight": matrix(4, 3, 3, 3)},
        r"the ranks of lora_unet_x do not agree \(.*mid \[4, 3, 3, 3\]\)",
    ),
    "axes": ({"x.lora_down.weight": matrix(4, 9, 1), "x.lora_up.weight": matrix(7, 4)}, r"F32 \[4, 9, 1\], no matrix"),
    "alpha": (KOHYA | {"lora_unet_x.alpha": matrix(2)}, r"lora_unet_x\.alpha of shape \[2\] is no number"),
    "alpha of nan": (KOHYA | {"lora_unet_x.alpha": np.array(math.nan, np.float32)}, "lora_unet_x has the alpha nan"),
    "no LoRA": ({"model.weight": matrix(3, 3)}, "none of its 1 tensors is a layer of a LoRA"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_refused_by_layer(what: str, tmp_path: Path) -> None:
    arrays, said = BROKEN[what]
    with pytest.raises(ModelFileError, match=rf"style\.safetensors: .*{said}"):
        opened(tmp_path, arrays)


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "style.pt").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ModelFileError, match="is a PyTorch pickle; relight reads"):
        open_lora(tmp_path / "style.pt")


FAMILIES = {
    "Stable Diffusion 1.x": {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": (320, 768)},
    "Stable Diffusion 2.x": {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (320, 1024)},
    "SDXL": {"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k": (640, 2048)},
    "FLUX.1": {"transformer.single_transformer_blocks.0.attn.to_q": (3072, 3072)},
    "another model": {"somewhere_else": (3072, 768)},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_is_known_by_its_layers(family: str, tmp_path: Path) -> None:
    arrays = {
        f"{layer}.lora_{part}.weight": matrix(*shape)
        for layer, (out, inner) in FAMILIES[family].items()
        for part, shape in (("down", (1, inner)), ("up", (out, 1)))
    }
    assert opened(tmp_path, arrays).family == family


def test_the_parts_of_a_model_it_changes_are_known(tmp_path: Path) -> None:
    names = ("lora_te2_x", "lora_unet_y", "lora_te1_x", "lora_te2_z")
    arrays = {f"{name}.lora_{part}.weight": matrix(2, 2) for name in names for part in ("down", "up")}
    assert set(opened(tmp_path, arrays).roles) == {"text encoder", "text encoder 2", "backbone"}


def test_tensors_of_no_meaning_are_kept_by_name(tmp_path: Path) -> None:
    lora = opened(tmp_path, KOHYA | {"bundle_emb.cat.string_to_param": matrix(2, 2), "lora_unet_gone.alpha": matrix(1)})
    assert lora.unread == ("bundle_emb.cat.string_to_param",)
    assert list(lora.layers) == ["lora_unet_x"]
