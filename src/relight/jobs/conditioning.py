"""What text encoders gave for prompts, kept on disk: a prompt asked for again neither runs nor loads its encoders."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from relight.jobs.request import ModelFiles

log = logging.getLogger(__name__)

DEFAULT_BYTES = 1 << 30
"""Room for 250 prompts of FLUX.1, or 2,000 of Stable Diffusion."""
SUFFIX = ".npz"


class ConditioningCache:
    """Files named by the SHA-256 of everything that decides what they hold; the longest unused go first.

    A file that cannot be read is as one that is not there. Several processes may use one folder.
    """

    def __init__(self, folder: Path, most_bytes: int = DEFAULT_BYTES) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self._lock = threading.Lock()
        self.hits = self.misses = 0

    def get(self, keys: Sequence[str]) -> list[dict[str, np.ndarray]] | None:
        """All of them, or None where one is lacking."""
        found = [self._read(key) for key in keys]
        whole = [arrays for arrays in found if arrays is not None]
        hit = len(whole) == len(keys)
        with self._lock:
            self.hits, self.misses = self.hits + hit, self.misses + (not hit)
        return whole if hit else None

    def _read(self, key: str) -> dict[str, np.ndarray] | None:
        path = self.folder / (key + SUFFIX)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            os.utime(path)
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever a damaged zip makes of itself
            log.debug("%s: %s", path, error)
            return None
        return arrays

    def put(self, key: str, arrays: dict[str, np.ndarray]) -> None:
        """Whole or not at all; a full or read-only disk only means that nothing is kept."""
        path = self.folder / (key + SUFFIX)
        part = path.with_name(f".{key}-{secrets.token_hex(4)}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with part.open("xb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            os.replace(part, path)
            self._make_room()
        except OSError as error:
            log.debug("%s: %s", path, error)
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _make_room(self) -> None:
        with self._lock:
            files = [(stat.st_mtime, stat.st_size, path) for path, stat in self._files()]
            total = sum(size for _, size, _ in files)
            for _, size, path in sorted(files):
                if total <= self.most_bytes:
                    break
                with suppress(OSError):
                    path.unlink()
                    total -= size

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        found, old = [], time.time() - 3600
        for path in self.folder.iterdir():
            with suppress(OSError):
                stat = path.stat()
                if path.suffix == SUFFIX:
                    found.append((path, stat))
                elif path.suffix == ".part" and stat.st_mtime < old:
                    path.unlink()  # of a process that was ended
        return found


def key_of(*parts: Any) -> str:
    """For values of JSON's types."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def identity(paths: Sequence[Path]) -> list[list[Any]]:
    """Of files: their real paths, sizes and times of change."""
    return [[str(path.resolve()), stat.st_size, stat.st_mtime_ns] for path in paths for stat in [path.stat()]]


def encoder_identity(files: ModelFiles, encoder: str, loras: Sequence[tuple[Path, float]]) -> list[Any]:
    """Of an encoder with the LoRA set it has."""
    return [encoder, identity(files.of(encoder)), [[identity([path]), weight] for path, weight in loras]]


def cache_folder(environ: dict[str, str] | os._Environ[str] = os.environ) -> Path:
    """The platform's folder for what can be made again."""
    home = Path.home()
    if os.name == "nt":
        base = Path(environ.get("LOCALAPPDATA") or home / "AppData/Local")
    else:
        base = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "relight" / "conditioning"
