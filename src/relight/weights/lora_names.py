"""Which weight of a model a LoRA's layer belongs to. Trainers flatten names (`.` becomes `_`), so a name is never taken
apart by guessing: it is looked up among the flattened names of the weights that the model has."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from relight.graph import WeightIndex
from relight.weights.names import FLUX_DIFFUSERS
from relight.weights.names_unet import from_diffusers, layout_of
from relight.weights.renames import Place, Rule

BACKBONE, FIRST_ENCODER, SECOND_ENCODER, THIRD_ENCODER = "backbone", "text encoder", "text encoder 2", "text encoder 3"

PREFIXES = {
    "lora_unet_": BACKBONE,
    "lora_transformer_": BACKBONE,
    "lycoris_": BACKBONE,
    "unet.": BACKBONE,
    "transformer.": BACKBONE,
    "diffusion_model.": BACKBONE,
    "base_model.model.": BACKBONE,
    "lora_te_": FIRST_ENCODER,
    "lora_te1_": FIRST_ENCODER,
    "text_encoder.": FIRST_ENCODER,
    "lora_te2_": SECOND_ENCODER,
    "text_encoder_2.": SECOND_ENCODER,
    "lora_te3_": THIRD_ENCODER,
    "text_encoder_3.": THIRD_ENCODER,
}
"""What trainers write before a layer's name; a bare name is one of the backbone (the UNet or transformer)."""

ROLES = {
    "diffusion": (BACKBONE,),
    "unet": (BACKBONE,),
    "clip_l": (FIRST_ENCODER,),
    "clip_h": (FIRST_ENCODER,),
    "clip_g": (SECOND_ENCODER,),
    "t5xxl": (SECOND_ENCODER, THIRD_ENCODER),
}
"""By kind of network, the roles it has in one model or another: diffusers' `text_encoder_2` is SDXL's CLIP-G and
FLUX's T5, which kohya's trainer calls `te3`."""


class Target(NamedTuple):
    """Rows `start` to `stop` of weight `name` (all of it where both are None); `swap_halves`: its halves are stored the
    other way round."""

    name: str
    start: int | None = None
    stop: int | None = None
    swap_halves: bool = False


FindTarget = Callable[[str], Target | None]
"""From a layer's name, without what `role_of` takes off it, to the weight it belongs to."""


def role_of(layer: str) -> tuple[str, str]:
    """What a layer is a part of, and the rest of its name."""
    for prefix, role in PREFIXES.items():
        if layer.startswith(prefix):
            return role, layer.removeprefix(prefix)
    return BACKBONE, layer


def flat(name: str) -> str:
    return name.replace(".", "_")


def target_finder(kind: str, index: WeightIndex) -> FindTarget:
    """For the matrices and kernels of one network."""
    ours = {
        flat(name.removesuffix(".weight")): name
        for name in index
        if name.endswith(".weight") and len(index.shape(name)) >= 2
    }
    others = {"diffusion": _flux_finder, "unet": _unet_finder, "clip_l": _clip_finder, "clip_g": _clip_finder}
    other = others.get("clip_l" if kind == "clip_h" else kind)
    by_other = other(index, ours) if other else None

    def find(layer: str) -> Target | None:
        name = flat(layer.replace(".processor.", "."))
        if re.search(r"_attn\d?_to_out$", name):
            name += "_0"  # diffusers' first LoRAs left out the number of the only layer that has weights
        if name in ours:
            return Target(ours[name])
        return by_other(name) if by_other else None

    return find


def _clip_finder(index: WeightIndex, ours: dict[str, str]) -> FindTarget:
    """transformers 5 leaves out the `text_model.` that others write."""

    def find(name: str) -> Target | None:
        longer = f"text_model_{name}"
        return Target(ours[longer]) if longer in ours else None

    return find


def _unet_finder(index: WeightIndex, ours: dict[str, str]) -> FindTarget:
    """diffusers' names, whole or flattened: the numbers of blocks are renamed, the rest is the same in both."""
    rename = from_diffusers(_diffusers_blocks(index))

    def find(name: str) -> Target | None:
        dotted = name
        for pattern, template in DIFFUSERS_BLOCKS:
            if match := pattern.fullmatch(name):
                dotted = match.expand(template)
        places = rename(f"{dotted}.weight")
        found = flat(places[0].name.removesuffix(".weight")) if places else ""
        return Target(ours[found]) if found in ours else None

    return find


DIFFUSERS_BLOCKS = (
    (
        re.compile(r"(down|up)_blocks_(\d)_(resnets|attentions|downsamplers|upsamplers)_(\d)_(.+)"),
        r"\1_blocks.\2.\3.\4.\5",
    ),
    (re.compile(r"mid_block_(resnets|attentions)_(\d)_(.+)"), r"mid_block.\1.\2.\3"),
    (re.compile(r"(time|add)_embedding_(linear_[12])"), r"\1_embedding.\2"),
)


def _diffusers_blocks(index: Iterable[str]) -> list[str]:
    """As many of diffusers' names as its numbers of blocks are read from."""
    layout = layout_of(index)
    inward = [f"down_blocks.{i}.resnets.{len(depths) - 1}.conv1" for i, depths in enumerate(layout.inward)]
    return inward + [f"up_blocks.{i}.attentions.0.norm" for i, depths in enumerate(layout.outward) if any(depths)]


def _flux_finder(index: WeightIndex, ours: dict[str, str]) -> FindTarget:
    """diffusers' and XLabs' names."""
    flat_rules = [Rule(re.compile(rule.pattern.pattern.replace(r"\.", "_")), rule.place) for rule in FLUX_DIFFUSERS]

    def find(name: str) -> Target | None:
        for rule in flat_rules:
            if match := rule.pattern.fullmatch(f"{name}_weight"):
                return _part(index, rule.place._replace(name=match.expand(rule.place.name)))
        for pattern, template in XLABS:
            if (match := pattern.fullmatch(name)) and (weight := match.expand(template)) in index:
                return Target(weight, 0, 3 * index.shape(weight)[1]) if "qkv" in name else Target(weight)
        return None

    return find


XLABS = (
    (re.compile(r"double_blocks_(\d{1,4})_qkv_lora1"), r"double_blocks.\1.img_attn.qkv.weight"),
    (re.compile(r"double_blocks_(\d{1,4})_qkv_lora2"), r"double_blocks.\1.txt_attn.qkv.weight"),
    (re.compile(r"double_blocks_(\d{1,4})_proj_lora1"), r"double_blocks.\1.img_attn.proj.weight"),
    (re.compile(r"double_blocks_(\d{1,4})_proj_lora2"), r"double_blocks.\1.txt_attn.proj.weight"),
    (re.compile(r"single_blocks_(\d{1,4})_qkv"), r"single_blocks.\1.linear1.weight"),
    (re.compile(r"single_blocks_(\d{1,4})_proj"), r"single_blocks.\1.linear2.weight"),
)


def _part(index: WeightIndex, place: Place) -> Target | None:
    """Pieces of FLUX's fused matrices have as many rows as the matrix has columns; the last has what is left."""
    if place.name not in index or len(index.shape(place.name)) < 2:
        return None
    if place.parts == 1:
        return Target(place.name, swap_halves=place.swap_halves)
    rows, columns = index.shape(place.name)[:2]
    stop = rows if place.part == place.parts - 1 else columns * (place.part + 1)
    return Target(place.name, columns * place.part, stop)
