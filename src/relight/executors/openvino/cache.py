"""Compiled models on disk, by a key of all that they depend on. Holds so many bytes at most; the oldest go first."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("relight.executors.openvino")

LIMIT_BYTES = 2 << 30


def default_folder() -> Path:
    """Where the platform keeps what can be made again."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "relight" / "openvino"


@dataclass(frozen=True)
class ModelCache:
    """Never the cause of a failure: what cannot be read or written is made again, with a line in the log."""

    folder: Path
    limit_bytes: int = LIMIT_BYTES

    def find(self, key: str) -> Path | None:
        """The stored model, marked as just used, or None. Names end in the size: a part is not taken for it."""
        try:
            for path in self.folder.glob(f"{key}-*.blob"):
                if path.stem.rpartition("-")[2] == str(path.stat().st_size):
                    os.utime(path)
                    return path
                path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("compiled models in %s cannot be read: %s", self.folder, error)
        return None

    def store(self, key: str, blob: memoryview) -> None:
        """Blobs of more than half the limit are not kept, nor any that would take the last tenth of the disk."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            disk = shutil.disk_usage(self.folder)
            if blob.nbytes > self.limit_bytes // 2 or disk.free - blob.nbytes < disk.total // 10:
                log.debug("compiled model of %d bytes not kept in %s", blob.nbytes, self.folder)
                return
            self._evict(self.limit_bytes - blob.nbytes)
            with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
                file.write(blob)
            os.replace(file.name, self.folder / f"{key}-{blob.nbytes}.blob")
        except OSError as error:
            log.warning("compiled model not kept in %s: %s", self.folder, error)

    def discard(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed: %s", path, error)

    def _evict(self, allowed: int) -> None:
        held = sorted(self.folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in held:
            allowed -= path.stat().st_size
            if allowed < 0:
                path.unlink(missing_ok=True)
