from __future__ import annotations

import numpy as np
import pytest

from bounds import bound
from golden import small_nets
from golden.weights import random_weights
from relight.errors import WeightMissing
from relight.executors.base import Executor
from relight.graph import Weights
from relight.models import taesd
from running import golden, relative_error, run_graph
from stored import ArraySource

CHANNELS = {"taesd_4": 4, "taesd_16": 16}
FORMATS = ("F32", "F16")


@pytest.fixture(scope="module", params=CHANNELS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def arrays(kind: str) -> dict[str, np.ndarray]:
    return random_weights(small_nets.taesd_shapes(CHANNELS[kind]))


@pytest.mark.parametrize("format_name", FORMATS)
def test_decoded_pictures_are_the_published_ones(
    executor: Executor, arrays: dict[str, np.ndarray], kind: str, format_name: str
) -> None:
    source, expected = ArraySource(arrays, format_name), golden(kind)
    w = Weights(source)
    graph = taesd.record_decoder(w, taesd.TaesdConfig.from_weights(w), 5, 6, batch=2)
    got = run_graph(executor, graph, source, {"latents": expected["latents"]})["image"]
    assert relative_error(got, expected["decoded"]) < bound(executor.name, format_name)


@pytest.mark.parametrize("format_name", FORMATS)
def test_encoded_latents_are_the_published_ones(
    executor: Executor, arrays: dict[str, np.ndarray], kind: str, format_name: str
) -> None:
    source, expected = ArraySource(arrays, format_name), golden(kind)
    w = Weights(source)
    graph = taesd.record_encoder(w, taesd.TaesdConfig.from_weights(w), 48, 40)
    got = run_graph(executor, graph, source, {"image": expected["image"]})["latents"]
    assert relative_error(got, expected["encoded"]) < bound(executor.name, format_name)


def test_sizes_come_from_the_weights(arrays: dict[str, np.ndarray], kind: str) -> None:
    cfg = taesd.TaesdConfig.from_weights(Weights(ArraySource(arrays)))
    assert cfg == taesd.TaesdConfig(latent_channels=CHANNELS[kind])
    assert cfg.scale == 8


def test_every_weight_is_used(arrays: dict[str, np.ndarray]) -> None:
    w = Weights(ArraySource(arrays))
    cfg = taesd.TaesdConfig.from_weights(w)
    taesd.record_decoder(w, cfg, 4, 4)
    taesd.record_encoder(w, cfg, 32, 32)
    assert w.unused() == []


def test_a_file_with_a_decoder_alone_decodes() -> None:
    w = Weights(ArraySource(random_weights(small_nets.taesd_decoder_shapes(4))))
    cfg = taesd.TaesdConfig.from_weights(w)
    assert cfg.encoder_blocks == ()
    assert taesd.record_decoder(w, cfg, 4, 6).outputs["image"].shape == (1, 3, 32, 48)
    with pytest.raises(WeightMissing, match=r"no weight encoder\.layers\.0\.weight"):
        taesd.record_encoder(w, cfg, 32, 32)


def test_a_file_without_a_decoder_is_refused() -> None:
    with pytest.raises(WeightMissing, match=r"no weight decoder\.layers\.0\.weight"):
        taesd.TaesdConfig.from_weights(Weights(ArraySource(random_weights(small_nets.taesd_encoder_shapes(4)))))


def test_a_picture_that_is_no_multiple_of_8_is_refused(arrays: dict[str, np.ndarray]) -> None:
    w = Weights(ArraySource(arrays))
    with pytest.raises(ValueError, match="40x47 pixels: TAESD takes multiples of 8"):
        taesd.record_encoder(w, taesd.TaesdConfig.from_weights(w), 47, 40)
