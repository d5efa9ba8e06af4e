"""Where drivers keep the pipelines they built, so that a process does not build them again.

Each driver reads variables of its own; VK_PIPELINE_CACHE_DIR is read by none. A variable the user has set stays.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

MESA_DRIVERS = (3, 6, 12, 13, 18, 20, 22, 23, 24)
"""VkDriverId of Mesa's: RADV, ANV, Turnip, lavapipe, V3DV, Venus, dzn, NVK ..."""
NVIDIA, ADRENALIN, AMDVLK = 4, 1, 2
MESA_SIZE = "4G"
FOLDER = "pipelines"


def cache_home(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Where the platform keeps what can be made again, for relight."""
    if platform == "win32":
        base = Path(environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "relight"


def variables(folder: Path, driver: int | None = None) -> dict[str, str]:
    """For a driver by its VkDriverId; for all of them where it is not known yet, since each reads its own alone."""
    place = str(folder)
    mesa = {"MESA_SHADER_CACHE_DIR": place, "MESA_SHADER_CACHE_MAX_SIZE": MESA_SIZE}
    nvidia = {
        "__GL_SHADER_DISK_CACHE": "1",
        "__GL_SHADER_DISK_CACHE_PATH": place,
        "__GL_SHADER_DISK_CACHE_SKIP_CLEANUP": "1",
    }
    amd = {"AMD_SHADER_DISK_CACHE_PATH": place, "AMD_VK_PIPELINE_CACHE_PATH": place}
    if driver in MESA_DRIVERS:
        return mesa
    if driver == NVIDIA:
        return nvidia
    if driver in (ADRENALIN, AMDVLK):
        return amd
    return mesa | nvidia | amd


def environment(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> dict[str, str]:
    """Of a worker, where the user has not set it; the folder is made, since NVIDIA's driver does not."""
    folder = cache_home(environ, platform) / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return {}  # a home that cannot be written keeps the driver's own way
    return variables(folder)


def size(folder: Path) -> int:
    """Bytes of what is kept there."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
