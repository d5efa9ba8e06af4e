"""Which files belong together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import checkpoints as made
from relight.errors import ModelFileError
from relight.weights.shards import weight_files

TENSORS = {f"t{i}": np.zeros(2, np.float32) for i in range(6)}


def test_index_folder_and_any_shard_give_all_shards_in_order(tmp_path: Path) -> None:
    index = made.sharded(tmp_path, TENSORS, shards=3)
    expected = tuple(sorted(tmp_path.glob("*.safetensors")))
    assert len(expected) == 3
    assert weight_files(index) == weight_files(tmp_path) == weight_files(expected[1]) == expected


def test_missing_shards_are_named(tmp_path: Path) -> None:
    index = made.sharded(tmp_path, TENSORS, shards=3)
    second = tmp_path / "diffusion_pytorch_model-00002-of-00003.safetensors"
    second.unlink()
    for given in (index, tmp_path / "diffusion_pytorch_model-00001-of-00003.safetensors"):
        with pytest.raises(ModelFileError, match=rf"3 shards, and 1 are not there \({second.name}\)"):
            weight_files(given)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a\\b.safetensors", "model.bin", "", 7, None])
def test_index_may_name_only_weights_beside_it(name: object, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelFileError, match="names the shard"):
        weight_files(index)


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"weight_map": 3}', "[" * 100_000, '{"weight_map": {"a": []}}'])
def test_broken_index_is_refused(content: str, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(content)
    with pytest.raises(ModelFileError, match="not an index of shards"):
        weight_files(index)


@pytest.mark.parametrize("name", ["x-00004-of-00003.safetensors", "x-00000-of-00003.gguf", "x-00001-of-99999.gguf"])
def test_impossible_shard_number_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ModelFileError, match="is shard"):
        weight_files(tmp_path / name)


def test_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    made.safetensors(tmp_path / "ae.safetensors", TENSORS)
    with pytest.raises(ModelFileError, match=r"vae\.safetensors: no such file; beside it are ae\.safetensors"):
        weight_files(tmp_path / "vae.safetensors")


def test_plain_name_goes_before_a_variant(tmp_path: Path) -> None:
    for name in ("model.fp16.safetensors", "model.safetensors"):
        made.safetensors(tmp_path / name, TENSORS)
    assert weight_files(tmp_path) == (tmp_path / "model.safetensors",)


def test_folder_of_several_models_must_be_narrowed(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.gguf"):
        made.safetensors(tmp_path / name, TENSORS)
    with pytest.raises(ModelFileError, match=r"2 weights files in this folder \(a\.safetensors, b\.gguf\); name one"):
        weight_files(tmp_path)


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"no \.safetensors or \.gguf file in this folder"):
        weight_files(tmp_path)


def test_no_file_at_all_is_refused() -> None:
    with pytest.raises(ModelFileError, match="no weights file"):
        weight_files([])
