"""Files that are whole by their headers and make no network all the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import checkpoints
from relight.errors import ModelFileError, RequestError
from relight.jobs.checks import Checked
from relight.jobs.request import ModelFiles


def with_file(files: ModelFiles, kind: str, path: Path) -> ModelFiles:
    return replace(files, paths={**files.paths, kind: (path,)})


HEAD = "double_blocks.0.img_attn.norm.query_norm.scale"
T5_TABLE = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
DECODER_IN = "decoder.conv_in.weight"


def with_shape(name: str, *shape: int) -> dict[str, np.ndarray]:
    return {name: np.zeros(shape, np.float32)}


@pytest.mark.parametrize(
    ("kind", "sizes", "changed", "said"),
    [
        ("diffusion", {}, with_shape(HEAD, 1), "hidden size 256 and 256 heads"),
        ("diffusion", {}, with_shape(HEAD, 2, 64), "unexpected number of axes"),
        ("diffusion", {}, with_shape("img_in.weight", 256), "unexpected number of axes"),
        (
            "diffusion",
            {},
            with_shape("single_blocks.0.linear2.weight", 256, 1024),
            "single_blocks.0.linear2.weight: columns 256 to 1280 of 1024",
        ),
        ("t5xxl", {}, with_shape(T5_TABLE, 0, 4), r"\(0, 4\) needs 1 to 4 axes"),
        ("vae", {"channels": (8, 8, 8, 8)}, {}, r"channels \(8, 8, 8, 8\): needs"),
        ("vae", {"channels": (32,) * 5}, {}, "5 levels make 16 pixels of one, and 8 are needed"),
        ("vae", {"channels": (32,) * 4}, with_shape(DECODER_IN, 32, 16, 5), "none of its 236 tensors"),
    ],
)
def test_shapes_that_make_no_network_name_the_file(
    tiny_files: ModelFiles, tmp_path: Path, kind: str, sizes: dict[str, Any], changed: dict[str, np.ndarray], said: str
) -> None:
    odd = checkpoints.safetensors(tmp_path / "odd.safetensors", checkpoints.arrays(kind, **sizes) | changed, "F16")
    with pytest.raises(ModelFileError, match=said) as caught:
        Checked(with_file(tiny_files, kind, odd))
    assert str(caught.value).startswith(f"{odd}: ")


def test_an_autoencoder_of_another_family_does_not_fit(tiny_files: ModelFiles, tmp_path: Path) -> None:
    four = checkpoints.arrays("vae", channels=(32,) * 4, latent=4, sides=("decoder",))
    odd = checkpoints.safetensors(tmp_path / "sd.safetensors", four, "F16")
    with pytest.raises(ModelFileError, match=r"sd\.safetensors"):
        Checked(with_file(tiny_files, "vae", odd))


def test_weights_of_a_prompt_are_for_t5_alone(tiny_files: ModelFiles) -> None:
    checked = Checked(tiny_files)
    plain, weighted = checked.flux_tokens("a red cat", 32), checked.flux_tokens("a (red:1.5) cat", 32)
    np.testing.assert_array_equal(plain.clip.ids, weighted.clip.ids)
    assert set(plain.weights) == {1.0} and set(weighted.weights) == {1.0, 1.5}


def test_a_prompt_is_tokens_for_both_encoders(tiny_files: ModelFiles) -> None:
    checked = Checked(tiny_files)
    tokens = checked.flux_tokens("a cat", 32)
    assert tokens.clip.ids.shape == (77,) and tokens.t5.ids.shape == (32,) and not tokens.t5.cut
    assert checked.flux_tokens("", 32).t5.count == 0
    with pytest.raises(RequestError, match="not valid Unicode"):
        checked.flux_tokens("\udcff", 32)


def test_the_files_are_let_go_after_the_check(tiny_files: ModelFiles) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no /proc here")
    Checked(tiny_files)
    assert str(tiny_files.of("diffusion")[0]) not in maps.read_text()
