"""What all tests share: a Vulkan device for ggml on every machine, and a word on the executors this one lacks."""

from __future__ import annotations

import ctypes
import os
from importlib.util import find_spec
from pathlib import Path

import pytest

import tiny_flux
from relight.jobs.request import ModelFiles

DRIVER_FOLDERS = [Path(folder, "vulkan/icd.d") for folder in ("/etc", "/usr/share", "/usr/local/share")]

# Read when ggml is loaded, so set before any test module is imported.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")
if any(next(folder.glob("lvp_icd*.json"), None) for folder in DRIVER_FOLDERS):
    # ggml passes over Vulkan devices of type CPU unless one is named: 0 is the GPU where there is one, else lavapipe.
    os.environ.setdefault("GGML_VK_VISIBLE_DEVICES", "0")
    os.environ.setdefault("GGML_VK_DISABLE_F16", "1")  # the shaders of the cards relight is for


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """A whole FLUX.1 of a few megabytes. Not to be changed: copy what is to be broken."""
    return tiny_flux.write(tmp_path_factory.mktemp("tiny_flux"))


def loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def absent_executors() -> dict[str, str]:
    """Executors that cannot run here, and why; their tests are skipped."""
    absent = {}
    if not loads("libgomp.so.1"):
        absent["ggml"] = "libgomp.so.1 is missing"
    elif not loads("libvulkan.so.1"):
        absent["vulkan"] = "libvulkan.so.1 is missing"
    elif not any(next(folder.glob("*.json"), None) for folder in DRIVER_FOLDERS):
        absent["vulkan"] = "no Vulkan driver is installed"
    if find_spec("openvino") is None:
        absent["openvino"] = "the package openvino is missing"
    return absent


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for executor, reason in absent_executors().items():
        terminalreporter.write_line(f"executor absent: {executor} ({reason})")
