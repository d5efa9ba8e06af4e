"""Shapes that do not go together are refused while a model is recorded, in words that have the shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest

from relight.graph import Tensor, Weights, input_tensor, ops
from relight.graph.tensor import ShapeError
from shapes import ShapeIndex

W = Weights(
    ShapeIndex(
        {
            "l.weight": (33, 64),
            "c.weight": (8, 5, 3, 3),
            "n.weight": (7,),
            "n.bias": (7,),
            "point.weight": (7, 64, 1, 1),
            "point.bias": (7,),
        }
    )
)


def x(*shape: int) -> Tensor:
    return input_tensor("x", shape)


def ids(*shape: int) -> Tensor:
    return input_tensor("ids", shape, "i32")


ROPE = {"sections": (8, 12, 12), "theta": 10000.0}
REFUSED: dict[str, tuple[Callable[[], Tensor], str]] = {
    "five axes": (lambda: x(1, 2, 3, 4, 5), "input: shape (1, 2, 3, 4, 5) needs 1 to 4 axes"),
    "an empty axis": (lambda: x(2, 0), "input: shape (2, 0) needs 1 to 4 axes of at least 1"),
    "add": (lambda: x(2, 3) + x(3, 2), "add: neither of (2, 3) and (3, 2) broadcasts to the other"),
    "mul": (lambda: x(2, 1, 3) * x(2, 3), "mul: neither of (2, 1, 3) and (2, 3) broadcasts"),
    "reshape": (lambda: x(2, 3).reshape(7), "reshape: (2, 3) has 6 elements, (7,) has 7"),
    "permute": (lambda: x(2, 3).permute(0, 2), "permute: (0, 2) is no order of the axes of (2, 3)"),
    "narrow": (lambda: x(2, 5).narrow(1, 3, 4), "narrow: 3..7 is outside axis 1 of (2, 5)"),
    "narrow from before the start": (lambda: x(2, 5).narrow(-1, -1, 2), "narrow: -1..1 is outside axis 1 of (2, 5)"),
    "split": (lambda: x(2, 5).split([2, 2])[0], "split: [2, 2] does not add up to axis -1 of (2, 5)"),
    "concat": (lambda: ops.concat([x(2, 3), x(3, 3)], 1), "concat: shapes [(2, 3), (3, 3)] do not agree"),
    "concat of other ranks": (lambda: ops.concat([x(2, 3), x(2, 3, 1)], 0), "shapes [(2, 3), (2, 3, 1)]"),
    "linear": (lambda: ops.linear(x(5, 63), W / "l"), "linear l.weight: input (5, 63), weight (33, 64)"),
    "linear with a kernel": (
        lambda: ops.linear(x(2, 5), W / "c"),
        "linear c.weight: input (2, 5), weight (8, 5, 3, 3)",
    ),
    "embedding by numbers": (lambda: ops.embedding(x(4), x(9, 3)), "embedding: ids f32 (4,), table (9, 3)"),
    "embedding of a vector": (lambda: ops.embedding(ids(4), x(9)), "embedding: ids i32 (4,), table (9,)"),
    "prelu": (lambda: ops.prelu(x(1, 6, 2, 2), W["n.weight"]), "prelu n.weight: input (1, 6, 2, 2), slopes (7,)"),
    "prelu of a sequence": (lambda: ops.prelu(x(2, 7), W["n.weight"]), "input (2, 7), slopes (7,)"),
    "layer_norm": (
        lambda: ops.layer_norm(x(2, 6), W / "n", eps=1e-6),
        "layer_norm n.weight: input (2, 6), weight (7,)",
    ),
    "rms_norm": (
        lambda: ops.rms_norm(x(2, 6), W["n.weight"], eps=1e-6),
        "rms_norm n.weight: input (2, 6), weight (7,)",
    ),
    "group_norm in odd groups": (
        lambda: ops.group_norm(x(1, 7, 2, 2), W / "n", groups=2, eps=1e-6),
        "group_norm n: input (1, 7, 2, 2) in 2 groups",
    ),
    "group_norm": (
        lambda: ops.group_norm(x(1, 8, 2, 2), W / "n", groups=2, eps=1e-6),
        "group_norm n.weight: input (1, 8, 2, 2), weight (7,)",
    ),
    "attention": (
        lambda: ops.attention(x(1, 5, 2, 8), x(1, 6, 3, 8), x(1, 6, 3, 8)),
        "attention: q (1, 5, 2, 8), k (1, 6, 3, 8), v (1, 6, 3, 8)",
    ),
    "attention with other values": (
        lambda: ops.attention(x(1, 5, 2, 8), x(1, 6, 2, 8), x(1, 7, 2, 8)),
        "attention: q (1, 5, 2, 8), k (1, 6, 2, 8), v (1, 7, 2, 8)",
    ),
    "attention with a bias": (
        lambda: ops.attention(*[x(1, 5, 2, 8)] * 3, bias=x(5, 6)),
        "attention: bias (5, 6) for scores (2, 5, 5)",
    ),
    "rope with other positions": (
        lambda: ops.rope(x(1, 5, 2, 64), ids(3, 6), **ROPE),
        "rope: input (1, 5, 2, 64), positions i32 (3, 6), 3 sections",
    ),
    "rope of a smaller head": (
        lambda: ops.rope(x(1, 5, 2, 32), ids(3, 5), **ROPE),
        "rope: sections (8, 12, 12) must add up to half the head size 32",
    ),
    "timestep_embedding": (lambda: ops.timestep_embedding(x(2, 1), 256), "timesteps (2, 1), dim 256"),
    "timestep_embedding of odd size": (lambda: ops.timestep_embedding(x(2), 255), "timesteps (2,), dim 255"),
    "conv2d": (lambda: ops.conv2d(x(1, 4, 9, 9), W / "c"), "conv2d c.weight: input (1, 4, 9, 9), weight (8, 5, 3, 3)"),
    "conv2d with a matrix": (lambda: ops.conv2d(x(1, 64, 9, 9), W / "l"), "input (1, 64, 9, 9), weight (33, 64)"),
    "conv2d larger than its input": (lambda: ops.conv2d(x(1, 5, 2, 2), W / "c"), "conv2d: shape (1, 8, 0, 0) needs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_shapes_that_do_not_fit_are_named(case: str) -> None:
    record, message = REFUSED[case]
    with pytest.raises(ShapeError, match=re.escape(message)):
        record()


SHAPES: dict[str, tuple[Callable[[], Tensor], tuple[int, ...]]] = {
    "add": (lambda: x(7) + x(2, 3, 7), (2, 3, 7)),
    "add of a number": (lambda: x(2, 3) + 1, (2, 3)),
    "permute": (lambda: x(2, 3, 5, 7).permute(2, 0, 3, 1), (5, 2, 7, 3)),
    "narrow": (lambda: x(2, 5).narrow(-1, 3, 2), (2, 2)),
    "concat": (lambda: ops.concat([x(2, 3), x(2, 4)], -1), (2, 7)),
    "linear": (lambda: ops.linear(x(2, 5, 64), W / "l"), (2, 5, 33)),
    "linear with a 1x1 kernel": (lambda: ops.linear(x(5, 64), W / "point"), (5, 7)),
    "embedding": (lambda: ops.embedding(ids(4), x(9, 3)), (4, 3)),
    "attention": (lambda: ops.attention(x(1, 5, 2, 8), x(1, 6, 2, 8), x(1, 6, 2, 8)), (1, 5, 2, 8)),
    "timestep_embedding": (lambda: ops.timestep_embedding(x(3), 256), (3, 256)),
    "conv2d": (lambda: ops.conv2d(x(1, 5, 9, 8), W / "c", padding=1), (1, 8, 9, 8)),
    "conv2d with stride": (lambda: ops.conv2d(x(1, 5, 9, 8), W / "c", stride=2), (1, 8, 4, 3)),
    "prelu": (lambda: ops.prelu(x(2, 7, 3, 5), W["n.weight"]), (2, 7, 3, 5)),
    "upsample_nearest": (lambda: ops.upsample_nearest(x(1, 3, 4, 5), 3), (1, 3, 12, 15)),
    "pad": (lambda: ops.pad(x(1, 3, 4, 5), bottom=1, right=2), (1, 3, 5, 7)),
}


@pytest.mark.parametrize("case", SHAPES)
def test_results_have_the_shapes_of_their_definition(case: str) -> None:
    record, shape = SHAPES[case]
    assert record().shape == shape


def test_a_layer_without_a_bias_in_the_file_is_recorded_without() -> None:
    assert [node.name for node in ops.linear(x(5, 64), W / "l").inputs] == ["x", "l.weight"]
    assert [node.name for node in ops.linear(x(5, 64), W / "point").inputs] == ["x", "point.weight", "point.bias"]
    assert [node.name for node in ops.linear(x(5, 64), W / "point", bias=False).inputs] == ["x", "point.weight"]


def test_scores_are_divided_by_the_root_of_the_head_size_unless_told() -> None:
    q = x(1, 5, 2, 16)
    assert math.isclose(ops.attention(q, q, q).attrs["scale"], 0.25)
    assert ops.attention(q, q, q, scale=1.0).attrs["scale"] == 1.0
