"""Which format a tensor gets."""

from __future__ import annotations

import pytest

from relight.errors import RequestError
from relight.store.rules import FILE_TYPES, NARROWER, TARGETS, Rule, choose, fitting, target
from relight.weights.formats import FORMATS

MATRIX = (3072, 3072)


@pytest.mark.parametrize(
    ("kind", "name", "shape", "format_name"),
    [
        ("diffusion", "double_blocks.3.img_mlp.0.weight", MATRIX, "Q4_K"),
        ("diffusion", "single_blocks.3.linear1.bias", (3072,), "F32"),
        ("diffusion", "img_in.weight", (3072, 64), "F16"),
        ("diffusion", "time_in.in_layer.weight", (3072, 256), "F16"),
        ("diffusion", "final_layer.linear.weight", (64, 3072), "F16"),
        ("unet", "input_blocks.4.1.proj_in.weight", (640, 640, 1, 1), "F16"),
        ("unet", "middle_block.1.transformer_blocks.0.ff.net.2.weight", (1280, 5120), "Q4_K"),
        ("unet", "input_blocks.4.1.transformer_blocks.0.attn1.to_q.weight", (640, 640), "Q5_0"),
        ("unet", "time_embed.0.weight", (1280, 320), "F16"),
        ("t5xxl", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", (32, 64), "F16"),
        ("t5xxl", "encoder.block.0.layer.0.SelfAttention.q.weight", (4096, 4096), "Q4_K"),
        ("clip_l", "text_model.embeddings.position_embedding.weight", (77, 768), "F16"),
        ("vae", "decoder.mid.attn_1.q.weight", (512, 512, 1, 1), "F16"),
        ("", "some.weight", (16, 48), "F16"),
    ],
)
def test_the_usual_exceptions(kind: str, name: str, shape: tuple[int, ...], format_name: str) -> None:
    assert choose(kind, name, shape, "Q4_K", []) == format_name


def test_the_first_rule_that_fits_counts_over_the_defaults() -> None:
    rules = [Rule.parse("img_in=F32"), Rule.parse(r"^diffusion\..*img_mlp=Q6_K"), Rule.parse("img=Q8_0")]
    assert choose("diffusion", "img_in.weight", (3072, 64), "Q4_K", rules) == "F32"
    assert choose("diffusion", "double_blocks.0.img_mlp.0.weight", MATRIX, "Q4_K", rules) == "Q6_K"
    assert choose("diffusion", "double_blocks.0.img_attn.qkv.weight", MATRIX, "Q4_K", rules) == "Q8_0"
    assert choose("diffusion", "double_blocks.0.img_attn.qkv.bias", (3072,), "Q4_K", rules) == "F32"


def test_a_rule_names_a_component() -> None:
    rules = [Rule.parse("^t5xxl=Q8_0")]
    assert choose("t5xxl", "shared.weight", (32128, 4096), "Q4_K", rules) == "Q8_0"
    assert choose("diffusion", "txt_mlp.weight", MATRIX, "Q4_K", rules) == "Q4_K"


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_chosen_always_fills_its_blocks(name: str) -> None:
    for row in (256, 320, 64, 48, 7):
        assert row % FORMATS[fitting(name, row)].block_elements == 0
    assert fitting(name, 256) == name


def test_every_target_has_a_file_type_and_a_narrower_form() -> None:
    assert set(FILE_TYPES) == set(TARGETS)
    assert set(NARROWER) == {name for name in TARGETS if FORMATS[name].block_elements == 256}


def test_names_of_types() -> None:
    assert [target(name) for name in ("q4_k", "Q4_K_S", "Q8_0", "f16")] == ["Q4_K", "Q4_K", "Q8_0", "F16"]


@pytest.mark.parametrize("name", ["Q4_K_M", "Q9", "F8_E4M3", ""])
def test_an_unknown_type_lists_the_known(name: str) -> None:
    with pytest.raises(RequestError, match="Q4_K"):
        target(name)


@pytest.mark.parametrize("text", ["img_mlp", "=Q4_K", "(=Q4_K", "x=Q9"])
def test_a_broken_rule_is_refused(text: str) -> None:
    with pytest.raises(RequestError):
        Rule.parse(text)
