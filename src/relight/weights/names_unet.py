"""UNets and ControlNets of Stable Diffusion: diffusers' names to CompVis', and the names of a whole network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from relight.weights.renames import Rename, highest, leaves, one_by_one

EMA = "model_ema.diffusion_model"

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
    "controlnet_mid_block": "middle_block_out.0",
}
BLOCK = re.compile(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.+)")
MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)")
HINT = re.compile(r"controlnet_cond_embedding\.blocks\.(\d{1,2})\.(\w+)")
ZERO_CONV = re.compile(r"controlnet_down_blocks\.(\d{1,2})\.(\w+)")
OURS = re.compile(
    r"((time_embed|label_emb\.0|out|middle_block|middle_block_out|input_hint_block)\.\d{1,2}"
    r"|(input_blocks|output_blocks|zero_convs)\.\d{1,2}\.\d)\..+"
)


def from_diffusers(names: Iterable[str]) -> Rename:
    """diffusers counts levels and blocks, CompVis one list of blocks in and one out; both have `res_blocks` a level."""
    known = list(names)
    res_blocks = 1 + highest(r"down_blocks\.\d\.resnets\.(\d)\.", known)
    hints = 1 + highest(HINT.pattern, known)
    attending = {match[1] for name in known if (match := re.match(r"up_blocks\.(\d)\.attentions\.", name))}

    def rename(name: str) -> str | None:
        if match := BLOCK.fullmatch(name):
            side, level, what, index, rest = match.groups()
            if what == "downsamplers":
                return f"input_blocks.{(res_blocks + 1) * (int(level) + 1)}.0.op." + rest.removeprefix("conv.")
            if what == "upsamplers":
                place = 2 if level in attending else 1  # behind the attention, where there is one
                return f"output_blocks.{(res_blocks + 1) * int(level) + res_blocks}.{place}.{rest}"
            number = (res_blocks + 1) * int(level) + int(index)
            block = f"input_blocks.{number + 1}" if side == "down" else f"output_blocks.{number}"
            return f"{block}.1.{rest}" if what == "attentions" else _resnet(f"{block}.0", rest)
        if match := MIDDLE.fullmatch(name):
            what, index, rest = match.groups()
            return f"middle_block.1.{rest}" if what == "attentions" else _resnet(f"middle_block.{2 * int(index)}", rest)
        return _end(name, hints)

    return one_by_one(rename)


def _resnet(block: str, rest: str) -> str | None:
    part, _, leaf = rest.partition(".")
    return f"{block}.{RESNET[part]}.{leaf}" if part in RESNET else None


def _end(name: str, hints: int) -> str | None:
    if match := ZERO_CONV.fullmatch(name):
        return f"zero_convs.{match[1]}.0.{match[2]}"
    if match := HINT.fullmatch(name):
        return f"input_hint_block.{2 * int(match[1]) + 2}.{match[2]}"
    path, _, leaf = name.rpartition(".")
    if path == "controlnet_cond_embedding.conv_out":
        return f"input_hint_block.{2 * hints + 2}.{leaf}"
    return f"{ENDS[path]}.{leaf}" if path in ENDS else None


def from_averages() -> Rename:
    """The names of a training's running averages, which are the weights' own without their dots."""
    known = {name.replace(".", ""): name for layout in (SD, SDXL) for name in unet_names(layout, shortcuts=True)}
    return one_by_one(known.get)


class Layout(NamedTuple):
    """How deep the transformer of each block is (0 where there is none), by level from the finest in, from the coarsest
    out. `labels`: whether a vector is added to the time (SDXL)."""

    inward: tuple[tuple[int, ...], ...]
    middle: int
    outward: tuple[tuple[int, ...], ...]
    labels: bool


def regular(depths: tuple[int, ...], middle: int, labels: bool) -> Layout:
    """The published layouts: two blocks a level inward, three outward, all of a level of one depth."""
    return Layout(tuple((d, d) for d in depths), middle, tuple((d, d, d) for d in reversed(depths)), labels)


SD = regular((1, 1, 1, 0), 1, labels=False)
SDXL = regular((0, 2, 10), 10, labels=True)


def layout_of(names: Iterable[str]) -> Layout:
    """From the blocks that are there. A block without attention on a level that has it elsewhere is given the least."""
    depths: dict[str, int] = {}
    for name in names:
        if match := re.match(r"((?:input|output)_blocks\.\d+|middle_block)\.1\.transformer_blocks\.(\d{1,2})\.", name):
            depths[match[1]] = max(depths.get(match[1], 0), 1 + int(match[2]))
    known = list(names)
    blocks = highest(r"input_blocks\.(\d+)\.", known)
    steps = [int(match[1]) for name in known if (match := re.match(r"input_blocks\.(\d+)\.0\.op\.", name))]
    stride = min(steps, default=3)
    levels = (blocks + stride) // stride
    inward = [[depths.get(f"input_blocks.{stride * i + j + 1}", 0) for j in range(stride - 1)] for i in range(levels)]
    outward = [[depths.get(f"output_blocks.{stride * i + j}", 0) for j in range(stride)] for i in range(levels)]
    for level in range(levels):
        there = inward[level] + outward[levels - 1 - level]
        least = min((depth for depth in there if depth), default=0)
        inward[level] = [depth or least for depth in inward[level]]
        outward[levels - 1 - level] = [depth or least for depth in outward[levels - 1 - level]]
    labels = any(name.startswith("label_emb.") for name in known)
    return Layout(tuple(map(tuple, inward)), depths.get("middle_block", 0), tuple(map(tuple, outward)), labels)


def unet_names(layout: Layout, shortcuts: bool = False) -> Iterator[str]:
    """Every tensor: 686 for SD 1.x and 2.x, 1680 for SDXL. Shortcuts of blocks inward follow from the channels: they
    are left out unless all are asked for."""
    yield from encoder_names(layout, shortcuts)
    number = 0
    for level, depths in enumerate(layout.outward):
        for block, depth in enumerate(depths):
            path = f"output_blocks.{number}"
            yield from _res_block(f"{path}.0", shortcut=True)
            yield from _transformer(f"{path}.1", depth)
            if block == len(depths) - 1 and level < len(layout.outward) - 1:
                yield from leaves(f"{path}.{2 if depth else 1}.conv")
            number += 1
    yield from leaves("out.0", "out.2")


def controlnet_names(layout: Layout) -> Iterator[str]:
    """Every tensor of a ControlNet: 340 for SD 1.x, with the shortcuts inward."""
    yield from encoder_names(layout, shortcuts=False)
    blocks = sum(len(depths) + 1 for depths in layout.inward)
    yield from leaves(*(f"zero_convs.{i}.0" for i in range(blocks)), "middle_block_out.0")
    yield from leaves(*(f"input_hint_block.{i}" for i in range(0, 16, 2)))


def encoder_names(layout: Layout, shortcuts: bool) -> Iterator[str]:
    yield from leaves("time_embed.0", "time_embed.2")
    if layout.labels:
        yield from leaves("label_emb.0.0", "label_emb.0.2")
    yield from leaves("input_blocks.0.0")
    number = 1
    for level, depths in enumerate(layout.inward):
        for depth in depths:
            yield from _res_block(f"input_blocks.{number}.0", shortcuts)
            yield from _transformer(f"input_blocks.{number}.1", depth)
            number += 1
        if level < len(layout.inward) - 1:
            yield from leaves(f"input_blocks.{number}.0.op")
            number += 1
    yield from _res_block("middle_block.0", shortcuts)
    yield from _transformer("middle_block.1", layout.middle)
    yield from _res_block("middle_block.2", shortcuts)


def _res_block(path: str, shortcut: bool) -> Iterator[str]:
    parts = [part for part in RESNET.values() if shortcut or part != "skip_connection"]
    yield from leaves(*(f"{path}.{part}" for part in parts))


def _transformer(path: str, depth: int) -> Iterator[str]:
    if not depth:
        return
    yield from leaves(f"{path}.norm", f"{path}.proj_in", f"{path}.proj_out")
    for block in (f"{path}.transformer_blocks.{i}" for i in range(depth)):
        for attention in (f"{block}.attn1", f"{block}.attn2"):
            yield from (f"{attention}.{part}.weight" for part in ("to_q", "to_k", "to_v"))
            yield from leaves(f"{attention}.to_out.0")
        yield from leaves(*(f"{block}.{part}" for part in ("norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2")))
