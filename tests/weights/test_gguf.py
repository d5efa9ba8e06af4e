"""The GGUF header reader: what it reads, and what it refuses."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter
from hostile import gguf, key, put, tensor, text

from relight.errors import ModelFileError
from relight.weights.container import open_container
from relight.weights.write import write_gguf


def test_reads_what_the_gguf_package_writes(tmp_path: Path) -> None:
    path = tmp_path / "w.gguf"
    writer = GGUFWriter(path, "flux")
    writer.add_uint32("flux.blocks", 19)
    writer.add_float32("flux.theta", 0.5)
    writer.add_bool("flux.guidance", True)
    writer.add_string("general.name", "Fluß")
    writer.add_array("tokenizer.ggml.tokens", ["▁a", "", "b"])
    writer.add_array("tokenizer.ggml.scores", [0.5, -1.5])
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    writer.add_tensor("a.weight", matrix)
    writer.add_tensor("a.bias", np.float16([1, 2]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    container = open_container(path)
    assert container.container == "GGUF v3"
    assert container.metadata["flux.blocks"] == 19
    assert container.metadata["flux.theta"] == 0.5
    assert container.metadata["flux.guidance"] is True
    assert container.metadata["general.name"] == "Fluß"
    assert list(container.metadata["tokenizer.ggml.tokens"]) == ["▁a", "", "b"]
    assert container.metadata["tokenizer.ggml.tokens"][1:] == ["", "b"]
    assert container.metadata["tokenizer.ggml.scores"].tolist() == [0.5, -1.5]
    weight = container.entries["a.weight"]
    assert (weight.shape, weight.format, weight.nbytes) == ((2, 3), "F32", 24)
    np.testing.assert_array_equal(container.bytes_of(weight).view("<f4").reshape(2, 3), matrix)
    assert container.bytes_of(container.entries["a.bias"]).view("<f2").tolist() == [1, 2]


def test_version_2_is_read(tmp_path: Path) -> None:
    container = open_container(put(tmp_path / "w.gguf", gguf([tensor()], version=2)))
    assert container.container == "GGUF v2"


def test_alignment_of_the_file_is_followed(tmp_path: Path) -> None:
    body = bytes(128) + struct.pack("<4f", 1, 2, 3, 4)
    keys = [key("general.alignment", 4, struct.pack("<I", 128))]
    container = open_container(put(tmp_path / "w.gguf", gguf([tensor(offset=128)], keys, body, alignment=128)))
    assert container.bytes_of(container.entries["t"]).view("<f4").tolist() == [1, 2, 3, 4]


def test_vocabulary_of_t5s_length_is_read_from_metadata(tmp_path: Path) -> None:
    pieces = [f"▁piece{i}" for i in range(32_100)]
    scores = np.linspace(0, -20, len(pieces), dtype=np.float32)
    metadata = {"tokenizer.ggml.tokens": pieces, "tokenizer.ggml.scores": scores}
    write_gguf(tmp_path / "t5.gguf", [], metadata)
    read = open_container(tmp_path / "t5.gguf").metadata
    assert list(read["tokenizer.ggml.tokens"]) == pieces
    np.testing.assert_array_equal(read["tokenizer.ggml.scores"], scores)


def array(kind: int, count: int, values: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + values


HEAD = b"GGUF" + struct.pack("<I", 3)
REFUSED = {
    "nothing after the magic": (b"GGUF", r"version needs 4 bytes, and 0 are left"),
    "version 1": (gguf([], version=1), "version 1"),
    "big endian": (gguf([], version=3 << 24), "big endian"),
    "counts cut off": (HEAD + bytes(12), "number of metadata keys needs 8 bytes, and 4 are left"),
    "2^40 tensors": (HEAD + struct.pack("<QQ", 2**40, 0), "1099511627776 tensors, and 65536"),
    "more tensors than bytes": (HEAD + struct.pack("<QQ", 60_000, 0) + bytes(99), "60000 tensors of 24 bytes or more"),
    "2^63 keys": (HEAD + struct.pack("<QQ", 0, 2**63), "9223372036854775808 metadata keys"),
    "more keys than bytes": (HEAD + struct.pack("<QQ", 0, 60_000), "60000 metadata keys"),
    "2^40 array entries": (gguf([], [key("k", 9, array(0, 2**40))]), "1099511627776 entries of k"),
    "more array entries than bytes": (gguf([], [key("k", 9, array(6, 2**25))]), "33554432 entries of k of 4 bytes"),
    "2^25 strings": (gguf([], [key("k", 9, array(8, 2**25))]), "33554432 entries of k, and 2097152"),
    "more strings than bytes": (gguf([], [key("k", 9, array(8, 2**20))]), "1048576 entries of k of 8 bytes"),
    "string of 2^60 bytes": (gguf([], [key("k", 8, struct.pack("<Q", 2**60))]), "1152921504606846976 bytes"),
    "string in an array past the end": (
        gguf([], [key("k", 9, array(8, 1, struct.pack("<Q", 500)))]),
        "states 500 bytes",
    ),
    "key of 2 KiB": (gguf([], [key("k" * 2048, 0, b"\0")]), "2048 bytes for metadata key, and 1024"),
    "array of arrays": (gguf([], [key("k", 9, array(9, 1, array(0, 0)))]), "array of arrays"),
    "unknown value type": (gguf([], [key("k", 13, bytes(8))]), "type 13"),
    "key twice": (gguf([], [key("k", 0, b"\0")] * 2), "'k' twice"),
    "name not UTF-8": (gguf([tensor(b"\xff\xfe")]), "not UTF-8"),
    "name with a line break": (gguf([tensor("a\nb")]), "control characters"),
    "5 dimensions": (gguf([tensor(sizes=(1,) * 5)]), "5 dimensions, and 4"),
    "2^31 dimensions": (gguf([text("t") + struct.pack("<I", 2**31)]), "2147483648 dimensions"),
    "dimension of 0": (gguf([tensor(sizes=(4, 0))]), "dimension of 0"),
    "dimension of 2^62": (gguf([tensor(sizes=(2**62,))]), "4611686018427387904"),
    "product past 2^64": (gguf([tensor(sizes=(2**33, 2**33))]), "cut short"),
    "part of a block": (gguf([tensor(sizes=(100,), kind=12)]), "blocks of 256"),
    "Q4_0_4_4": (gguf([tensor(sizes=(32,), kind=31)]), "Q4_0_4_4 .type 31."),
    "Q4_2": (gguf([tensor(sizes=(32,), kind=4)]), "Q4_2"),
    "unknown type": (gguf([tensor(kind=99)]), "type 99"),
    "tensor twice": (gguf([tensor(), tensor(offset=32)]), "'t' twice"),
    "offset not aligned": (gguf([tensor(offset=4)]), "starts at 4.*alignment 32"),
    "offset past the end": (gguf([tensor(offset=2**62)]), "cut short"),
    "tensor past the end": (gguf([tensor(sizes=(17,))]), r"4 missing"),
    "tensors overlap": (gguf([tensor("a", (9,)), tensor("b", (4,), offset=32)]), "'a' and 'b' share"),
    "alignment 0": (gguf([tensor()], [key("general.alignment", 4, bytes(4))]), "alignment of 0"),
    "alignment 48": (gguf([tensor()], [key("general.alignment", 4, struct.pack("<I", 48))]), "alignment of 48"),
    "alignment a string": (gguf([tensor()], [key("general.alignment", 8, text("32"))]), "alignment of '32'"),
    "alignment of 2^31": (gguf([tensor()], [key("general.alignment", 4, struct.pack("<I", 2**31))]), "2147483648"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_broken_header_is_refused_with_file_and_numbers(case: str, tmp_path: Path) -> None:
    content, message = REFUSED[case]
    with pytest.raises(ModelFileError, match=message) as error:
        open_container(put(tmp_path / "broken.gguf", content))
    assert "broken.gguf" in str(error.value)
    assert "\n" not in str(error.value)


def test_truncated_file_names_the_missing_bytes(tmp_path: Path) -> None:
    whole = gguf([tensor(sizes=(16,))], body=bytes(64))
    with pytest.raises(ModelFileError, match=r"\(10 missing\).*did not finish"):
        open_container(put(tmp_path / "w.gguf", whole[:-10]))
