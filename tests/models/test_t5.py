from __future__ import annotations

import numpy as np
import pytest

from bounds import FORMATS, bound
from golden import weights as g
from relight.executors.base import Executor
from relight.graph import Weights
from relight.models import t5
from running import golden, relative_error, run_graph
from stored import ArraySource


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return g.random_weights(g.t5_shapes())


@pytest.fixture(scope="module")
def source(arrays: dict[str, np.ndarray]) -> ArraySource:
    return ArraySource(arrays)


@pytest.mark.parametrize("format_name", FORMATS)
def test_text_states_are_the_published_ones(
    executor: Executor, arrays: dict[str, np.ndarray], format_name: str
) -> None:
    source, expected = ArraySource(arrays, format_name), golden("t5")
    cfg = t5.T5Config.from_weights(Weights(source))
    graph = t5.record(Weights(source), cfg, len(expected["ids"]))
    got = run_graph(executor, graph, source, t5.host_inputs(cfg, expected["ids"]))["text"]
    assert relative_error(got[expected["rows"]], expected["text"]) < bound(executor.name, format_name)


def test_sizes_come_from_the_weights(source: ArraySource) -> None:
    assert t5.T5Config.from_weights(Weights(source)) == t5.T5Config(
        hidden_size=256, num_layers=2, num_heads=8, head_dim=64, mlp_size=768, vocabulary=600, buckets=32
    )


def test_every_weight_is_used(source: ArraySource) -> None:
    w = Weights(source)
    t5.record(w, t5.T5Config.from_weights(w), 5)
    assert w.unused() == []


def test_buckets_are_exact_near_and_shared_far() -> None:
    from_first = t5.position_buckets(t5.T5Config(), 200)[0]  # keys at or after the query
    assert list(from_first[:10]) == [0, 17, 18, 19, 20, 21, 22, 23, 24, 24]
    assert (np.diff(from_first[1:]) >= 0).all()
    assert (from_first[128:] == 31).all()
    assert list(t5.position_buckets(t5.T5Config(), 200)[:4, 0]) == [0, 1, 2, 3]  # keys before it


def test_ids_out_of_range_are_refused_with_the_numbers(source: ArraySource) -> None:
    cfg = t5.T5Config.from_weights(Weights(source))
    with pytest.raises(ValueError, match="token ids 1 to 600, and this T5 has 600 tokens"):
        t5.host_inputs(cfg, np.array([1, 600]))
