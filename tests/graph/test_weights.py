from __future__ import annotations

import re

import numpy as np
import pytest

from relight.errors import ModelFileError, WeightMissing
from relight.graph import Graph, Tensor, Weights, input_tensor, ops
from relight.graph.tensor import ShapeError
from shapes import ShapeIndex

SHAPES = {
    "img_in.weight": (32, 64),
    "img_in.bias": (32,),
    "blocks.0.lin.weight": (9, 96),
    "blocks.10.lin.weight": (9, 96),
    "blocks.norm.scale": (9,),
    "scale": (4,),
}


@pytest.fixture
def w() -> Weights:
    return Weights(ShapeIndex(SHAPES, "Q8_0"))


def test_a_path_is_the_name_in_the_checkpoint(w: Weights) -> None:
    leaf = (w / "blocks" / 0 / "lin")["weight"]
    assert (leaf.name, leaf.shape, leaf.dtype, leaf.op) == ("blocks.0.lin.weight", (9, 96), "Q8_0", "weight")
    assert w["img_in.bias"].dtype == "F32"
    assert "bias" in w / "img_in"
    assert "bias" not in w / "blocks" / 0 / "lin"
    assert (w / "blocks" / 0 / "lin").get("bias") is None


def test_a_missing_weight_names_the_nearest(w: Weights) -> None:
    with pytest.raises(WeightMissing, match=r"no weight img_in\.wieght; nearest are img_in\.weight"):
        (w / "img_in")["wieght"]
    with pytest.raises(WeightMissing, match=r"no weight quite_another_thing$"):
        w["quite_another_thing"]


def test_rows_shorten_matrices_and_biases_alike(w: Weights) -> None:
    part = (w / "img_in").rows(8, 24)
    assert (part["weight"].shape, part["bias"].shape) == ((16, 64), (16,))
    assert part["weight"].attrs["rows"].span == (8, 24)


def test_rows_by_number_keep_their_order(w: Weights) -> None:
    chosen = (w / "img_in").rows(np.array([3, 0, 31]))["weight"].attrs["rows"]
    assert chosen.index.tolist() == [3, 0, 31]
    assert chosen.span is None


def test_columns_shorten_matrices_only(w: Weights) -> None:
    part = (w / "img_in").columns(32, 64)
    assert (part["weight"].shape, part["bias"].shape) == ((32, 32), (32,))
    assert part["bias"].attrs["columns"] is None


def test_equal_selections_are_one_leaf_to_an_executor(w: Weights) -> None:
    place = w / "img_in"
    keys = {
        place["weight"].attrs["key"],
        place.rows(0, 8)["weight"].attrs["key"],
        place.rows(np.arange(8))["weight"].attrs["key"],
        place.rows(8, 16)["weight"].attrs["key"],
        place.columns(0, 32)["weight"].attrs["key"],
    }
    assert len(keys) == 4


@pytest.mark.parametrize(("start", "stop"), [(-1, 4), (30, 33)])
def test_rows_outside_are_refused(w: Weights, start: int, stop: int) -> None:
    with pytest.raises(ShapeError, match=re.escape(f"img_in.weight: rows {start} to {stop - 1} of 32")):
        (w / "img_in").rows(start, stop)["weight"]


@pytest.mark.parametrize(("start", "stop"), [(-32, 32), (32, 96)])
def test_columns_outside_are_refused(w: Weights, start: int, stop: int) -> None:
    with pytest.raises(ShapeError, match=re.escape(f"img_in.weight: columns {start} to {stop} of 64")):
        (w / "img_in").columns(start, stop)["weight"]


def test_unused_are_those_never_asked_for(w: Weights) -> None:
    assert w.unused() == sorted(SHAPES)
    w["scale"]
    (w / "blocks" / 10).rows(0, 4)["lin.weight"]
    assert w.unused() == ["blocks.0.lin.weight", "blocks.norm.scale", "img_in.bias", "img_in.weight"]
    assert (w / "blocks").unused() == ["blocks.0.lin.weight", "blocks.norm.scale"]
    assert w.unused(ignore=("blocks.", "img_in.b")) == ["img_in.weight"]


def test_asking_for_a_shape_or_presence_is_no_use(w: Weights) -> None:
    assert (w / "img_in").rows(0, 3).columns(0, 32).shape("weight") == (32, 64)
    assert "scale" in w
    assert w.unused() == sorted(SHAPES)


def test_weights_of_another_network_are_refused_by_number(w: Weights) -> None:
    w["scale"]
    with pytest.raises(ModelFileError, match=r"flux\.gguf: 5 weights have no place in this network, first blocks\.0"):
        w.require_all_used("flux.gguf")
    w.require_all_used("flux.gguf", ignore=("blocks.", "img_in."))


def test_children_are_counted_by_their_highest_number(w: Weights) -> None:
    assert (w / "blocks").count() == 11
    assert (w / "img_in").count() == 0


class Pair(ShapeIndex):
    """A pair of rank 4 beside `img_in.weight`, whose ranks from 1 on reach the rows from 8 on."""

    def __init__(self) -> None:
        super().__init__({"lora:img_in.weight.down": (4, 64), "lora:img_in.weight.up": (32, 4)}, "F16")

    def ranks(self, name: str, rows: np.ndarray | None) -> tuple[int, int] | None:
        if name != "img_in.weight":
            return None
        return (0, 4) if rows is None or rows.min() < 8 else (1, 4)


def names_of(node: Tensor) -> dict[str, tuple[int, ...]]:
    return {leaf.name: leaf.shape for leaf in Graph({"y": node}).weights}


def test_a_linear_layer_adds_the_pair_beside_its_weight(w: Weights) -> None:
    y = ops.linear(input_tensor("x", (5, 64)), w.with_adapters(Pair()) / "img_in")
    assert [node.op for node in Graph({"y": y}).nodes if node.inputs] == ["linear", "linear", "linear", "add"]
    assert names_of(y).keys() == {
        "img_in.weight",
        "img_in.bias",
        "lora:img_in.weight.down",
        "lora:img_in.weight.up",
    }


def test_a_layer_without_a_pair_stays_as_it_is(w: Weights) -> None:
    y = ops.linear(input_tensor("x", (5, 96)), w.with_adapters(Pair()) / "blocks" / 0 / "lin")
    assert names_of(y).keys() == {"blocks.0.lin.weight"}


def test_up_has_the_rows_and_down_the_columns(w: Weights) -> None:
    part = (w.with_adapters(Pair()) / "img_in").rows(4, 24).columns(32, 64)
    assert names_of(ops.linear(input_tensor("x", (5, 32)), part)) == {
        "img_in.weight": (20, 32),
        "img_in.bias": (20,),
        "lora:img_in.weight.down": (4, 32),
        "lora:img_in.weight.up": (20, 4),
    }


def test_ranks_that_do_not_reach_the_rows_are_left_out(w: Weights) -> None:
    shapes = names_of(ops.linear(input_tensor("x", (5, 64)), (w.with_adapters(Pair()) / "img_in").rows(8, 24)))
    assert shapes["lora:img_in.weight.down"] == (3, 64)
    assert shapes["lora:img_in.weight.up"] == (16, 3)


def test_pairs_that_no_operation_adds_are_named(w: Weights) -> None:
    adapted = w.with_adapters(Pair())
    assert adapted.unapplied_adapters() == ["img_in.weight"]
    (adapted / "img_in")["weight"]
    assert adapted.unapplied_adapters() == ["img_in.weight"]
    ops.linear(input_tensor("x", (5, 64)), adapted / "img_in")
    assert adapted.unapplied_adapters() == []
    assert w.unapplied_adapters() == []
