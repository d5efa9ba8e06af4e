"""What a measurement holds for: the device, its driver and the engine, by names that change when they do."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PROBE = (sys.executable, "-P", "-m", "relight.doctor.probe")
PROBE_DEADLINE_S = 20.0
PACKAGES = ("cyllama-vulkan", "openvino")
OWN_ENGINE = "RELIGHT_GGML_DIR"


@dataclass(frozen=True)
class Identity:
    """`device` as its driver calls it, or the processor with its cores; `driver` with its version, "" for the CPU."""

    device: str
    driver: str
    engine: str

    @property
    def name(self) -> str:
        """Of its table: the device in letters, and a number for all of it."""
        letters = "".join(c if c.isalnum() else "-" for c in self.device.lower())
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]
        return f"{letters.strip('-')[:40]}-{digest}"


def of_cpu(name: str, cores: int) -> Identity:
    return Identity(f"{name}, {cores} cores", "", engine(os.environ))


def of_gpu(description: str, variables: str = "") -> Identity:
    """`variables` are settings that change what the card can do, such as a pretended one's."""
    return Identity(description + (f" as {variables}" if variables else ""), driver(description), engine(os.environ))


def engine(environ: Mapping[str, str]) -> str:
    """Versions of the packages with the kernels; one's own build of ggml by when it was made."""
    versions = [f"{package} {version(package)}" for package in PACKAGES]
    if folder := environ.get(OWN_ENGINE):
        times = [path.stat().st_mtime_ns for path in sorted(Path(folder).glob("*ggml*"))]
        versions.append(f"{folder} {max(times, default=0)}")
    return ", ".join([*versions, platform.machine()])


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of no package"


def driver(description: str) -> str:
    """Name and version of the driver behind a device; "" where no driver says."""
    found = probed()
    same = [each for each in found if each.get("name") and each["name"] in description]
    chosen = same[0] if same else found[0] if found else {}
    return " ".join(str(chosen.get(key, "")) for key in ("driver_name", "driver_info")).strip()


@functools.cache
def probed() -> list[dict[str, Any]]:
    """What every Vulkan driver says of its devices, asked in a process of its own; nothing where that fails."""
    try:
        done = subprocess.run(PROBE, capture_output=True, timeout=PROBE_DEADLINE_S, check=True)
        devices: list[dict[str, Any]] = json.loads(done.stdout)["devices"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return []
    return devices
