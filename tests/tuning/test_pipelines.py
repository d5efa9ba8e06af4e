"""Which variables say where a driver keeps its pipelines."""

from __future__ import annotations

from pathlib import Path

import pytest

from relight.tuning import pipelines
from relight.tuning.identity import Identity, engine

HOME = {"XDG_CACHE_HOME": ""}


@pytest.mark.parametrize(
    ("driver", "variable", "others"),
    [
        (3, "MESA_SHADER_CACHE_DIR", ("__GL_SHADER_DISK_CACHE_PATH", "AMD_SHADER_DISK_CACHE_PATH")),
        (13, "MESA_SHADER_CACHE_DIR", ("AMD_VK_PIPELINE_CACHE_PATH",)),
        (4, "__GL_SHADER_DISK_CACHE_PATH", ("MESA_SHADER_CACHE_DIR",)),
        (2, "AMD_SHADER_DISK_CACHE_PATH", ("MESA_SHADER_CACHE_DIR",)),
    ],
)
def test_each_driver_has_variables_of_its_own(driver: int, variable: str, others: tuple[str, ...]) -> None:
    found = pipelines.variables(Path("kept"), driver)
    assert found[variable] == "kept" and not set(others) & set(found)
    assert "VK_PIPELINE_CACHE_DIR" not in found


def test_an_unknown_driver_gets_all_of_them() -> None:
    found = pipelines.variables(Path("kept"))
    assert {"MESA_SHADER_CACHE_DIR", "__GL_SHADER_DISK_CACHE_PATH", "AMD_SHADER_DISK_CACHE_PATH"} <= set(found)
    assert found["__GL_SHADER_DISK_CACHE_SKIP_CLEANUP"] == "1"


def test_the_folder_is_there_when_a_driver_looks_for_it(tmp_path: Path) -> None:
    found = pipelines.environment({"XDG_CACHE_HOME": str(tmp_path)}, "linux")
    assert Path(found["MESA_SHADER_CACHE_DIR"]).is_dir()
    (tmp_path / "file").write_text("")
    assert pipelines.environment({"XDG_CACHE_HOME": str(tmp_path / "file")}, "linux") == {}
    (tmp_path / "relight/pipelines/one").write_bytes(bytes(10))
    assert pipelines.size(tmp_path / "relight/pipelines") == 10


def test_names_of_tables_tell_drivers_apart_and_are_names_of_files() -> None:
    first, second = (Identity("GPU / one: (R)", driver, "engine") for driver in ("1", "2"))
    assert first.name != second.name and first.name.startswith("gpu---one") and "/" not in first.name


def test_an_engine_of_ones_own_is_told_by_when_it_was_built(tmp_path: Path) -> None:
    (tmp_path / "libggml-base.so").write_text("")
    assert engine({}) != engine({"RELIGHT_GGML_DIR": str(tmp_path)})
    assert "cyllama-vulkan" in engine({}) and "openvino" in engine({})
