"""The example files: each is right, reads back, and its plan fits the machine it is for within its own budgets."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

import full_size
from relight.configuration.engine import backend, engine_settings, tile
from relight.configuration.load import Loaded, load
from relight.configuration.show import effective
from relight.jobs import models
from relight.jobs.budgets import Within
from relight.jobs.request import GenerateRequest
from relight.models.tiling import tile_candidates
from relight.planner.estimate import NoTimings
from relight.planner.language import read_language_model
from relight.planner.machine import Cpu, Machine, of_profile
from relight.planner.networks import Networks
from relight.planner.plan import Ask, Plan, Planning
from relight.planner.profiles import PROFILES
from relight.planner.together import Held, share
from relight.store.recipes import set_names
from tiny_flux import TOKENIZER

GIB = 1 << 30
XEON = Cpu("Xeon E5", cores=8, available=28 * GIB, total=32 * GIB)
EXAMPLES = Path(__file__).parent.parent.parent / "examples"
RECIPE = Path(__file__).parent / "recipe.yaml"
CARDS = {
    "rx580-flux-and-chat": "rx580-8g",
    "rx470-4g-sd15": "rx470-4g",
    "wsl2-cpu": None,
    "batch-cpu": None,
}


@pytest.fixture(scope="module")
def full_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of full size whose weights are holes, by the names of their sets."""
    folder = tmp_path_factory.mktemp("models")
    full_size.flux(folder / "flux-schnell-q4")
    (folder / "flux-schnell-q4/tokenizer.json").write_bytes(lzma.decompress(TOKENIZER.read_bytes()))
    full_size.stable_diffusion(folder / "sd15/sd15.safetensors")
    full_size.language_model(folder / "qwen-8b.gguf")
    return folder


def plan_of(loaded: Loaded, card: str | None, model: Path) -> Plan:
    settings = loaded.settings
    machine = Machine(XEON, of_profile(PROFILES[card], settings.engine.max_vram) if card else None)
    width, height = settings.runtime.resolution or (None, None)
    request = GenerateRequest(
        prompt="",
        seed=0,
        width=width,
        height=height,
        steps=settings.runtime.denoise_steps,
        cfg_scale=settings.runtime.cfg_scale,
        sampler=settings.picture.sampler,
        schedule=settings.picture.schedule,
        tile=tile(settings),
    )
    return Planning(machine, Ask(backend=backend(settings)), lambda networks: NoTimings()).plan(str(model), request)


def test_there_is_a_file_for_each_machine() -> None:
    assert {file.stem for file in EXAMPLES.glob("*.yaml")} == set(CARDS)


@pytest.mark.parametrize("file", [*sorted(EXAMPLES.glob("*.yaml")), RECIPE], ids=lambda file: file.stem)
def test_it_reads_back_as_it_was(file: Path, tmp_path: Path) -> None:
    first = load(file, environ={})
    again = tmp_path / "again.yaml"
    again.write_text(effective(first))
    assert load(again, environ={}).settings == first.settings


@pytest.mark.parametrize("name", CARDS)
def test_its_models_can_be_pulled(name: str) -> None:
    settings = load(EXAMPLES / f"{name}.yaml", environ={}).settings
    named = {settings.models.model, settings.language_model.model} - {None}
    assert named and named <= set(set_names())


@pytest.mark.parametrize("name", CARDS)
def test_its_plan_fits_the_machine_and_its_own_budgets(name: str, full_models: Path) -> None:
    loaded = load(EXAMPLES / f"{name}.yaml", environ={})
    plan = plan_of(loaded, CARDS[name], full_models / str(loaded.settings.models.model))
    assert plan.fits and plan.outcome.placement.notes == ()
    assert (plan.machine.gpu is not None) == (CARDS[name] is not None)
    for budget in engine_settings(loaded).budgets:
        taken = [c.part.use.total for c in plan.components if budget.covers(c.part.name, c.part.device)]
        assert 0 < sum(taken) <= budget.nbytes, budget.said


def test_pictures_and_the_language_model_share_the_rx_580(full_models: Path) -> None:
    loaded = load(EXAMPLES / "rx580-flux-and-chat.yaml", environ={})
    plan = plan_of(loaded, "rx580-8g", full_models / "flux-schnell-q4")
    peak = max(stage.peak["vulkan0"] for stage in plan.stages)
    held = Held(plan.model, peak, plan.gpu_weights(), plan.outcome.course.total.value)
    language = read_language_model(full_models / "qwen-8b.gguf")
    together = share(plan.machine, [held], language, loaded.settings.language_model.ctx)
    assert together is not None and together.language is not None
    assert together.language.layers >= len(language.layers) and not together.resident


def test_the_published_recipe_fits_an_rx_580_within_its_budgets(full_models: Path, tmp_path: Path) -> None:
    """With the autoencoder in F16, as the recipe says that it is."""
    vae = tmp_path / "ae.safetensors"
    full_size.safetensors(vae, full_size.vae_shapes(full_size.FLUX["full"].vae_channels), "F16")
    loaded = load(RECIPE, environ={})
    settings = engine_settings(loaded)
    plan = plan_of(loaded, "rx580-8g", full_models / "flux-schnell-q4")
    placement = plan.outcome.placement
    sizes = {"latent_height": 128, "latent_width": 128, "text_tokens": 256, "levels": 4}
    files = models.model_files(str(full_models / "flux-schnell-q4"), {"vae": vae})
    with Networks(files) as networks:
        within = Within(
            settings.budgets,
            lambda name, device, more: networks.measure(
                name, "openvino" if (name, device) == ("vae", "cpu") else device, sizes | dict(more), settings.options
            ),
        )
        for name, device in placement.device.items():
            if device == "vulkan0":
                within(name, device, {"tile": 16, "batch": 1})
        found = within.on_cpu(placement, tile_candidates(128, 128), ())
    assert found.device == {
        "clip_l": "vulkan0",
        "t5xxl": "cpu",
        "modulation": "cpu",
        "diffusion": "vulkan0",
        "vae": "ggml-cpu",
    }
    assert found.tile < 32
