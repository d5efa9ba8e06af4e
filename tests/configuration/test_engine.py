"""What the recipe's sections mean to the engine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relight.configuration.engine import backend, engine_settings, environment, into, tile
from relight.configuration.load import Loaded, load
from relight.planner.backends import parse

GIB = 1 << 30
RECIPE = Path(__file__).parent / "recipe.yaml"


def loaded(text: str, folder: Path) -> Loaded:
    (folder / "relight.yaml").write_text(text)
    return load(environ={}, folder=folder)


def targets(text: str, folder: Path) -> dict[str, str]:
    return {name: device for name, device in parse(backend(loaded(text, folder).settings)).items() if device != "auto"}


def test_the_recipe_is_read_as_it_stands() -> None:
    found = load(RECIPE, environ={})
    routing = found.settings.model_routing
    assert routing.diffusion.path == Path("/models/flux1-schnell-q4_k.gguf")
    assert (routing.diffusion.quantization, routing.context_encoder.quantization) == ("q4_k", "f16")
    assert routing.text_encoder.vram_budget == 235 << 20
    assert found.settings.runtime.resolution == (1024, 1024)
    assert found.settings.backend.compute_shaders == "precompiled"
    assert [note.split()[1] for note in found.notes] == ["runtime.io_scheduler", "runtime.nvme_queue_depth"]


def test_the_recipe_runs_where_it_says() -> None:
    settings = engine_settings(load(RECIPE, environ={}))
    where = parse(settings.backend)
    assert (where["diffusion"], where["clip_l"], where["t5xxl"], where["vae"]) == ("vulkan0", "vulkan0", "cpu", "cpu")
    assert (where["vae_encoder"], where["modulation"]) == ("cpu", "auto")
    assert settings.gpu == "vulkan0" and settings.max_vram_share == 0.85 and settings.max_vram_bytes is None
    assert settings.largest_tile == 64
    assert {(budget.components[0], budget.on_gpu): budget.nbytes for budget in settings.budgets} == {
        ("diffusion", True): int(6.5 * GIB),
        ("clip_l", True): 235 << 20,
        ("t5xxl", False): round(9.3 * GIB),
        ("vae", False): 160 << 20,
    }
    assert settings.budgets[0].said.endswith("recipe.yaml:12: model_routing.diffusion.vram_budget")


def test_nothing_said_leaves_everything_open(tmp_path: Path) -> None:
    assert backend(loaded("", tmp_path).settings) is None
    settings = engine_settings(loaded("", tmp_path))
    assert settings.gpu is None and settings.budgets == () and settings.largest_tile is None


def test_a_gpu_without_a_number_is_the_one_there_is(tmp_path: Path) -> None:
    text = "model_routing:\n  diffusion: {target: gpu}\n  decoder: {target: gpu}\n"
    assert targets(text, tmp_path) == {"diffusion": "gpu", "vae": "gpu", "vae_encoder": "gpu"}


def test_a_backbone_on_the_cpu_takes_its_modulation_along(tmp_path: Path) -> None:
    found = targets("model_routing:\n  diffusion: {target: cpu}\n", tmp_path)
    assert found == {"diffusion": "cpu", "modulation": "cpu"}


def test_a_budget_alone_says_where_a_component_goes(tmp_path: Path) -> None:
    text = "model_routing:\n  text_encoder: {vram_budget: 1GB}\n  context_encoder: {ram_budget: 9GB}\n"
    assert targets(text, tmp_path) == {"clip_l": "gpu", "clip_g": "gpu", "clip_h": "gpu", "t5xxl": "cpu"}


def test_the_cpu_takes_everything(tmp_path: Path) -> None:
    assert set(targets("backend: {type: cpu}\n", tmp_path).values()) == {"cpu"}


def test_engine_backend_goes_over_the_targets(tmp_path: Path) -> None:
    text = "model_routing:\n  decoder: {target: gpu}\nengine: {backend: 'vae=openvino,modulation=gpu'}\n"
    found = targets(text, tmp_path)
    assert (found["vae"], found["vae_encoder"], found["modulation"]) == ("openvino", "openvino", "gpu")


@pytest.mark.parametrize(
    ("tiling", "pixels", "largest"), [("auto", None, None), ("true", None, 64), ("false", 512, None), ("48", 48, None)]
)
def test_tiling_becomes_a_tile_or_a_largest_one(
    tmp_path: Path, tiling: str, pixels: int | None, largest: int | None
) -> None:
    found = loaded(f"model_routing:\n  decoder: {{tiling: {tiling}}}\n", tmp_path)
    assert tile(found.settings) == pixels
    assert engine_settings(found).largest_tile == largest


def test_the_smaller_of_threshold_and_max_vram_counts(tmp_path: Path) -> None:
    text = "runtime: {offload_threshold: 7GB}\nengine: {max_vram: 6GB}\n"
    assert engine_settings(loaded(text, tmp_path)).max_vram_bytes == 6 * GIB


def test_engine_settings_are_passed_on(tmp_path: Path) -> None:
    text = (
        "engine: {threads: 3, attention: chunked, convolution: im2col, precision: bf16, profile: rx470-4g, "
        "checks: false, prompt_cache: false}\n"
    )
    found = engine_settings(loaded(text, tmp_path))
    assert (found.threads, found.check_results, found.conditioning_folder) == (3, False, None)
    assert (found.options.attention, found.options.convolution, found.options.precision) == (
        "chunked",
        "im2col",
        "bf16",
    )
    assert found.profile is not None and found.profile.name == "rx470-4g"


def test_the_folder_of_pipelines_is_what_drivers_read(tmp_path: Path) -> None:
    found = environment(loaded("backend: {pipeline_cache: cache}\n", tmp_path).settings)
    folder = str(tmp_path / "cache")
    assert {name for name, value in found.items() if value == folder} == {
        "MESA_SHADER_CACHE_DIR",
        "__GL_SHADER_DISK_CACHE_PATH",
        "AMD_VK_PIPELINE_CACHE_PATH",
        "AMD_SHADER_DISK_CACHE_PATH",
    }
    assert "VK_PIPELINE_CACHE_DIR" not in found


def test_folders_and_profile_reach_those_who_read_the_environment(tmp_path: Path) -> None:
    text = "models: {directory: m, folders: [a, /b]}\nengine: {profile: rx580-8g}\n"
    assert environment(loaded(text, tmp_path).settings) == {
        "RELIGHT_MODELS": str(tmp_path / "m"),
        "RELIGHT_MODEL_PATHS": os.pathsep.join([str(tmp_path / "a"), "/b"]),
        "RELIGHT_PRETEND": "rx580-8g",
    }


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    environ = {"MESA_SHADER_CACHE_DIR": "/mine"}
    into(environ, loaded("backend: {pipeline_cache: cache}\n", tmp_path).settings)
    assert environ["MESA_SHADER_CACHE_DIR"] == "/mine"
    assert environ["AMD_VK_PIPELINE_CACHE_PATH"] == str(tmp_path / "cache")
    assert (tmp_path / "cache").is_dir()
