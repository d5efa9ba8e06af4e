"""Files that are no weights at all."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from hostile import put

from relight.errors import ModelFileError
from relight.weights.container import open_container

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 6803451936\n"
REFUSED = {
    "a Git LFS pointer": ("ae.safetensors", LFS, r"Git LFS pointer of 75 bytes.*git lfs pull"),
    "a web page": ("ae.safetensors", b"\n<!DOCTYPE html><html><body>401</body></html>", "web page.*login"),
    "a short web page": ("flux.gguf", b"<html>", "web page"),
    "an error in JSON": ("ae.safetensors", b'{"error":"Invalid username or password."}', "JSON text"),
    "an old pickle": ("vae.pt", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "pickle.*save_file"),
    "a pickle by its ending": ("vae.ckpt", b"something else", r"\.ckpt.*save_file"),
    "GGML before GGUF": ("llama.gguf", b"tjgg" + bytes(60), "before GGUF"),
    "random bytes": ("ae.safetensors", bytes(range(7, 60)), "begins with 07 08 09"),
    "one byte": ("ae.safetensors", b"{", "JSON"),
    "an empty file": ("ae.safetensors", b"", "empty"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_content_is_named(case: str, tmp_path: Path) -> None:
    name, content, message = REFUSED[case]
    with pytest.raises(ModelFileError, match=message) as error:
        open_container(put(tmp_path / name, content))
    assert name in str(error.value)


def test_torch_archive_is_refused_with_the_way_to_convert(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "diffusion_pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    with pytest.raises(ModelFileError, match="loading a pickle runs whatever code is in it.*torch.load"):
        open_container(tmp_path / "diffusion_pytorch_model.bin")


def test_renamed_gguf_is_read_all_the_same(tmp_path: Path) -> None:
    content = b"GGUF\x03\0\0\0" + bytes(16)
    assert open_container(put(tmp_path / "flux.safetensors", content)).container == "GGUF v3"


def test_fifo_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ae.safetensors")
    with pytest.raises(ModelFileError, match="not a regular file"):
        open_container(tmp_path / "ae.safetensors")


def test_file_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"ae\.safetensors: cannot be opened: No such file"):
        open_container(tmp_path / "ae.safetensors")


def test_device_is_refused() -> None:
    with pytest.raises(ModelFileError, match="not a regular file"):
        open_container(Path("/dev/zero"))
