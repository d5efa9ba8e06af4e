"""Finds and loads ggml's shared libraries, checks that relight was written for them, and keeps their log."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import re
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from relight.errors import EngineMismatch
from relight.executors.ggml.api import F32, ffi, text

log = logging.getLogger("relight.executors.ggml")

VERSION = "0.27"
CPU_FEATURES = {"AVX2": "AVX2", "FMA3": "FMA", "F16C": "F16C"}
DIRECTORY_VARIABLE = "RELIGHT_GGML_DIR"


class Library:
    """The loaded libraries. `base` and `registry` hold the C functions; `lines` the last lines of ggml's log."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lines: deque[str] = deque(maxlen=400)
        self.base: Any = _open(_find(directory, "ggml-base"))
        self.registry: Any = _open(_find(directory, "ggml"))
        version = text(self.base.ggml_version())
        if version.rsplit(".", 1)[0] != VERSION:
            raise EngineMismatch(
                f"ggml in {directory} is version {version}; relight needs {VERSION}.x. "
                f"Unset {DIRECTORY_VARIABLE} to use the one installed with relight, or build that version"
            )
        self.version = version
        self._log_callback = ffi.callback("void(int, const char *, void *)", self._on_log)
        self.base.ggml_log_set(self._log_callback, ffi.NULL)
        self._check_layout()
        _check_processor()
        self._load_backend("ggml-cpu", required=True)
        self._load_backend("ggml-vulkan", required=False)

    def _on_log(self, level: int, message: Any, user: Any) -> None:
        line = text(message).rstrip("\n")
        if line:
            self.lines.append(line)
            log.log(logging.WARNING if level == 4 else logging.DEBUG, "%s", line)

    def _check_layout(self) -> None:
        """The prefix of `struct ggml_tensor` must be where it is declared, whatever follows it."""
        ctx = self.base.ggml_init((4 * self.base.ggml_tensor_overhead(), ffi.NULL, True))
        tensor = self.base.ggml_new_tensor_4d(ctx, F32, 7, 5, 3, 2)
        seen = (tensor.type, list(tensor.ne), list(tensor.nb), tensor.op, tensor.data, tensor.view_src)
        self.base.ggml_free(ctx)
        if seen != (F32, [7, 5, 3, 2], [4, 28, 140, 420], 0, ffi.NULL, ffi.NULL):
            raise EngineMismatch(
                f"ggml {self.version} in {self.directory} lays out its tensors in another way: {seen[:4]}"
            )

    def _load_backend(self, name: str, *, required: bool) -> None:
        try:
            path = _find(self.directory, name)
        except EngineMismatch:
            if required:
                raise
            return
        if self.registry.ggml_backend_load(str(path).encode()) == ffi.NULL and required:
            raise EngineMismatch(f"{path.name} cannot be loaded: {self.lines[-1] if self.lines else 'no reason given'}")

    def device_line(self, index: int) -> str | None:
        """What ggml logged of Vulkan device `index`: its features and limits as ggml sees them."""
        return next((line for line in self.lines if re.match(rf"ggml_vulkan: {index} = ", line)), None)


@functools.cache
def load(directory: Path | None = None) -> Library:
    """The libraries of `directory`, of $RELIGHT_GGML_DIR, or of the installed cyllama-vulkan; loaded once.

    Raises EngineMismatch where they are missing, of another version, or made for another processor.
    """
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # else each abort runs a debugger on this process for seconds
    return Library(directory or named_directory(os.environ) or bundled_directory())


def named_directory(environ: Mapping[str, str]) -> Path | None:
    named = environ.get(DIRECTORY_VARIABLE)
    return Path(named) if named else None


def bundled_directory() -> Path:
    spec = importlib.util.find_spec("cyllama")
    if spec is None or not spec.submodule_search_locations:
        raise EngineMismatch("cyllama-vulkan, which carries ggml's libraries, is not installed: run ./relight setup")
    return Path(spec.submodule_search_locations[0]).parent / "cyllama_vulkan.libs"


def _find(directory: Path, name: str) -> Path:
    """`libggml-base-<hash>.so.0.27.0`, `libggml-base.so`, `ggml-base.dll`: the same library under its usual names."""
    pattern = re.compile(rf"(lib)?{name}(-[0-9a-f]{{8,}})?\.(so|dll|dylib)(\.[0-9.]+)?")
    found = sorted(p for p in directory.glob("*ggml*") if pattern.fullmatch(p.name)) if directory.is_dir() else []
    if not found:
        raise EngineMismatch(
            f"no library {name} in {directory}; name a directory of ggml {VERSION} with {DIRECTORY_VARIABLE}"
        )
    return found[0]


def _open(path: Path) -> Any:
    try:
        return ffi.dlopen(str(path))
    except OSError as error:
        hint = ""
        if "libgomp" in str(error):
            hint = "; install OpenMP's library (Debian, Ubuntu: apt install libgomp1)"
        elif sys.platform == "win32":
            hint = "; install the Microsoft Visual C++ redistributable"
        raise EngineMismatch(f"{path.name} cannot be loaded: {error}{hint}") from error


def _check_processor() -> None:
    """ggml's prebuilt CPU code ends the process on a processor without AVX2, FMA and F16C; say so before."""
    features = np._core._multiarray_umath.__cpu_features__  # type: ignore[attr-defined]
    missing = [label for key, label in CPU_FEATURES.items() if not features.get(key, False)]
    if missing:
        raise EngineMismatch(
            f"this processor has no {', '.join(missing)}, which the ggml libraries were built for. "
            f"Build ggml {VERSION} for it (cmake -DGGML_NATIVE=ON -DGGML_VULKAN=ON) and set {DIRECTORY_VARIABLE}"
        )
