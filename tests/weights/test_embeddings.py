"""Textual inversion files: which encoder the vectors are for, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hostile import put, safetensors

from relight.errors import ModelFileError
from relight.weights.embeddings import find_embeddings, load_embedding


def values(*shape: int) -> np.ndarray:
    return np.random.RandomState(sum(shape)).standard_normal(shape).astype(np.float32)


def write(path: Path, **arrays: np.ndarray) -> Path:
    header, body = {}, b""
    for name, array in arrays.items():
        dtype = {"float32": "F32", "float16": "F16", "int64": "I64"}[array.dtype.name]
        span = [len(body), len(body) + array.nbytes]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": span}
        body += array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    return put(path, safetensors(header, body))


@pytest.mark.parametrize(("width", "kind"), [(768, "clip_l"), (1024, "clip_h"), (1280, "clip_g")])
@pytest.mark.parametrize("name", ["emb_params", "<concept>", "*"])
def test_the_width_says_which_encoder_the_vectors_are_for(tmp_path: Path, width: int, kind: str, name: str) -> None:
    rows = values(3, width)
    loaded = load_embedding(write(tmp_path / "x.safetensors", **{name: rows}))
    assert loaded.keys() == {kind} and np.array_equal(loaded[kind], rows)


def test_sdxls_has_vectors_for_both_encoders(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", clip_g=values(2, 1280).astype(np.float16), clip_l=values(2, 768))
    loaded = load_embedding(path)
    assert {kind: (rows.shape, rows.dtype) for kind, rows in loaded.items()} == {
        "clip_g": ((2, 1280), np.float32),
        "clip_l": ((2, 768), np.float32),
    }


def test_one_vector_may_lack_its_axis(tmp_path: Path) -> None:
    assert load_embedding(write(tmp_path / "x.safetensors", word=values(768)))["clip_l"].shape == (1, 768)


BAD = values(2, 768)
BAD[1, 5] = np.nan


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"emb_params": values(3, 512)}, r"'emb_params' of shape \[3, 512\] is no textual inversion.*768 \(clip_l\)"),
        ({"emb_params": values(76, 768)}, r"shape \[76, 768\] is no textual inversion; one has 1 to 75 vectors"),
        ({"a": values(1, 2, 768)}, r"shape \[1, 2, 768\] is no textual inversion"),
        ({"a": values(0, 768)}, r"shape \[0, 768\] is no textual inversion"),
        ({"a": np.float32(1).reshape(())}, r"shape \[\] is no textual inversion"),
        ({"a": values(1, 768), "b": values(1, 768)}, "has two tensors for clip_l; take a file with one"),
        ({"clip_l": values(1, 768), "clip_g": values(2, 1280)}, r"numbers of vectors \(1 for clip_l, 2 for clip_g\)"),
        ({"a": BAD}, "'a' has 1 values that are not numbers"),
        ({"a": np.zeros((1, 768), np.int64)}, "'a' has the format I64; take a copy in F32"),
        ({}, r"numbers of vectors \(none\)"),
    ],
)
def test_what_is_no_embedding_is_refused_with_the_numbers(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    path = write(tmp_path / "x.safetensors", **arrays)
    with pytest.raises(ModelFileError, match=message) as caught:
        load_embedding(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["x.pt", "x.BIN"])
def test_pickles_are_refused_with_the_way_to_convert(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelFileError, match=r"is a PyTorch pickle; .*string_to_param.*s\.save_file"):
        load_embedding(put(tmp_path / name, b"PK\x03\x04" + bytes(60)))


def test_embeddings_are_called_by_the_names_of_their_files(tmp_path: Path) -> None:
    for name in ("b.safetensors", "deep/b.safetensors", "deep/a b.SAFETENSORS", "c.pt", "deep/c.safetensors", "d.bin"):
        put_in(tmp_path / name)
    for name in ("b.png", "notes.txt", "deep/more.gguf"):
        put_in(tmp_path / name)
    assert find_embeddings(tmp_path) == {
        "b": tmp_path / "b.safetensors",
        "a b": tmp_path / "deep/a b.SAFETENSORS",
        "c": tmp_path / "deep/c.safetensors",
        "d": tmp_path / "d.bin",
    }
    assert find_embeddings(tmp_path / "absent") == {}


def put_in(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
