"""A language model's header, and how it shares a card with pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

import full_size
from planner.conftest import GIB, XEON
from relight.errors import ModelFileError
from relight.planner.language import LanguageModel, read_language_model
from relight.planner.machine import Machine, of_profile
from relight.planner.profiles import PROFILES
from relight.planner.together import Held, share

RX580 = Machine(XEON, of_profile(PROFILES["rx580-8g"]))


@pytest.fixture(scope="module")
def llama(full_models: Path) -> LanguageModel:
    return read_language_model(full_models / "llama-8b-Q4_K.gguf")


def test_the_header_gives_layers_formats_and_the_memory_of_a_conversation(llama: LanguageModel) -> None:
    assert (llama.architecture, llama.format, len(llama.layers)) == ("llama", "Q4_K", 32)
    assert llama.kv_per_token == 32 * 2 * 1024 * 2  # layers, keys and values, 8 heads of 128, F16
    assert llama.weights == pytest.approx(4.652e9, rel=0.001)


def test_layers_that_fit_are_counted_with_their_share_of_the_conversation(llama: LanguageModel) -> None:
    assert llama.most_layers(8 * GIB, 4096) == 33
    assert llama.most_layers(0, 4096) == 0
    assert 0 < llama.most_layers(2 * GIB, 4096) < 20
    assert llama.most_layers(2 * GIB, 32768) < llama.most_layers(2 * GIB, 4096)
    for room in (1, 2, 3, 4):
        layers = llama.most_layers(room * GIB, 8192)
        assert llama.on_gpu(layers, 8192) <= room * GIB < llama.on_gpu(layers + 1, 8192)


def test_more_layers_on_the_card_are_more_tokens_a_second(llama: LanguageModel) -> None:
    speeds = [1 / llama.token_seconds(layers, RX580) for layers in (0, 10, 20, 33)]
    assert speeds == sorted(speeds) and speeds[-1] == pytest.approx(32.9, rel=0.05)


def test_reading_is_products_and_at_least_one_look_at_the_weights(llama: LanguageModel) -> None:
    gpu = RX580.gpu
    assert gpu is not None and llama.reading_seconds(0, 0, RX580) == 0.0
    assert llama.reading_seconds(1, 33, RX580) == pytest.approx(llama.token_seconds(33, RX580))
    weights = sum(llama.layers) * 8 / 4.5
    assert llama.reading_seconds(1024, 33, RX580) == pytest.approx(2 * weights * 1024 / gpu.rates.matrix_rate("Q4_K"))
    ratio = llama.reading_seconds(1024, 0, RX580) / llama.reading_seconds(1024, 33, RX580)
    assert ratio == pytest.approx(gpu.rates.matrix_rate("Q4_K") / RX580.cpu.rates("ggml-cpu").matrix_rate("Q4_K"))


def test_a_long_prompt_is_computed_on_the_card_that_has_some_layers(llama: LanguageModel) -> None:
    """The weights of the others come there with each batch of 512, not with each token."""
    gpu, whole = RX580.gpu, llama.reading_seconds(1024, 33, RX580)
    assert gpu is not None
    brought = 2 * sum(llama.layers[:22]) / gpu.rates.upload
    assert llama.reading_seconds(1024, 10, RX580) == pytest.approx(whole + brought)
    assert llama.reading_seconds(8, 10, RX580) < whole


def test_what_fits_beside_the_pictures_stays(llama: LanguageModel) -> None:
    found = share(RX580, [Held("sd15", 2 * GIB, 2 * GIB, 20)], llama, 4096)
    assert found is not None and found.resident and found.swaps == () and found.language is not None
    assert found.language.layers == 33 and found.peak <= RX580.gpu.budget  # type: ignore[union-attr]


def test_what_does_not_takes_turns_and_each_change_has_its_price(llama: LanguageModel) -> None:
    found = share(RX580, [Held("flux", int(6.2 * GIB), 5 * GIB, 100)], llama, 4096)
    assert found is not None and not found.resident and "slower" in found.other
    assert [swap.name for swap in found.swaps] == ["flux", "llama-8b-Q4_K.gguf"]
    assert found.swaps[0].seconds == pytest.approx(5 * GIB / 7.7e9, rel=0.03)
    assert found.peak == int(6.2 * GIB)


def test_two_models_of_pictures_stay_together_where_they_fit() -> None:
    small, large = Held("a", 2 * GIB, GIB, 1), Held("b", 6 * GIB, 5 * GIB, 1)
    both = share(RX580, [small, large], None, 0)
    assert both is not None and both.resident and both.peak == 7 * GIB
    apart = share(RX580, [large, Held("c", 6 * GIB, 5 * GIB, 1)], None, 0)
    assert apart is not None and not apart.resident and len(apart.swaps) == 2
    assert share(RX580, [small], None, 0) is None


def test_a_file_that_is_no_language_model_is_refused_by_name(full_models: Path) -> None:
    with pytest.raises(ModelFileError, match=r"flux1-schnell-Q4_K\.gguf: is no language model"):
        read_language_model(full_models / "flux" / "flux1-schnell-Q4_K.gguf")


def test_heads_counted_by_layer_are_added_up(tmp_path: Path) -> None:
    path = full_size.language_model(tmp_path / "small.gguf", layers=4, kv_heads=4)
    assert read_language_model(path).kv_per_token == 4 * 2 * 512 * 2
