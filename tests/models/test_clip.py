from __future__ import annotations

import numpy as np
import pytest

from bounds import FORMATS, bound
from golden import weights as g
from relight.executors.base import Executor
from relight.graph import Weights
from relight.models import clip
from running import golden, relative_error, run_graph
from stored import ArraySource


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return g.random_weights(g.clip_shapes())


@pytest.mark.parametrize("format_name", FORMATS)
def test_pooled_vectors_are_the_published_ones(
    executor: Executor, arrays: dict[str, np.ndarray], format_name: str
) -> None:
    source, expected = ArraySource(arrays, format_name), golden("clip")
    cfg = clip.ClipConfig.from_weights(Weights(source))
    graph = clip.record(Weights(source), cfg)
    for ids, eos, pooled in zip(expected["ids"], expected["eos"], expected["pooled"], strict=True):
        got = run_graph(executor, graph, source, clip.host_inputs(cfg, ids, int(eos)))["pooled"]
        assert relative_error(got, pooled[None]) < bound(executor.name, format_name)


def test_sizes_come_from_the_weights(source: ArraySource) -> None:
    cfg = clip.ClipConfig.from_weights(Weights(source))
    assert cfg == clip.ClipConfig(hidden_size=256, num_layers=3, mlp_size=512, vocabulary=1000, length=77)
    assert cfg.num_heads == 4


def test_every_weight_is_used(source: ArraySource) -> None:
    w = Weights(source)
    clip.record(w, clip.ClipConfig.from_weights(w))
    assert w.unused() == []


def test_ids_out_of_range_are_refused_with_the_numbers(source: ArraySource) -> None:
    cfg = clip.ClipConfig.from_weights(Weights(source))
    with pytest.raises(ValueError, match="token ids 0 to 1000, and this CLIP has 1000 tokens"):
        clip.host_inputs(cfg, np.arange(77) * 1000 // 76, 3)
    with pytest.raises(ValueError, match=r"takes 77 token ids, given \(76,\)"):
        clip.host_inputs(cfg, np.zeros(76), 3)


@pytest.fixture(scope="module")
def source(arrays: dict[str, np.ndarray]) -> ArraySource:
    return ArraySource(arrays)
