from __future__ import annotations

import pytest

from relight.graph import Graph, Weights, input_tensor, ops
from relight.graph.tensor import ShapeError, broadcasts
from shapes import ShapeIndex


def test_nodes_come_in_the_order_they_were_recorded() -> None:
    """Whichever way they hang together, and only those that the outputs need."""
    w = Weights(ShapeIndex({"l.weight": (7, 5)}))
    a, b = input_tensor("a", (3, 5)), input_tensor("b", (3, 7))
    unused = a * 2
    late = ops.linear(a, w / "l")
    sums = b + late
    graph = Graph({"late": late, "sum": sums})
    assert [node.op for node in graph.nodes] == ["input", "input", "weight", "linear", "add"]
    assert [node.serial for node in graph.nodes] == sorted(node.serial for node in graph.nodes)
    assert unused not in graph.nodes
    assert graph.inputs == {"a": a, "b": b}
    assert [leaf.name for leaf in graph.weights] == ["l.weight"]


def test_last_use_is_the_last_reader_and_outputs_live_to_the_end() -> None:
    x = input_tensor("x", (3,))
    first = x * 2
    second = first + x
    third = first * second
    graph = Graph({"first": first, "third": third})
    assert graph.last_use == {
        x.serial: second.serial,
        first.serial: third.serial,
        second.serial: third.serial,
        third.serial: third.serial,
    }
    assert Graph({"third": ops.silu(third)}).last_use[first.serial] == third.serial


def test_a_deep_graph_needs_no_deep_stack() -> None:
    x = first = input_tensor("x", (3,))
    for _ in range(20_000):
        x = x + 1
    nodes = Graph({"y": x}).nodes
    assert len(nodes) == 20_001
    assert nodes[0] is first


def test_two_inputs_of_one_name_are_refused() -> None:
    graph = Graph({"y": input_tensor("x", (3,)) + input_tensor("x", (3,))})
    with pytest.raises(ShapeError, match="two inputs"):
        graph.inputs  # noqa: B018


@pytest.mark.parametrize(
    ("small", "large", "fits"),
    [
        ((7,), (2, 3, 7), True),
        ((3, 1), (2, 3, 7), True),
        ((1, 1, 1), (2, 3, 7), True),
        ((2,), (2, 3, 7), False),
        ((1, 2, 3, 7), (2, 3, 7), False),
    ],
)
def test_axes_are_aligned_at_the_last(small: tuple[int, ...], large: tuple[int, ...], fits: bool) -> None:
    assert broadcasts(small, large) is fits


def test_split_gives_neighbouring_parts() -> None:
    parts = input_tensor("x", (2, 7)).split([3, 1, 3])
    assert [(part.attrs["start"], part.shape) for part in parts] == [(0, (2, 3)), (3, (2, 1)), (4, (2, 3))]


def test_a_tensor_says_what_it_is() -> None:
    assert repr(input_tensor("x", (2, 7))) == "input x (2, 7)"
    assert repr(input_tensor("x", (2, 7)) + 1) == "add (2, 7)"
