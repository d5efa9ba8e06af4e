"""What `--backend` may say."""

from __future__ import annotations

import pytest

from relight.errors import ConfigError
from relight.planner.backends import COMPONENTS, parse


@pytest.mark.parametrize("spec", [None, "", " ", ",", "auto"])
def test_nothing_said_leaves_every_component_open(spec: str | None) -> None:
    assert parse(spec) == dict.fromkeys(COMPONENTS, "auto")


def test_one_device_is_for_all() -> None:
    assert parse("ggml-cpu") == dict.fromkeys(COMPONENTS, "ggml-cpu")


def test_components_are_set_one_by_one_and_te_means_every_text_encoder() -> None:
    found = parse("diffusion=vulkan0, te = cpu ,vae=openvino,")
    assert found == dict.fromkeys(COMPONENTS, "auto") | {
        "clip_l": "cpu",
        "clip_g": "cpu",
        "clip_h": "cpu",
        "t5xxl": "cpu",
        "diffusion": "vulkan0",
        "vae": "openvino",
        "vae_encoder": "openvino",
    }


def test_what_comes_later_wins() -> None:
    found = parse("cpu,diffusion=vulkan1,te=ggml-cpu,clip_l=vulkan1")
    assert found == dict.fromkeys(COMPONENTS, "cpu") | {
        "clip_l": "vulkan1",
        "clip_g": "ggml-cpu",
        "clip_h": "ggml-cpu",
        "t5xxl": "ggml-cpu",
        "diffusion": "vulkan1",
    }


def test_the_autoencoders_halves_go_together_unless_the_encoder_is_named() -> None:
    assert parse("vae=vulkan0")["vae_encoder"] == "vulkan0"
    apart = parse("vae=vulkan0,vae_encoder=cpu")
    assert apart["vae"] == "vulkan0" and apart["vae_encoder"] == "cpu"


@pytest.mark.parametrize("spec", ["cuda0", "diffusion=", "diffusion=vulkan", "vae=vulkan-1", "vae:cpu"])
def test_an_unknown_device_is_named_with_those_there_are(spec: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(spec)
    message = str(caught.value)
    assert spec in message and "vulkan0" in message and "openvino" in message and "relight devices" in message


@pytest.mark.parametrize("spec", ["unet=cpu", "=vulkan0", "VAE=cpu", "vae=cpu;te=cpu"])
def test_an_unknown_component_is_named_with_those_there_are(spec: str) -> None:
    with pytest.raises(ConfigError, match=r"components are te, clip_l, clip_g, .*, diffusion, vae, ") as caught:
        parse(spec)
    assert spec in str(caught.value)
