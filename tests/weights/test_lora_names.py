"""Every layer that a trainer of the published networks can name has its place in them, and no two have one place."""

from __future__ import annotations

from collections import Counter

import pytest

from checkpoints import clip_shapes, flux_shapes, t5_shapes
from golden import weights as g
from lora_files import NAMES
from published_unets import SD15, SD21, SDXL
from relight.weights.lora_names import Target, flat, role_of, target_finder
from shapes import ShapeIndex

UNETS = {"SD 1.5": SD15, "SD 2.1": SD21, "SDXL": SDXL}
FLUX = flux_shapes(19, 38, guidance=True, hidden=3072) | {
    "txt_in.weight": (3072, 4096),
    "vector_in.in_layer.weight": (3072, 768),
}


def matrices(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes.items() if name.endswith(".weight") and len(shape) > 1}


def target(kind: str, index: ShapeIndex, layer: str) -> Target:
    found = target_finder(kind, index)(role_of(layer)[1])
    assert found is not None, layer
    return found


@pytest.mark.parametrize(("prefix", "spelt"), [("lora_unet_", flat), ("unet.", str), ("", str)])
@pytest.mark.parametrize("family", UNETS)
def test_every_layer_of_diffusers_unets_is_a_layer_here(family: str, prefix: str, spelt: type[str]) -> None:
    """kohya's trainer writes diffusers' names for SD 1 and 2, flattened."""
    shapes = matrices(g.unet_shapes(UNETS[family]))
    find = target_finder("unet", ShapeIndex(shapes))
    theirs = NAMES["layers"][family]
    found = {layer: find(role_of(prefix + spelt(layer))[1]) for layer in theirs}
    assert [layer for layer, place in found.items() if place is None] == []
    assert {place.name: tuple(theirs[layer]) for layer, place in found.items() if place} == shapes
    assert len(theirs) == len(shapes)


@pytest.mark.parametrize("family", UNETS)
def test_every_name_of_the_original_unets_is_known(family: str) -> None:
    """What kohya's trainer writes for SDXL."""
    shapes = matrices(g.unet_shapes(UNETS[family]))
    find = target_finder("unet", ShapeIndex(shapes))
    for name in shapes:
        assert find(role_of("lora_unet_" + flat(name.removesuffix(".weight")))[1]) == Target(name)


SDXL_LAYERS = {
    "lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q": "input_blocks.4.1.transformer_blocks.1.attn1.to_q",
    "lora_unet_middle_block_1_transformer_blocks_9_ff_net_0_proj": "middle_block.1.transformer_blocks.9.ff.net.0.proj",
    "lora_unet_output_blocks_5_2_conv": "output_blocks.5.2.conv",
    "lora_unet_input_blocks_3_0_op": "input_blocks.3.0.op",
    "lora_unet_label_emb_0_0": "label_emb.0.0",
    "lora_unet_out_2": "out.2",
}


@pytest.mark.parametrize("layer", SDXL_LAYERS)
def test_layers_of_sdxl_as_kohya_writes_them(layer: str) -> None:
    index = ShapeIndex(g.unet_shapes(SDXL))
    assert target("unet", index, layer).name == SDXL_LAYERS[layer] + ".weight"


@pytest.mark.parametrize(("prefix", "spelt"), [("transformer.", str), ("lora_transformer_", flat), ("", str)])
def test_every_row_of_flux_is_one_layer_of_diffusers(prefix: str, spelt: type[str]) -> None:
    shapes = matrices(FLUX)
    index = ShapeIndex(shapes)
    find = target_finder("diffusion", index)
    covered: Counter[str] = Counter()
    swapped = set()
    for layer, (rows, columns) in NAMES["layers"]["FLUX"].items():
        place = find(role_of(prefix + spelt(layer))[1])
        assert place is not None, layer
        height, width = shapes[place.name]
        start, stop = place.start or 0, height if place.stop is None else place.stop
        assert (stop - start, width) == (rows, columns), layer
        covered[place.name] += rows
        swapped |= {place.name} if place.swap_halves else set()
    assert covered == {name: shape[0] for name, shape in shapes.items()}
    assert swapped == {"final_layer.adaLN_modulation.1.weight"}


def test_every_name_of_the_original_flux_is_known() -> None:
    index = ShapeIndex(FLUX)
    for name in matrices(FLUX):
        layer = name.removesuffix(".weight")
        assert target("diffusion", index, "lora_unet_" + flat(layer)) == Target(name)
        assert target("diffusion", index, "diffusion_model." + layer) == Target(name)


FLUX_PARTS = {
    "transformer.transformer_blocks.3.attn.to_k": Target("double_blocks.3.img_attn.qkv.weight", 3072, 6144),
    "transformer.transformer_blocks.3.attn.add_v_proj": Target("double_blocks.3.txt_attn.qkv.weight", 6144, 9216),
    "transformer.single_transformer_blocks.37.proj_mlp": Target("single_blocks.37.linear1.weight", 9216, 21504),
    "double_blocks.3.processor.qkv_lora2": Target("double_blocks.3.txt_attn.qkv.weight", 0, 9216),
    "double_blocks.3.processor.proj_lora1": Target("double_blocks.3.img_attn.proj.weight"),
    "single_blocks.9.processor.qkv": Target("single_blocks.9.linear1.weight", 0, 9216),
    "single_blocks.9.processor.proj": Target("single_blocks.9.linear2.weight"),
}


@pytest.mark.parametrize("layer", FLUX_PARTS)
def test_pieces_of_flux_have_rows_of_their_own(layer: str) -> None:
    """The last four as XLabs names them."""
    assert target("diffusion", ShapeIndex(FLUX), layer) == FLUX_PARTS[layer]


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [("clip_l", "lora_te_"), ("clip_l", "lora_te1_"), ("clip_h", "lora_te_"), ("clip_g", "lora_te2_")],
)
def test_every_layer_of_a_text_encoder_is_known(kind: str, prefix: str) -> None:
    shapes = matrices(clip_shapes(layers=12)) | {"text_projection.weight": (64, 64)}
    index = ShapeIndex(shapes)
    dotted = {"lora_te2_": "text_encoder_2."}.get(prefix, "text_encoder.")
    for name in shapes:
        layer = name.removesuffix(".weight")
        assert target(kind, index, prefix + flat(layer)) == Target(name)
        assert target(kind, index, dotted + layer) == Target(name)
        assert target(kind, index, dotted + layer.removeprefix("text_model.")) == Target(name)


def test_every_layer_of_t5_is_known() -> None:
    shapes = matrices(t5_shapes(layers=24))
    for name in shapes:
        assert target("t5xxl", ShapeIndex(shapes), "lora_te3_" + flat(name.removesuffix(".weight"))) == Target(name)


def test_the_first_loras_of_diffusers_are_known() -> None:
    index = ShapeIndex(g.unet_shapes(SD15))
    block = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor."
    ours = "input_blocks.1.1.transformer_blocks.0.attn2."
    assert target("unet", index, f"{block}to_q").name == f"{ours}to_q.weight"
    assert target("unet", index, f"unet.{block}to_out").name == f"{ours}to_out.0.weight"


@pytest.mark.parametrize("layer", ["lora_unet_down_blocks_9_attentions_0_proj_in", "nobody", "x_embedder", "out_0"])
def test_a_layer_of_another_network_has_no_place(layer: str) -> None:
    """Norms, such as `out.0`, are no matrices."""
    assert target_finder("unet", ShapeIndex(g.unet_shapes(SD15)))(role_of(layer)[1]) is None
