"""Which files make up a named set (recipes.toml), and single files given as hf:OWNER/REPO/FILE[@REVISION]."""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePosixPath
from typing import Any

from relight.errors import RequestError
from relight.weights.recognise import KINDS

GIB = 1 << 30
HUB_FILE = re.compile(
    r"hf:(?P<repository>[\w.-]{1,96}/[\w.-]{1,96})/(?P<path>[^@\\:*?\"<>|]{1,500})(@(?P<revision>[\w./-]{1,200}))?"
)
ROLES = (*KINDS, "tokenizer", "model")


@dataclass(frozen=True)
class RemoteFile:
    """A file on the hub. `size` is 0 and `sha256` None where nothing is published about them."""

    role: str
    repository: str
    path: str
    revision: str = "main"
    size: int = 0
    sha256: str | None = None
    licence: str = ""

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class Recipe:
    """A set to be fetched; `vram_gib` and `ram_gib` are what a card and a machine should have.

    `is_set` is False for a single file given by its address.
    """

    name: str
    title: str
    files: tuple[RemoteFile, ...]
    vram_gib: float = 0
    ram_gib: float = 0
    is_set: bool = True

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def licences(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(file.licence for file in self.files if file.licence))


@functools.cache
def _table() -> dict[str, Any]:
    return tomllib.loads(resources.files("relight.store").joinpath("recipes.toml").read_text())


def set_names() -> tuple[str, ...]:
    return tuple(_table()["sets"])


def t5_variants() -> tuple[str, ...]:
    return tuple(_table()["t5"])


def t5_for(ram_bytes: int) -> str:
    """The largest T5 variant a machine with this much memory has room for beside everything else."""
    variants = _table()["t5"]
    return str(next(name for name, variant in variants.items() if ram_bytes >= variant["ram"] * GIB * 0.95))


def named_set(name: str, t5: str) -> Recipe:
    """The recipe with its T5 in the variant `t5`. Raises RequestError with near names for an unknown one."""
    table = _table()
    if name not in table["sets"]:
        near = difflib.get_close_matches(name, table["sets"], 1, 0.5)
        guess = f"; did you mean {near[0]}?" if near else ""
        known = ", ".join(table["sets"])
        raise RequestError(f"{name} is no set relight knows ({known}){guess} Any file: hf:OWNER/REPO/FILE")
    found = table["sets"][name]
    keys = (table["t5"][t5]["file"] if key == "t5xxl" else key for key in found["files"])
    files = tuple(RemoteFile(**table["files"][key]) for key in keys)
    return Recipe(name, found["title"], files, found["vram"], found["ram"])


def has_t5(name: str) -> bool:
    return "t5xxl" in _table()["sets"].get(name, {}).get("files", ())


def hub_file(text: str) -> Recipe:
    """A set of one file from hf:OWNER/REPO/FILE[@REVISION], named after it. Raises RequestError for another form."""
    match = HUB_FILE.fullmatch(text)
    parts = PurePosixPath(match["path"]).parts if match else ()
    if match is None or not parts or ".." in parts or parts[0] == "/" or ".." in match["repository"].split("/"):
        raise RequestError(f"{text}: give hf:OWNER/REPO/FILE or hf:OWNER/REPO/FILE@REVISION")
    file = RemoteFile("model", match["repository"], match["path"], match["revision"] or "main")
    return Recipe(PurePosixPath(file.path).stem.lower(), f"{file.name} of {file.repository}", (file,), is_set=False)
