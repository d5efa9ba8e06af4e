"""A weights file in memory: mapped read-only, recognised by its first bytes, never by its name."""

from __future__ import annotations

import mmap
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from relight.errors import ModelFileError
from relight.weights.formats import nbytes

MAX_TENSORS = 65_536
MAX_NAME_BYTES = 1024
MAX_DIMENSION = 2**40

DAMAGED = "the file is damaged or not a real model: download it again"
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
CONVERT = (
    "relight reads .safetensors and .gguf only, because loading a pickle runs whatever code is in it: take the "
    ".safetensors version, which the hub has of nearly every model, or convert it yourself, in a sandbox unless you "
    'trust it: python -c "import torch, safetensors.torch; '
    "d = torch.load('IN', map_location='cpu', weights_only=True); d = d.get('state_dict', d.get('params_ema', d)); "
    "safetensors.torch.save_file({k: v.clone().contiguous() for k, v in d.items() if torch.is_tensor(v)}, "
    "'OUT.safetensors')\""
)


@dataclass(frozen=True)
class Entry:
    """A tensor as the header states it, checked against the file: shape in torch order, offset from its beginning."""

    name: str
    shape: tuple[int, ...]
    format: str
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Header:
    """What a reader found: `container` is `GGUF v3` or `safetensors`."""

    container: str
    entries: dict[str, Entry]
    metadata: dict[str, Any]


@dataclass
class MappedFile:
    """The bytes of a regular file, mapped. Raises ModelFileError when it cannot be opened, read or is empty."""

    path: Path
    size: int = field(init=False)
    map: mmap.mmap = field(init=False)

    def __post_init__(self) -> None:
        try:
            # O_NONBLOCK: a fifo given as a model must not hang the open.
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise ModelFileError(f"{self.path}: cannot be opened: {error.strerror}") from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ModelFileError(f"{self.path}: is not a regular file")
            if status.st_size == 0:
                raise ModelFileError(f"{self.path}: is empty (0 bytes); download it again")
            self.size = status.st_size
            self.map = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ModelFileError(f"{self.path}: cannot be mapped: {error}") from error
        finally:
            os.close(descriptor)

    def view(self, offset: int, count: int) -> np.ndarray:
        """`count` bytes of the file as a read-only uint8 array; nothing is copied."""
        return np.frombuffer(self.map, np.uint8, count, offset)

    def fail(self, what: str, way_out: str = DAMAGED) -> NoReturn:
        raise ModelFileError(f"{self.path}: {what}; {way_out}")

    def close(self) -> None:
        """Unmap, or leave that to the last array that still looks into the map."""
        try:
            self.map.close()
        except BufferError:
            pass


def entry(file: MappedFile, name: str, shape: tuple[int, ...], format_name: str, offset: int) -> Entry:
    """The entry of one tensor, its size being what format and shape ask for; dimensions are checked here."""
    if any(not 0 <= size <= MAX_DIMENSION for size in shape):
        file.fail(f"tensor {name!r} states a shape of {list(shape)}, and a dimension may be at most {MAX_DIMENSION}")
    try:
        return Entry(name, shape, format_name, offset, nbytes(format_name, shape))
    except ModelFileError as error:
        raise ModelFileError(f"{file.path}: tensor {name!r}: {error}; {DAMAGED}") from error


def check_layout(file: MappedFile, entries: dict[str, Entry]) -> None:
    """Every tensor ends within the file and none shares bytes with another."""
    end, before = 0, ""
    for item in sorted(entries.values(), key=lambda e: (e.offset, e.nbytes)):
        if item.offset + item.nbytes > file.size:
            missing = item.offset + item.nbytes - file.size
            file.fail(
                f"is cut short: tensor {item.name!r} lies at bytes {item.offset} to {item.offset + item.nbytes}, "
                f"and the file has {file.size} ({missing} missing)",
                "the download did not finish, get it again",
            )
        if item.nbytes and item.offset < end:
            file.fail(f"tensors {before!r} and {item.name!r} share the bytes {item.offset} to {end}")
        end, before = max(end, item.offset + item.nbytes), item.name


def refuse_other_content(file: MappedFile) -> NoReturn:
    """Say what a file is that is neither GGUF nor safetensors. Raises ModelFileError always."""
    start = bytes(file.map[:512])
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"version https://git-lfs"):
        file.fail(
            f"is a Git LFS pointer of {file.size} bytes, not the weights", "run `git lfs pull`, or download the file"
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        file.fail("is a web page, not weights", "the download needs a login or the link is wrong: download it again")
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        file.fail("is a PyTorch pickle", CONVERT)
    if start[:4] in (b"lmgg", b"tjgg", b"fmgg", b"algg", b"ggml", b"ggjt", b"ggmf"):
        file.fail("is in a format from before GGUF", "take a .gguf made after August 2023")
    if file.path.suffix.lower() in PICKLES:
        file.fail(f"has the ending of a pickle, {file.path.suffix}", CONVERT)
    if start[:1] in (b"{", b"["):
        file.fail("is a JSON text, not weights", "give the .safetensors or .gguf file")
    file.fail(
        f"is neither safetensors nor GGUF (it begins with {start[:8].hex(' ')})", "give a .safetensors or .gguf file"
    )
