"""The file that is written for a machine: what is chosen there, and that it is right."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

import full_size
from relight.configuration.fitted import fitted
from relight.configuration.load import Loaded, load
from relight.planner.machine import Cpu, Machine, of_profile
from relight.planner.profiles import PROFILES
from relight.store.manifest import KeptFile, Manifest
from relight.store.places import Places
from tiny_flux import TOKENIZER

GIB = 1 << 30
ROLES = {
    "flux1-schnell-Q4_K.gguf": "diffusion",
    "clip_l.safetensors": "clip_l",
    "t5xxl.safetensors": "t5xxl",
    "ae.safetensors": "vae",
    "tokenizer.json": "tokenizer",
}


def machine(card: str | None, ram_gib: int = 32) -> Machine:
    cpu = Cpu("Xeon E5", cores=8, available=(ram_gib - 4) * GIB, total=ram_gib * GIB)
    return Machine(cpu, of_profile(PROFILES[card]) if card else None)


def written(made: Machine, places: Places, folder: Path) -> Loaded:
    file = folder / "relight.yaml"
    file.write_text(fitted(made, places).text())
    return load(file, environ={})


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.setenv("RELIGHT_MODELS", str(tmp_path / "models"))
    return Places.of()


@pytest.fixture
def pulled(places: Places) -> Places:
    folder = full_size.flux(places.directory / "hub/owner/repo")
    (folder / "tokenizer.json").write_bytes(lzma.decompress(TOKENIZER.read_bytes()))
    files = tuple(
        KeptFile(role, "owner/repo", name, "main", (folder / name).stat().st_size, "0" * 64)
        for name, role in ROLES.items()
    )
    Manifest("flux-schnell-q4", "FLUX.1 schnell", (), files).write(places)
    return places


@pytest.mark.parametrize(
    ("card", "ram_gib", "model", "type_"),
    [
        ("rx580-8g", 32, "flux-schnell-q4", "ggml-vulkan"),
        ("rx470-4g", 16, "sd15", "ggml-vulkan"),
        ("rx580-8g", 4, "sd15", "ggml-vulkan"),
        (None, 16, "sd15", "cpu"),
    ],
)
def test_the_best_set_with_room_is_proposed(
    places: Places, tmp_path: Path, card: str | None, ram_gib: int, model: str, type_: str
) -> None:
    loaded = written(machine(card, ram_gib), places, tmp_path)
    assert loaded.settings.models.model == model
    assert loaded.settings.backend.type == type_
    assert loaded.settings.backend.device_index == (0 if card else None)
    assert f"relight pull {model}" in (tmp_path / "relight.yaml").read_text()


def test_components_of_a_set_that_is_here_go_where_the_planner_sends_them(pulled: Places, tmp_path: Path) -> None:
    loaded = written(machine("rx580-8g"), pulled, tmp_path)
    routing = loaded.settings.model_routing
    targets = [part.target for part in (routing.diffusion, routing.text_encoder, routing.context_encoder)]
    assert targets == ["gpu", "gpu", "cpu"] and routing.decoder.target == "gpu"
    assert loaded.settings.runtime.resolution == (1024, 1024)
    assert routing.decoder.tiling == 72
    text = (tmp_path / "relight.yaml").read_text()
    assert "planned: t5xxl takes 8.94 GiB" in text
    assert "Written for Xeon E5, 8 cores, 32.00 GiB of memory;" in text


def test_without_a_card_nothing_is_sent_to_one(pulled: Places, tmp_path: Path) -> None:
    loaded = written(machine(None), pulled, tmp_path)
    assert loaded.settings.backend.type == "cpu"
    assert {place for place in loaded.origins if place.endswith(".target")} == set()
