"""What `relight inspect` is told about a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import checkpoints as made
from llm.tiny_model import write_model
from relight.errors import ModelFileError
from relight.weights.identify import as_dict, describe, identify
from relight.weights.names import clip_names, flux_names, t5_names, vae_names
from relight.weights.recognise import recognise


def test_whole_networks_have_the_published_number_of_tensors() -> None:
    assert len(set(flux_names(19, 38, True))) == 780
    assert len(set(flux_names(19, 38, False))) == 776
    assert len(set(clip_names(12))) == 196
    assert len(set(t5_names(24))) == 219
    assert len(set(vae_names(4))) == 244 - 8  # the file has shortcuts in four blocks besides
    assert len(made.vae_shapes((128, 256, 512, 512))) == 244


def test_flux_file_is_described(tmp_path: Path) -> None:
    path = made.city96(tmp_path / "flux.gguf", made.arrays("diffusion", double=2, single=3, guidance=True))
    identity = identify(path)
    (flux,) = identity.components
    assert (identity.kinds, identity.family, flux.names_as) == (("diffusion",), "FLUX.1 dev", "black-forest-labs")
    assert flux.sizes == {
        "hidden_size": 256,
        "num_heads": 2,
        "double_blocks": 2,
        "single_blocks": 3,
        "in_channels": 64,
        "out_channels": 64,
        "text_dim": 64,
        "pooled_dim": 64,
    }
    assert list(flux.formats) == ["Q4_K", "F16", "F32"]
    assert sum(use.tensors for use in flux.formats.values()) == flux.tensors == len(list(flux_names(2, 3, True)))
    assert sum(use.bytes for use in flux.formats.values()) == flux.bytes <= identity.file_bytes == path.stat().st_size
    assert flux.missing == ()
    assert identity.metadata == {"general.architecture": "flux", "general.quantization_version": 2}


@pytest.mark.parametrize(
    ("shapes", "family"),
    [
        (made.clip_shapes(layers=12, hidden=768), "CLIP-L"),
        (made.t5_shapes(layers=24, hidden=4096), "T5 v1.1 encoder XXL"),
        (made.t5_shapes(layers=24, hidden=2048), "T5 v1.1 encoder XL"),
        (made.vae_shapes((128, 256, 512, 512)), "AutoencoderKL 16 channels (FLUX)"),
        (made.flux_shapes(guidance=True) | {"img_in.weight": (3072, 384)}, "FLUX.1 Fill"),
    ],
)
def test_family_follows_from_the_shapes(shapes: dict[str, tuple[int, ...]], family: str) -> None:
    assert [found.family for found in recognise(shapes)] == [family]


def test_missing_tensors_are_listed_in_the_order_of_the_network(tmp_path: Path) -> None:
    tensors = made.arrays("diffusion", double=3, hidden=128)
    rest = {name: array for name, array in tensors.items() if not name.startswith("double_blocks.1.img_")}
    (flux,) = identify(made.safetensors(tmp_path / "x", rest)).components
    assert flux.missing == tuple(name for name in tensors if name.startswith("double_blocks.1.img_"))
    assert any("missing 12: double_blocks.1.img_mod.lin.weight" in line for line in describe(identify(tmp_path / "x")))


def test_incomplete_joined_tensor_counts_as_missing(tmp_path: Path) -> None:
    theirs = made.diffusers_flux(made.arrays("diffusion", hidden=128))
    del theirs["single_transformer_blocks.0.proj_mlp.bias"]
    (flux,) = identify(made.safetensors(tmp_path / "x", theirs)).components
    assert flux.missing == ("single_blocks.0.linear1.bias",)


def test_all_in_one_file_lists_every_network(tmp_path: Path) -> None:
    tensors = {
        "model.diffusion_model.input_blocks.1.0.in_layers.0.weight": np.zeros(8),
        "model.diffusion_model.label_emb.0.0.weight": np.zeros((8, 8)),
        **made.prefixed("first_stage_model.", made.arrays("vae", latent=4)),
        **made.prefixed("conditioner.embedders.0.transformer.", made.arrays("clip_l")),
        "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight": np.zeros((8, 8)),
    }
    identity = identify(made.safetensors(tmp_path / "sdxl.safetensors", tensors))
    assert {(c.family, c.prefix, c.usable) for c in identity.components} == {
        ("SDXL UNet", "model.diffusion_model.", True),
        ("AutoencoderKL 4 channels (SD, SDXL)", "first_stage_model.", True),
        ("CLIP text encoder, 64 wide", "conditioner.embedders.0.transformer.", True),
        ("CLIP text encoder, 8 wide", "conditioner.embedders.1.model.", True),
    }


def test_a_language_model_is_told_who_takes_it(tmp_path: Path) -> None:
    said = describe(identify(write_model(tmp_path / "tiny.gguf")))
    assert "relight chat and --llm take it" in said[2]
    theirs = made.safetensors(tmp_path / "x.safetensors", {"model.layers.0.self_attn.q_proj.weight": np.zeros((8, 8))})
    assert "relight does not run it" in "".join(describe(identify(theirs)))


def test_unknown_networks_are_counted_all_the_same(tmp_path: Path) -> None:
    identity = identify(made.safetensors(tmp_path / "x", {"a": np.zeros(5)}))
    assert (identity.components, identity.family, identity.parameters) == ((), "unknown", 5)
    assert "no network relight knows; formats: F32 1 tensors" in describe(identity)[2]


def test_shards_are_one_file(tmp_path: Path) -> None:
    made.sharded(tmp_path, made.diffusers_flux(made.arrays("diffusion", hidden=128)))
    identity = identify(tmp_path)
    assert len(identity.paths) == 3
    assert identity.components[0].missing == ()


def test_vocabulary_is_a_count_and_long_names_are_cut(tmp_path: Path) -> None:
    path = made.llama_cpp_t5(tmp_path / "t5.gguf", made.arrays("t5xxl"), **{"general.name": "x\x1b[31m" * 50})
    metadata = identify(path).metadata
    assert metadata["tokenizer.ggml.tokens"] == "96 entries"
    assert len(metadata["general.name"]) == 80
    assert metadata["general.name"].isprintable()


@pytest.mark.parametrize("kind", ["clip_l", "t5xxl", "diffusion", "vae"])
def test_json_holds_what_the_lines_say(kind: str, tmp_path: Path) -> None:
    identity = identify(made.safetensors(tmp_path / "x", made.arrays(kind)))
    plain = json.loads(json.dumps(as_dict(identity)))
    assert plain["family"] in describe(identity)[0]
    assert plain["kinds"] == [kind]
    assert plain["components"][0]["missing"] == []
    assert plain["formats"]["F32"]["tensors"] == plain["tensors"]
    assert any(f"use as --{kind.replace('_', '-')}" in line for line in describe(identity))


def test_broken_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelFileError, match="cut short"):
        identify(tmp_path / "x.gguf")
