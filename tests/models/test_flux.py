from __future__ import annotations

import numpy as np
import pytest

from bounds import FORMATS, bound
from golden import weights as g
from relight.executors.base import Executor
from relight.graph import Weights
from relight.models import flux
from running import golden, relative_error, run_graph
from stored import ArraySource


@pytest.fixture(scope="module", params=["flux_schnell", "flux_dev"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def arrays(kind: str) -> dict[str, np.ndarray]:
    return g.random_weights(g.flux_shapes(guidance=kind == "flux_dev"))


@pytest.fixture(scope="module")
def source(arrays: dict[str, np.ndarray]) -> ArraySource:
    return ArraySource(arrays)


@pytest.mark.parametrize("format_name", FORMATS)
def test_velocity_is_the_published_one(
    executor: Executor, arrays: dict[str, np.ndarray], kind: str, format_name: str
) -> None:
    """Both timesteps from one modulation graph, and one step graph for each."""
    source, expected = ArraySource(arrays, format_name), golden(kind)
    cfg = flux.FluxConfig.from_weights(Weights(source))
    steering = {name: expected[name] for name in ("timesteps", "pooled", "guidance") if name in expected}
    modulation = run_graph(executor, flux.record_modulation(Weights(source), cfg, 2), source, steering)["modulation"]
    step = flux.record(Weights(source), cfg, text_tokens=11, latent_height=10, latent_width=14)
    fixed = {name: expected[name] for name in ("latents", "text")} | {"positions": flux.positions(11, 5, 7)}
    got = [run_graph(executor, step, source, fixed | {"modulation": row[None]})["velocity"] for row in modulation]
    assert relative_error(np.concatenate(got), expected["velocity"]) < bound(executor.name, format_name)


def test_sizes_come_from_the_weights(source: ArraySource, kind: str) -> None:
    cfg = flux.FluxConfig.from_weights(Weights(source))
    assert cfg == flux.FluxConfig(
        in_channels=64,
        text_dim=512,
        pooled_dim=256,
        hidden_size=256,
        num_heads=2,
        mlp_size=1024,
        double_blocks=2,
        single_blocks=2,
        guidance_embed=kind == "flux_dev",
    )
    assert cfg.rope_sections == (8, 28, 28)


def test_the_two_graphs_use_every_weight(source: ArraySource) -> None:
    w = Weights(source)
    cfg = flux.FluxConfig.from_weights(w)
    flux.record_modulation(w, cfg, 1)
    flux.record(w, cfg, 3, 4, 4)
    assert w.unused() == []


def test_text_stands_at_the_origin_and_patches_on_a_grid() -> None:
    assert flux.positions(2, 2, 3).tolist() == [[0] * 8, [0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 2, 0, 1, 2]]
