"""A network with LoRAs beside it computes what the network with the LoRAs merged into it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

import lora_files
from checkpoints import Arrays
from golden import weights as g
from published_unets import SD15, SD21, SDXL
from relight.errors import ModelFileError, RequestError
from relight.executors.base import CompileOptions
from relight.executors.reference import ReferenceExecutor
from relight.graph import Graph, Tensor, Weights, input_tensor, ops
from relight.weights.lora import Adapters, combine, open_lora
from running import relative_error
from shapes import ShapeIndex
from stored import ArraySource

random = np.random.default_rng(8)


def array(*shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def exact(*shape: int) -> np.ndarray:
    """Numbers that F16 holds, after multiplication by powers of two as well."""
    return (random.integers(-8, 9, shape) / 16).astype(np.float32)


def pair(layer: str, out: int, inner: int, *kernel: int, rank: int = 4, alpha: float | None = None) -> Arrays:
    """A layer as kohya's trainer writes it."""
    ones = (1,) * len(kernel)
    arrays = {
        f"{layer}.lora_down.weight": exact(rank, inner, *kernel),
        f"{layer}.lora_up.weight": exact(out, rank, *ones),
    }
    return arrays | ({} if alpha is None else {f"{layer}.alpha": np.array(alpha, np.float32)})


def combined(
    folder: Path, kind: str, index: ArraySource | ShapeIndex, *loras: tuple[Mapping[str, np.ndarray], float]
) -> Adapters:
    files = [
        (open_lora(lora_files.write(folder / f"{i}.safetensors", arrays)), strength)
        for i, (arrays, strength) in enumerate(loras)
    ]
    return combine(files, kind, index)


def computed(
    build: Callable[[Weights, Tensor], Tensor], x: np.ndarray, source: ArraySource, beside: Adapters
) -> np.ndarray:
    graph = Graph({"y": build(Weights(source).with_adapters(beside), input_tensor("x", x.shape))})
    executor = ReferenceExecutor()
    loads = [executor.load((graph,), source), executor.load((graph,), beside)]
    return executor.compile(graph, loads, CompileOptions()).run({"x": x})["y"]


def delta(arrays: Mapping[str, np.ndarray], layer: str, strength: float = 1.0) -> np.ndarray:
    """What a layer adds to its weight [out in ...], in float64."""
    down, up = (arrays[f"{layer}.lora_{part}.weight"].astype(np.float64) for part in ("down", "up"))
    rank = len(down)
    if f"{layer}.lora_mid.weight" in arrays:
        down = np.einsum("rshw,si->rihw", arrays[f"{layer}.lora_mid.weight"], down.reshape(rank, -1))
    scale = strength * float(arrays.get(f"{layer}.alpha", np.array(rank))) / rank
    return scale * np.tensordot(up.reshape(len(up), rank), down, 1)


SHAPES = {
    "middle_block.1.proj_in.weight": (12, 16, 1, 1),
    "middle_block.1.transformer_blocks.0.attn1.to_q.weight": (24, 32),
    "middle_block.0.in_layers.2.weight": (6, 5, 3, 3),
}
POINT, LINEAR, CONV = SHAPES
LAYERS = {name: "lora_unet_" + name.removesuffix(".weight").replace(".", "_") for name in SHAPES}
SOURCE = ArraySource({name: array(*shape) for name, shape in SHAPES.items()})
BASE = {name: SOURCE[name].parts[0].view(np.float32).reshape(shape) for name, shape in SHAPES.items()}


def place(w: Weights, name: str) -> Weights:
    return w / name.removesuffix(".weight")


CASES: dict[str, tuple[str, Arrays, Callable[[Weights, Tensor], Tensor], tuple[int, ...]]] = {
    "matrix": (LINEAR, pair(LAYERS[LINEAR], 24, 32), lambda w, x: ops.linear(x, place(w, LINEAR)), (5, 32)),
    "matrix with an alpha": (
        LINEAR,
        pair(LAYERS[LINEAR], 24, 32, alpha=2.0),
        lambda w, x: ops.linear(x, place(w, LINEAR)),
        (5, 32),
    ),
    "matrix with a kernel's pair": (
        LINEAR,
        pair(LAYERS[LINEAR], 24, 32, 1, 1),
        lambda w, x: ops.linear(x, place(w, LINEAR)),
        (5, 32),
    ),
    "1x1 kernel": (
        POINT,
        pair(LAYERS[POINT], 12, 16, 1, 1, rank=3),
        lambda w, x: ops.conv2d(x, place(w, POINT)),
        (2, 16, 3, 2),
    ),
    "1x1 kernel as a matrix": (
        POINT,
        pair(LAYERS[POINT], 12, 16),
        lambda w, x: ops.linear(x, place(w, POINT)),
        (5, 16),
    ),
    "3x3 kernel": (
        CONV,
        pair(LAYERS[CONV], 6, 5, 3, 3),
        lambda w, x: ops.conv2d(x, place(w, CONV), stride=2, padding=1),
        (2, 5, 7, 6),
    ),
    "3x3 kernel with a middle": (
        CONV,
        pair(LAYERS[CONV], 6, 5, alpha=2.0) | {f"{LAYERS[CONV]}.lora_mid.weight": exact(4, 4, 3, 3)},
        lambda w, x: ops.conv2d(x, place(w, CONV), padding=1),
        (1, 5, 4, 3),
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("strength", [1.0, -0.5])
def test_a_layer_with_a_lora_is_the_merged_layer(case: str, strength: float, tmp_path: Path) -> None:
    name, arrays, build, shape = CASES[case]
    beside = combined(tmp_path, "unet", SOURCE, (arrays, strength))
    change = delta(arrays, LAYERS[name], strength).reshape(SHAPES[name])
    merged = ArraySource({name: (BASE[name] + change).astype(np.float32)})
    x = array(*shape)
    got = computed(build, x, SOURCE, beside)
    assert relative_error(got, computed(build, x, merged, Adapters({}, (), ()))) < 1e-6
    assert relative_error(got, computed(build, x, SOURCE, Adapters({}, (), ()))) > 1e-2


ORDER = np.array([17, 3, 4, 20])


@pytest.mark.parametrize(
    ("choose", "rows", "columns"),
    [
        (lambda w: w.rows(3, 19), slice(3, 19), slice(None)),
        (lambda w: w.rows(ORDER), ORDER, slice(None)),
        (lambda w: w.columns(8, 24), slice(None), slice(8, 24)),
        (lambda w: w.rows(ORDER).columns(8, 24), ORDER, slice(8, 24)),
    ],
)
def test_a_part_of_a_weight_has_that_part_of_the_lora(
    choose: Callable[[Weights], Weights], rows: slice | np.ndarray, columns: slice, tmp_path: Path
) -> None:
    arrays = pair(LAYERS[LINEAR], 24, 32, rank=5)
    beside = combined(tmp_path, "unet", SOURCE, (arrays, 1.0))
    merged = (BASE[LINEAR] + delta(arrays, LAYERS[LINEAR]))[rows][:, columns]
    x = array(5, merged.shape[1])
    y = computed(lambda w, x: ops.linear(x, choose(place(w, LINEAR))), x, SOURCE, beside)
    assert relative_error(y, x @ merged.T) < 1e-6


def test_loras_add_up_and_the_graph_does_not_grow(tmp_path: Path) -> None:
    layer = LAYERS[LINEAR]
    loras = [pair(layer, 24, 32, rank=rank, alpha=alpha) for rank, alpha in ((4, 4.0), (5, 20.0), (1, None))]
    strengths = (1.0, -0.5, 2.0)
    beside = combined(tmp_path, "unet", SOURCE, *zip(loras, strengths, strict=True))
    merged = BASE[LINEAR] + sum(delta(lora, layer, s) for lora, s in zip(loras, strengths, strict=True))
    x = array(5, 32)
    y = computed(lambda w, x: ops.linear(x, place(w, LINEAR)), x, SOURCE, beside)
    assert relative_error(y, x @ merged.T) < 1e-6
    assert len(beside) == 2
    assert beside.shape(f"lora:{LINEAR}.down") == (24, 32), "ranks of 4, 5 and 1, each filled up to 8 or 16"


HIDDEN = 16
FLUX = ArraySource({"single_blocks.0.linear1.weight": array(7 * HIDDEN, HIDDEN)})
SINGLE = "transformer.single_transformer_blocks.0."


def test_pieces_of_a_fused_matrix_change_their_rows_alone(tmp_path: Path) -> None:
    first = pair(SINGLE + "attn.to_v", HIDDEN, HIDDEN, rank=2) | pair(SINGLE + "proj_mlp", 4 * HIDDEN, HIDDEN, rank=3)
    second = pair(SINGLE + "attn.to_v", HIDDEN, HIDDEN, rank=9)
    beside = combined(tmp_path, "diffusion", FLUX, (first, 1.0), (second, 0.5))
    merged = FLUX["single_blocks.0.linear1.weight"].parts[0].view(np.float32).reshape(-1, HIDDEN).astype(np.float64)
    merged[2 * HIDDEN : 3 * HIDDEN] += delta(first, SINGLE + "attn.to_v") + delta(second, SINGLE + "attn.to_v", 0.5)
    merged[3 * HIDDEN :] += delta(first, SINGLE + "proj_mlp")
    x = array(5, HIDDEN)
    y = computed(lambda w, x: ops.linear(x, w / "single_blocks" / 0 / "linear1"), x, FLUX, beside)
    assert relative_error(y, x @ merged.T) < 1e-6


def test_rows_are_given_the_ranks_that_reach_them(tmp_path: Path) -> None:
    """to_v of two files has 8 and 16 ranks, the MLP 8: FLUX uses the two parts of the matrix apart."""
    first = pair(SINGLE + "attn.to_v", HIDDEN, HIDDEN, rank=2) | pair(SINGLE + "proj_mlp", 4 * HIDDEN, HIDDEN, rank=3)
    second = pair(SINGLE + "attn.to_v", HIDDEN, HIDDEN, rank=9)
    beside = combined(tmp_path, "diffusion", FLUX, (first, 1.0), (second, 1.0))
    w = Weights(FLUX).with_adapters(beside) / "single_blocks" / 0 / "linear1"
    ranks = {}
    for name, rows in {"q": (0, 16), "qkv": (0, 48), "mlp": (48, 112), "all": (0, 112)}.items():
        found = w.rows(*rows).adapter("weight")
        ranks[name] = found and (found[0].shape, found[1].shape)
    assert ranks == {
        "q": None,
        "qkv": ((24, 16), (48, 24)),
        "mlp": ((8, 16), (64, 8)),
        "all": ((32, 16), (112, 32)),
    }


def test_small_numbers_keep_their_precision(tmp_path: Path) -> None:
    """An alpha of 1 at rank 128 leaves numbers that F16 alone would round to a few steps."""
    layer = LAYERS[LINEAR]
    arrays = {
        f"{layer}.lora_down.weight": array(128, 32) / 8,
        f"{layer}.lora_up.weight": array(24, 128) * np.float32(1e-5),
        f"{layer}.alpha": np.array(1, np.float32),
    }
    beside = combined(tmp_path, "unet", SOURCE, (arrays, 0.3))
    pieces = [
        beside[f"lora:{LINEAR}.{part}"].parts[0].view(np.float16).reshape(beside.shape(f"lora:{LINEAR}.{part}"))
        for part in ("up", "down")
    ]
    got = pieces[0].astype(np.float64) @ pieces[1].astype(np.float64)
    assert relative_error(got, delta(arrays, layer, 0.3)) < 1e-3


def test_a_strength_of_zero_changes_nothing(tmp_path: Path) -> None:
    beside = combined(tmp_path, "unet", SOURCE, (pair(LAYERS[LINEAR], 24, 32), 0.0))
    assert len(beside) == 0
    assert beside.key == ()


def test_the_key_tells_what_changes_this_network(tmp_path: Path) -> None:
    """A file for the UNet alone leaves the text encoder's results as they are."""
    encoder = ShapeIndex({"text_model.encoder.layers.0.mlp.fc1.weight": (24, 32)})
    backbone, text = pair(LAYERS[LINEAR], 24, 32), pair("lora_te_text_model_encoder_layers_0_mlp_fc1", 24, 32)
    both = combined(tmp_path, "clip_l", encoder, (backbone, 1.0), (backbone | text, 0.5))
    assert list(both) == [f"lora:text_model.encoder.layers.0.mlp.fc1.weight.{part}" for part in ("down", "up")]
    assert len(both.key) == 1
    assert combined(tmp_path, "clip_l", encoder, (backbone, 1.0)).key == ()
    stronger = combined(tmp_path, "clip_l", encoder, (backbone, 1.0), (backbone | text, 0.75))
    assert stronger.key != both.key


def test_layers_without_a_place_are_named_with_their_file(tmp_path: Path) -> None:
    arrays = pair(LAYERS[LINEAR], 24, 32) | pair("lora_unet_nobody", 4, 4) | {"bundle_emb.cat": exact(2, 4)}
    beside = combined(tmp_path, "unet", SOURCE, (arrays, 1.0))
    assert sorted(beside.unmatched) == ["0.safetensors: bundle_emb.cat", "0.safetensors: lora_unet_nobody"]


UNETS = {"Stable Diffusion 1.x": SD15, "Stable Diffusion 2.x": SD21, "SDXL": SDXL}
BY_DIFFUSERS = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
BY_COMPVIS = "lora_unet_input_blocks_8_1_transformer_blocks_9_attn2_to_k"
FOREIGN = {
    "SDXL": pair(BY_COMPVIS, 1280, 2048),
    "Stable Diffusion 2.x": pair(BY_DIFFUSERS, 320, 1024),
    "Stable Diffusion 1.x": pair(BY_DIFFUSERS, 320, 768),
    r"FLUX\.1": pair("lora_unet_double_blocks_0_img_attn_qkv", 48, 16),
}


@pytest.mark.parametrize("model", UNETS)
@pytest.mark.parametrize("family", FOREIGN)
def test_a_lora_for_another_model_is_refused(family: str, model: str, tmp_path: Path) -> None:
    """By its names, or, between SD 1 and 2, by its sizes."""
    index = ShapeIndex(g.unet_shapes(UNETS[model]))
    if family == model:
        assert len(combined(tmp_path, "unet", index, (FOREIGN[family], 1.0))) == 2
        return
    sizes = rf"not for this model: {BY_DIFFUSERS} is \[320, 4\] by \[4, \d+\], and input_blocks\.1\.1\S+ has 320 rows"
    names = f"and the model is {model}: none of its 1 layers has a place there, the first being lora_unet_"
    with pytest.raises(ModelFileError, match=rf"0\.safetensors: is a LoRA for {family}, ({sizes}|{names})"):
        combined(tmp_path, "unet", index, (FOREIGN[family], 1.0))


def test_values_that_are_no_numbers_are_refused_at_load(tmp_path: Path) -> None:
    arrays = pair(LAYERS[LINEAR], 24, 32)
    arrays[f"{LAYERS[LINEAR]}.lora_up.weight"][3, 1] = np.nan
    beside = combined(tmp_path, "unet", SOURCE, (arrays, 1.0))
    with pytest.raises(
        ModelFileError, match=r"0\.safetensors: lora_unet_\w+_to_q has values up to .*at strength 1, nan"
    ):
        computed(lambda w, x: ops.linear(x, place(w, LINEAR)), array(5, 32), SOURCE, beside)


def test_a_strength_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"lora 0\.safetensors: the strength nan is no number"):
        combined(tmp_path, "unet", SOURCE, (pair(LAYERS[LINEAR], 24, 32), float("nan")))


def test_bytes_are_those_of_both_halves(tmp_path: Path) -> None:
    beside = combined(tmp_path, "unet", SOURCE, (pair(LAYERS[LINEAR], 24, 32) | pair(LAYERS[CONV], 6, 5, 3, 3), 1.0))
    assert beside.nbytes == 2 * 8 * (24 + 32 + 6 + 45) == sum(beside[name].parts[0].size for name in beside)
