"""Traces of other ways to compute on the card, and of advice that does not help: read from files and variables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from relight.doctor.facts.system import System

ROCM_VARIABLES = (
    "HSA_OVERRIDE_GFX_VERSION",
    "ROC_ENABLE_PRE_VEGA",
    "HIP_VISIBLE_DEVICES",
    "PYTORCH_ROCM_ARCH",
    "HSA_ENABLE_SDMA",
)
SETTING_FOLDERS = ("/etc/udev/rules.d", "/etc/systemd/system", "/etc/cron.d", "/etc/modprobe.d")
SETTING_FILES = ("/etc/rc.local", "/etc/default/grub")
DIRECTML_PLACES = ("venv/Lib/site-packages", ".venv/Lib/site-packages", "python_embeded/Lib/site-packages")


@dataclass(frozen=True)
class Trace:
    """`what` was found `where`: a variable with its value, a file, a folder."""

    what: str
    where: str


def rocm(system: System) -> Iterator[Trace]:
    environ = system.environ
    yield from (Trace("variable", f"{name}={environ[name]}") for name in ROCM_VARIABLES if environ.get(name))
    versions = [name for name in system.names("/opt") if re.fullmatch(r"rocm(-[\d.]+)?", name)]
    yield from (Trace("installation", f"/opt/{name}") for name in versions)


def zluda(system: System, folders: Sequence[str]) -> Iterator[Trace]:
    environ = system.environ
    for name in ("LD_LIBRARY_PATH", "PATH"):
        parts = re.split(";" if system.is_windows else ":", environ.get(name, ""))
        yield from (Trace("variable", f"{name} with {part}") for part in parts if "zluda" in part.lower())
    for folder in folders:
        yield from (
            Trace("folder", f"{folder}/{name}") for name in (".zluda", "zluda") if system.exists(f"{folder}/{name}")
        )


def directml(system: System, folders: Sequence[str]) -> Iterator[Trace]:
    for folder in folders:
        for place in (*DIRECTML_PLACES, *_python_folders(system, folder)):
            if system.exists(f"{folder}/{place}/torch_directml"):
                yield Trace("package", f"{folder}/{place}/torch_directml")


def _python_folders(system: System, folder: str) -> Iterator[str]:
    for environment in ("venv", ".venv"):
        for name in system.names(f"{folder}/{environment}/lib"):
            yield f"{environment}/lib/{name}/site-packages"


def queue_settings(system: System) -> Iterator[Trace]:
    """Files in which `nvme set-feature` or another scheduler for NVMe is made permanent."""
    inside = [f"{folder}/{name}" for folder in SETTING_FOLDERS for name in system.names(folder)]
    for path in (*inside, *SETTING_FILES):
        for line in (system.text(path) or "").splitlines():
            words = line.partition("#")[0]
            if re.search(r"nvme\s+set-feature\b.*(-f|--feature-id)[ =]*(0x0?7|7)\b", words):
                yield Trace("nvme set-feature", path)
            elif "nvme" in words and re.search(r"scheduler.*(mq-deadline|bfq|kyber)", words):
                yield Trace("scheduler", path)
