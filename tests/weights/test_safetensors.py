"""The safetensors header reader: what it reads, and what it refuses."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hostile import put, safetensors

from relight.errors import ModelFileError
from relight.weights.container import open_container
from relight.weights.mapped import MAX_TENSORS
from relight.weights.safetensors import MAX_METADATA_BYTES


def stated(dtype: str = "F32", shape: object = (1,), span: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": span}


def test_tensors_and_metadata_are_read(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt", "title": 'a "quoted" \\ {name}, ü'},
        "b": stated("F16", [2, 1], [4, 8]),
        "a": stated("F32", [], [0, 4]),
        "none": stated("BF16", [0, 7], [8, 8]),
    }
    container = open_container(put(tmp_path / "w", safetensors(header, struct.pack("<f2e", 1.5, 2, 3))))
    assert container.container == "safetensors"
    assert container.metadata == header["__metadata__"]
    assert container.entries["a"].shape == ()
    assert container.bytes_of(container.entries["a"]).view("<f4").tolist() == [1.5]
    assert container.bytes_of(container.entries["b"]).view("<f2").tolist() == [2, 3]
    assert container.entries["none"].nbytes == 0


def test_white_space_and_any_order_of_fields_are_read(tmp_path: Path) -> None:
    header = b' \n{ "a" :\t{"data_offsets":[ 0,4 ],\n"shape":[1], "dtype":"F32"} , "__metadata__":{} }   '[2:]
    assert open_container(put(tmp_path / "w", safetensors(header, bytes(4)))).entries["a"].shape == (1,)


def test_long_metadata_is_stepped_over(tmp_path: Path) -> None:
    header = {"__metadata__": {"log": "x" * (MAX_METADATA_BYTES + 1), "format": "pt"}, "a": stated()}
    assert open_container(put(tmp_path / "w", safetensors(header, bytes(4)))).metadata == {"format": "pt"}


REFUSED = {
    "header of 2^63": (struct.pack("<Q", 2**63) + b"{}", "9223372036854775808 bytes, and 100000000"),
    "header past the end": (struct.pack("<Q", 500) + b"{}", "500 bytes, and 2 follow"),
    "header of 200 MB": (struct.pack("<Q", 200_000_000) + b"{}", "200000000"),
    "endless text": (safetensors(b'{"__metadata__":{"a":"' + b"a" * 100_000), "at byte 29"),
    "unclosed": (safetensors(b'{"a":{"dtype":"F32"'), "at byte 13"),
    "nested": (safetensors(b"{" + b'"a":{' * 20_000), "at byte"),
    "nested lists": (safetensors(b'{"a":{"dtype":"F32","shape":' + b"[" * 900 + b"}}"), "broken JSON"),
    "endless name": (safetensors(b'{"' + b"a" * 100_000), "no name of at most 1024 bytes at byte 9"),
    "name of 2 KiB": (safetensors({"n" * 2048: stated()}, bytes(4)), "no name of at most 1024 bytes at byte 9"),
    "name with a line break": (safetensors({"a\nb": stated()}, bytes(4)), "control characters"),
    "name half a character": (safetensors(b'{"\\ud800":{}}'), "control characters"),
    "list at the top": (safetensors(b"[1]"), "neither safetensors nor GGUF"),
    "text after the end": (safetensors(json.dumps({"a": stated()}).encode() + b"{}", bytes(4)), "goes on after"),
    "trailing comma": (safetensors(b'{"__metadata__":{},}'), "at byte"),
    "tensor twice": (safetensors(b'{"a":%b,"a":%b}' % ((json.dumps(stated()).encode(),) * 2), bytes(4)), "'a' twice"),
    "field twice": (safetensors(b'{"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}'), "instead of"),
    "field missing": (safetensors({"a": {"dtype": "F32", "shape": [1]}}), "instead of dtype"),
    "unknown dtype": (safetensors({"a": stated("F4")}, bytes(4)), "'F4'"),
    "dtype a number": (safetensors({"a": stated(7)}, bytes(4)), "'7'"),
    "negative size": (safetensors({"a": stated(shape=[-1])}, bytes(4)), "whole numbers"),
    "size a float": (safetensors({"a": stated(shape=[1.0])}, bytes(4)), "whole numbers"),
    "size true": (safetensors({"a": stated(shape=[True])}, bytes(4)), "whole numbers"),
    "size of 2^63": (safetensors({"a": stated(shape=[2**63])}, bytes(4)), "9223372036854775808"),
    "size of 4000 digits": (safetensors(b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b"]}}"), "at byte"),
    "9 dimensions": (safetensors({"a": stated(shape=[1] * 9)}, bytes(4)), "whole numbers"),
    "empty of huge shape": (safetensors({"a": stated(shape=[0, 2**50], span=[0, 0])}), "1125899906842624"),
    "shape and bytes disagree": (safetensors({"a": stated(shape=[2])}, bytes(4)), "4 bytes, and it takes 8"),
    "offsets backwards": (safetensors({"a": stated(span=[4, 0])}, bytes(4)), "-4 bytes, and it takes 4"),
    "one offset": (safetensors({"a": stated(span=[4])}, bytes(4)), "whole numbers"),
    "past the end": (safetensors({"a": stated(span=[96, 100])}, bytes(4)), "96 missing"),
    "overlap": (safetensors({"a": stated(), "b": stated()}, bytes(4)), "'a' and 'b' share"),
    "hole": (safetensors({"a": stated(span=[4, 8])}, bytes(8)), "4 bytes of tensors, and 8 follow"),
    "bytes left over": (safetensors({"a": stated()}, bytes(9)), "4 bytes of tensors, and 9 follow"),
    "metadata twice": (safetensors(b'{"__metadata__":{},"__metadata__":{}}'), "__metadata__ twice"),
    "metadata a list": (safetensors(b'{"__metadata__":[]}'), "at byte"),
    "metadata of numbers": (safetensors(b'{"__metadata__":{"a":1}}'), "at byte"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_broken_header_is_refused_with_file_and_numbers(case: str, tmp_path: Path) -> None:
    content, message = REFUSED[case]
    with pytest.raises(ModelFileError, match=message) as error:
        open_container(put(tmp_path / "broken.safetensors", content))
    assert "broken.safetensors" in str(error.value)
    assert "\n" not in str(error.value)


def test_truncated_file_names_the_missing_bytes(tmp_path: Path) -> None:
    whole = safetensors({"a": stated(shape=[100], span=[0, 400])}, bytes(400))
    with pytest.raises(ModelFileError, match=r"\(150 missing\).*did not finish"):
        open_container(put(tmp_path / "w.safetensors", whole[:-150]))


def test_too_many_tensors_are_refused(tmp_path: Path) -> None:
    empty = '":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = "{" + ",".join(f'"{i}{empty}' for i in range(MAX_TENSORS + 1)) + "}"
    with pytest.raises(ModelFileError, match="more than 65536 entries"):
        open_container(put(tmp_path / "w", safetensors(header.encode())))


def test_arrays_look_into_the_map_and_outlive_the_container(tmp_path: Path) -> None:
    container = open_container(put(tmp_path / "w", safetensors({"a": stated()}, struct.pack("<f", 2.5))))
    start = np.frombuffer(container.file.map, np.uint8).ctypes.data
    array = container.bytes_of(container.entries["a"])
    assert start <= array.ctypes.data < start + container.file.size
    assert not array.flags.writeable
    container.close()
    assert array.view("<f4").tolist() == [2.5]
