from __future__ import annotations

import numpy as np
import pytest

from bounds import FORMATS, bound
from golden import weights as g
from relight.errors import RequestError, WeightMissing
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


@pytest.mark.parametrize(
    ("kind", "skip", "final_norm", "expected"),
    [
        ("clip_l", 1, True, "quick_skip1_norm"),
        ("clip_l", 2, True, "quick_skip2_norm"),
        ("clip_l", 2, False, "quick_skip2"),
        ("clip_h", 2, True, "exact_skip2_norm"),
        ("clip_g", 2, False, "exact_skip2"),
        ("clip_g", 1, False, "exact_skip1"),
    ],
)
def test_hidden_states_are_the_published_ones(
    executor: Executor, projecting: ArraySource, kind: str, skip: int, final_norm: bool, expected: str
) -> None:
    stored, w = golden("clip_states"), Weights(projecting)
    cfg = clip.ClipConfig.from_weights(w, kind)
    graph = clip.record(w, cfg, skip=skip, final_norm=final_norm, hidden=True, pooled=False)
    for ids, hidden in zip(stored["ids"], stored[expected], strict=True):
        got = run_graph(executor, graph, projecting, clip.host_inputs(cfg, ids))
        assert got.keys() == {"hidden"}
        assert relative_error(got["hidden"][stored["rows"]], hidden) < bound(executor.name, "F32")


@pytest.mark.parametrize(
    ("kind", "expected"), [("clip_l", "quick_pooled"), ("clip_h", "exact_pooled"), ("clip_g", "exact_projected")]
)
def test_pooled_is_of_all_layers_beside_hidden_states_of_fewer(
    executor: Executor, projecting: ArraySource, kind: str, expected: str
) -> None:
    stored, w = golden("clip_states"), Weights(projecting)
    cfg = clip.ClipConfig.from_weights(w, kind)
    graph = clip.record(w, cfg, skip=2, final_norm=False, hidden=True)
    inputs = clip.host_inputs(cfg, stored["ids"][0], int(stored["eos"][0]))
    got = run_graph(executor, graph, projecting, inputs)
    hidden = stored["quick_skip2" if kind == "clip_l" else "exact_skip2"][0]
    assert relative_error(got["hidden"][stored["rows"]], hidden) < bound(executor.name, "F32")
    assert relative_error(got["pooled"], stored[expected][:1]) < bound(executor.name, "F32")


def test_replaced_tokens_equal_those_whose_vectors_replace_them(
    executor: Executor, arrays: dict[str, np.ndarray], source: ArraySource
) -> None:
    table = arrays["text_model.embeddings.token_embedding.weight"]
    cfg = clip.ClipConfig.from_weights(Weights(source))
    ids = golden("clip_states")["ids"][0]
    expected = run_graph(executor, clip.record(Weights(source), cfg), source, clip.host_inputs(cfg, ids, 9))["pooled"]
    graph, blank = clip.record(Weights(source), cfg, replaced=True), ids.copy()
    blank[[2, 3, 6]] = 0
    for given, vectors in ((blank, {2: table[ids[2:4]], 6: table[ids[6:7]]}), (ids, {})):
        got = run_graph(executor, graph, source, clip.host_inputs(cfg, given, 9, vectors))["pooled"]
        assert relative_error(got, expected) < bound(executor.name, "F32") / 10
    got = run_graph(executor, graph, source, clip.host_inputs(cfg, blank, 9, {}))["pooled"]
    assert relative_error(got, expected) > 0.1


def test_sizes_come_from_the_weights(source: ArraySource) -> None:
    cfg = clip.ClipConfig.from_weights(Weights(source))
    assert cfg == clip.ClipConfig(hidden_size=256, num_layers=3, mlp_size=512, vocabulary=1000, length=77)
    assert cfg.num_heads == 4


@pytest.mark.parametrize(
    ("width", "kind", "quick_gelu"), [(768, "clip_l", True), (1024, "clip_h", False), (1280, "clip_g", False)]
)
def test_the_kind_follows_from_a_published_width(
    arrays: dict[str, np.ndarray], width: int, kind: str, quick_gelu: bool
) -> None:
    table = {"text_model.embeddings.token_embedding.weight": np.zeros((7, width), np.float32)}
    cfg = clip.ClipConfig.from_weights(Weights(ArraySource(arrays | table)))
    assert (cfg.kind, cfg.quick_gelu, cfg.projected) == (kind, quick_gelu, kind == "clip_g")


def test_every_weight_is_used(source: ArraySource) -> None:
    w = Weights(source)
    clip.record(w, clip.ClipConfig.from_weights(w))
    assert w.unused() == []


def test_only_the_layers_that_count_are_asked_for(projecting: ArraySource) -> None:
    w = Weights(projecting)
    clip.record(w, clip.ClipConfig.from_weights(w, "clip_g"), skip=2, final_norm=False, hidden=True, pooled=False)
    places = {name.removeprefix("text_model.encoder.").rsplit(".", 1)[0] for name in w.unused()}
    assert {"text_projection", "text_model.final_layer_norm", "layers.2.mlp.fc1"} <= places
    assert not any(place.startswith(("layers.0", "layers.1")) for place in places)


def test_the_projection_of_a_clip_l_file_is_left_alone(projecting: ArraySource) -> None:
    w = Weights(projecting)
    graph = clip.record(w, clip.ClipConfig.from_weights(w))
    assert graph.outputs["pooled"].shape == (1, 256) and w.unused() == ["text_projection.weight"]


def test_a_clip_g_without_projection_is_refused_by_name(source: ArraySource) -> None:
    with pytest.raises(WeightMissing, match=r"no weight text_projection\.weight"):
        clip.record(Weights(source), clip.ClipConfig.from_weights(Weights(source), "clip_g"))


@pytest.mark.parametrize(
    ("kind", "layers", "clip_skip", "skip"),
    [("clip_h", 24, 2, 2), ("clip_h", 23, 2, 1), ("clip_h", 23, 3, 2), ("clip_h", 23, 1, 1), ("clip_l", 12, 2, 2)],
)
def test_clip_skip_counts_from_the_published_depth(kind: str, layers: int, clip_skip: int, skip: int) -> None:
    assert clip.ClipConfig(kind=kind, num_layers=layers).skip(clip_skip) == skip


@pytest.mark.parametrize("skip", [0, 4])
def test_a_skip_deeper_than_the_network_is_refused(source: ArraySource, skip: int) -> None:
    w = Weights(source)
    with pytest.raises(RequestError, match=f"clip skip {skip}: this text encoder has 3 layers, so 1 to 3"):
        clip.record(w, clip.ClipConfig.from_weights(w), skip=skip, hidden=True)


@pytest.mark.parametrize(("start", "shape"), [(70, (8, 256)), (-1, (1, 256)), (0, (1, 255)), (0, (256,))])
def test_vectors_that_do_not_fit_are_refused_with_the_numbers(
    source: ArraySource, start: int, shape: tuple[int, ...]
) -> None:
    cfg = clip.ClipConfig.from_weights(Weights(source))
    with pytest.raises(ValueError, match=rf"at token {start}: this CLIP has 77 tokens of 256 values"):
        clip.host_inputs(cfg, np.zeros(77, np.int32), 3, {start: np.zeros(shape, np.float32)})


def test_ids_out_of_range_are_refused_with_the_numbers(source: ArraySource) -> None:
    cfg = clip.ClipConfig.from_weights(Weights(source))
    with pytest.raises(ValueError, match="token ids 0 to 1000, and this CLIP has 1000 tokens"):
        clip.host_inputs(cfg, np.arange(77) * 1000 // 76, 3)
    with pytest.raises(ValueError, match=r"takes 77 token ids, given \(76,\)"):
        clip.host_inputs(cfg, np.zeros(76), 3)


@pytest.fixture(scope="module")
def source(arrays: dict[str, np.ndarray]) -> ArraySource:
    return ArraySource(arrays)


@pytest.fixture(scope="module")
def projecting(arrays: dict[str, np.ndarray]) -> ArraySource:
    return ArraySource(arrays | g.random_weights({"text_projection.weight": (192, g.CLIP_HIDDEN)}))
