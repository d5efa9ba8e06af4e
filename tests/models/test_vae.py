from __future__ import annotations

import numpy as np
import pytest

from bounds import bound
from golden import weights as g
from relight.executors.base import Executor
from relight.graph import Weights
from relight.models import vae
from running import golden, relative_error, run_graph
from stored import ArraySource

KINDS = {"vae_16": (16, False), "vae_4": (4, True)}
FORMATS = ("F32", "F16")


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def arrays(kind: str) -> dict[str, np.ndarray]:
    return g.random_weights(g.vae_shapes(*KINDS[kind]))


@pytest.fixture(scope="module")
def source(arrays: dict[str, np.ndarray]) -> ArraySource:
    return ArraySource(arrays)


@pytest.mark.parametrize("format_name", FORMATS)
def test_decoded_pictures_are_the_published_ones(
    executor: Executor, arrays: dict[str, np.ndarray], kind: str, format_name: str
) -> None:
    source, expected = ArraySource(arrays, format_name), golden(kind)
    cfg = vae.VaeConfig.from_weights(Weights(source))
    graph = vae.record_decoder(Weights(source), cfg, 5, 6, batch=2)
    got = run_graph(executor, graph, source, {"latents": expected["latents"]})["image"]
    assert relative_error(got, expected["decoded"]) < bound(executor.name, format_name)


@pytest.mark.parametrize("format_name", FORMATS)
def test_encoded_moments_are_the_published_ones(
    executor: Executor, arrays: dict[str, np.ndarray], kind: str, format_name: str
) -> None:
    source, expected = ArraySource(arrays, format_name), golden(kind)
    cfg = vae.VaeConfig.from_weights(Weights(source))
    graph = vae.record_encoder(Weights(source), cfg, 48, 40)
    got = run_graph(executor, graph, source, {"image": expected["image"]})["moments"]
    assert relative_error(got, expected["moments"]) < bound(executor.name, format_name)


def test_attention_weights_may_be_matrices(executor: Executor) -> None:
    expected, arrays = golden("vae_16"), g.random_weights(g.vae_shapes(16, False))
    matrices = {
        name: array[:, :, 0, 0] if ".attn_1." in name and array.ndim == 4 else array for name, array in arrays.items()
    }
    source = ArraySource(matrices)
    graph = vae.record_decoder(Weights(source), vae.VaeConfig.from_weights(Weights(source)), 5, 6, batch=2)
    got = run_graph(executor, graph, source, {"latents": expected["latents"]})["image"]
    assert relative_error(got, expected["decoded"]) < bound(executor.name, "F32")


def test_sizes_come_from_the_weights(source: ArraySource, kind: str) -> None:
    cfg = vae.VaeConfig.from_weights(Weights(source))
    assert cfg == vae.VaeConfig(channels=(32, 64, 64, 192), latent_channels=KINDS[kind][0], res_blocks=2)
    assert cfg.scale == 8


def test_every_weight_is_used(source: ArraySource) -> None:
    w = Weights(source)
    cfg = vae.VaeConfig.from_weights(w)
    vae.record_decoder(w, cfg, 4, 4)
    vae.record_encoder(w, cfg, 32, 32)
    assert w.unused() == []


def test_a_picture_that_is_no_multiple_of_8_is_refused(source: ArraySource) -> None:
    with pytest.raises(ValueError, match="40x47 pixels: the VAE takes multiples of 8"):
        vae.record_encoder(Weights(source), vae.VaeConfig.from_weights(Weights(source)), 47, 40)
