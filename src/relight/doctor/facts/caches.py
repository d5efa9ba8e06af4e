"""Where the drivers keep compiled pipelines, by their own variables and defaults."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from relight.doctor.facts.system import System

MOST_FILES = 50_000
FALSE = ("", "0", "false", "no", "n", "off")


@dataclass(frozen=True)
class PipelineCache:
    """`off`: the setting that switches it off. `folders` that are there, of those where `path` is the one written to.
    `variable` moves it elsewhere."""

    driver: str
    path: str
    variable: str
    bytes: int
    files: int
    writable: bool
    off: str | None
    max_bytes: int | None = None


def pipeline_cache(system: System, driver: str) -> PipelineCache | None:
    """Of a driver by the doctor's name for it; None for one whose cache is its own affair."""
    if driver in ("RADV", "Intel", "NVK", "lavapipe", "dzn", "virtual"):
        return _mesa(system, driver)
    if driver == "NVIDIA":
        return _nvidia(system)
    if driver in ("AMDVLK", "AMDGPU-PRO", "Adrenalin"):
        return _amd(system, driver)
    return None


def _mesa(system: System, driver: str) -> PipelineCache:
    environ = system.environ
    parent = environ.get("MESA_SHADER_CACHE_DIR") or environ.get("MESA_GLSL_CACHE_DIR") or _cache_home(system)
    names = ("mesa_shader_cache_db", "mesa_shader_cache_sf", "mesa_shader_cache")
    there = [f"{parent}/{name}" for name in names if system.exists(f"{parent}/{name}")]
    off = next((v for v in ("MESA_SHADER_CACHE_DISABLE", "MESA_GLSL_CACHE_DISABLE") if _true(environ.get(v))), None)
    if "nocache" in environ.get("RADV_DEBUG", "").split(","):
        off = "RADV_DEBUG"
    limit = environ.get("MESA_SHADER_CACHE_MAX_SIZE") or environ.get("MESA_GLSL_CACHE_MAX_SIZE")
    return _cache(system, driver, there or [parent], "MESA_SHADER_CACHE_DIR", off, counted=there, limit=_size(limit))


def _nvidia(system: System) -> PipelineCache:
    environ = system.environ
    if system.is_windows:
        default = [f"{environ.get('LOCALAPPDATA', system.home)}/NVIDIA/GLCache"]
    else:
        default = [f"{_cache_home(system)}/nvidia/GLCache", f"{system.home}/.nv/GLCache"]
    named = environ.get("__GL_SHADER_DISK_CACHE_PATH")
    paths = [named] if named else [path for path in default if system.exists(path)] or default[:1]
    stated = environ.get("__GL_SHADER_DISK_CACHE")
    off = "__GL_SHADER_DISK_CACHE" if stated is not None and not _true(stated) else None
    limit = environ.get("__GL_SHADER_DISK_CACHE_SIZE", "")
    return _cache(system, "NVIDIA", paths, "__GL_SHADER_DISK_CACHE_PATH", off, limit=_size(limit))


def _amd(system: System, driver: str) -> PipelineCache:
    environ = system.environ
    parent = environ.get("AMD_SHADER_DISK_CACHE_PATH") or environ.get("LOCALAPPDATA") or _cache_home(system)
    path = environ.get("AMD_VK_PIPELINE_CACHE_PATH") or f"{parent}/AMD/VkCache"
    return _cache(system, driver, [path], "AMD_VK_PIPELINE_CACHE_PATH", None)


def _cache(
    system: System,
    driver: str,
    paths: list[str],
    variable: str,
    off: str | None,
    *,
    counted: list[str] | None = None,
    limit: int | None = None,
) -> PipelineCache:
    sizes = [size for path in (paths if counted is None else counted) for size in _sizes(system, path)]
    return PipelineCache(driver, paths[0], variable, sum(sizes), len(sizes), _writable(system, paths[0]), off, limit)


def _sizes(system: System, path: str) -> Iterator[int]:
    for count, (folder, _, names) in enumerate(os.walk(system.path(path))):
        if count > MOST_FILES:
            return
        for name in names:
            try:
                yield os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue  # gone since it was listed


def _writable(system: System, path: str) -> bool:
    """Whether the folder may be written, or made where it is not there yet."""
    while not system.exists(path) and "/" in path.rstrip("/")[1:]:
        path = path.rsplit("/", 1)[0]
    return system.may(system.path(path), os.W_OK)


def _cache_home(system: System) -> str:
    return system.environ.get("XDG_CACHE_HOME") or f"{system.home}/.cache"


def _true(value: str | None) -> bool:
    return value is not None and value.strip().lower() not in FALSE


def _size(text: str | None) -> int | None:
    """`512M`, `1G`, or bytes as NVIDIA takes them. Mesa reads a bare number as gigabytes."""
    if not text:
        return None
    unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1].upper())
    number = text[:-1] if unit else text
    if not number.isdigit():
        return None
    return int(number) * (unit or (1 if int(number) > 1024 else 1 << 30))
