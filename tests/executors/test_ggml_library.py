"""Libraries that are not the ones relight was written for are refused in words, before a device is touched."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from executors_present import EXECUTORS
from relight.errors import EngineMismatch
from relight.executors.ggml import library
from relight.executors.ggml.devices import list_devices, parse_features
from relight.executors.ggml.library import Library, bundled_directory, load, named_directory

OPEN_A_DEVICE = "from relight.executors.ggml import GgmlExecutor; GgmlExecutor()"


@pytest.fixture
def bundled() -> Path:
    EXECUTORS["ggml-cpu"]()
    return bundled_directory()


def test_a_named_folder_without_the_libraries_is_refused(tmp_path: Path) -> None:
    """In a process of its own, since the libraries are loaded once."""
    source = Path(library.__file__).parents[3]
    environ = os.environ | {"RELIGHT_GGML_DIR": str(tmp_path), "PYTHONPATH": str(source)}
    ended = subprocess.run(
        [sys.executable, "-c", OPEN_A_DEVICE], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        f"relight.errors.EngineMismatch: no library ggml-base in {tmp_path}; "
        "name a directory of ggml 0.27 with RELIGHT_GGML_DIR"
    )


def test_a_folder_is_named_by_the_environment() -> None:
    assert named_directory({"RELIGHT_GGML_DIR": "/opt/ggml"}) == Path("/opt/ggml")
    assert named_directory({"RELIGHT_GGML_DIR": ""}) is None
    assert named_directory({}) is None


@pytest.mark.parametrize(
    "name",
    ["libggml-base-0a1b2c3d.so.0.27.0", "libggml-base.so", "libggml-base.so.0", "ggml-base.dll", "libggml-base.dylib"],
)
def test_a_library_is_found_under_its_usual_names(tmp_path: Path, name: str) -> None:
    for other in (name, "libggml.so", "libggml-cpu.so", "libggml-base.so.txt", "libggml-base-debug.so"):
        (tmp_path / other).touch()
    assert library._find(tmp_path, "ggml-base") == tmp_path / name


def test_another_version_is_refused_with_both(bundled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "VERSION", "0.99")
    with pytest.raises(EngineMismatch, match=r"is version 0\.27\.\d+; relight needs 0\.99\.x.*RELIGHT_GGML_DIR"):
        Library(bundled)


def test_another_layout_of_tensors_is_refused(bundled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lib = load()
    monkeypatch.setattr(library, "F32", 1)  # the check then sees an F16 tensor: other strides than it expects
    with pytest.raises(EngineMismatch, match=r"lays out its tensors in another way: \(1, \[7, 5, 3, 2\], \[2, 14"):
        lib._check_layout()


def test_a_processor_without_avx2_is_told_what_to_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """ggml's code would end the process with an illegal instruction."""
    features = np._core._multiarray_umath.__cpu_features__
    monkeypatch.setitem(features, "AVX2", False)
    monkeypatch.setitem(features, "F16C", False)
    with pytest.raises(EngineMismatch, match=r"no AVX2, F16C, .* Build ggml 0\.27 .* RELIGHT_GGML_DIR"):
        library._check_processor()


def test_this_processor_has_the_features_by_their_names_in_numpy() -> None:
    assert library.CPU_FEATURES.keys() <= np._core._multiarray_umath.__cpu_features__.keys()


def test_a_file_that_is_no_library_is_named(tmp_path: Path) -> None:
    fake = tmp_path / "libggml-base.so"
    fake.write_text("not a library")
    with pytest.raises(EngineMismatch, match=r"^libggml-base\.so cannot be loaded: "):
        Library(tmp_path)


def test_a_missing_openmp_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def dlopen(path: str) -> None:
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(library, "ffi", SimpleNamespace(dlopen=dlopen))
    with pytest.raises(EngineMismatch, match=r"libgomp\.so\.1: cannot open .* apt install libgomp1"):
        library._open(tmp_path / "libggml-base.so")


def test_the_log_is_kept_to_a_length(bundled: Path) -> None:
    lib = load()
    assert isinstance(lib.lines, deque)
    assert lib.lines.maxlen == 400
    assert lib.version.startswith("0.27.")


LINE = "ggml_vulkan: 0 = AMD Radeon RX 580 (RADV POLARIS10) | uma: 0 | fp16: 0 | warp size: 64 | matrix cores: none"


def test_features_are_read_from_the_device_line() -> None:
    assert parse_features(LINE) == {"uma": "0", "fp16": "0", "warp size": "64", "matrix cores": "none"}
    assert parse_features("") == {}
    assert parse_features("ggml_vulkan: 0 = a | odd | uma: 1") == {"odd": "", "uma": "1"}


def test_the_line_of_a_device_is_found_by_its_number() -> None:
    lib = SimpleNamespace(lines=["ggml_vulkan: Found 11 devices", LINE.replace(" 0 =", " 10 ="), LINE])
    assert Library.device_line(lib, 0) == LINE  # type: ignore[arg-type]
    assert Library.device_line(lib, 1) is None  # type: ignore[arg-type]


def test_devices_bear_the_names_users_type(bundled: Path) -> None:
    devices = list_devices()
    assert devices[-1].name == "ggml-cpu"
    assert all(device.name == f"vulkan{i}" for i, device in enumerate(devices[:-1]))
    for device in devices:
        free, total = device.memory()
        assert 0 < free <= total
        assert device.alignment > 0
        assert device.max_buffer_bytes > 1 << 20


def test_lavapipe_is_known_for_software_and_for_its_features() -> None:
    EXECUTORS["vulkan0"]()
    vulkan = list_devices()[0]
    assert vulkan.is_vulkan
    assert vulkan.is_software == ("llvmpipe" in vulkan.description)
    assert vulkan.features["fp16"] == "0"  # GGML_VK_DISABLE_F16
    assert vulkan.features.keys() >= {"uma", "warp size", "shared memory"}
