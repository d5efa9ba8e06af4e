"""Models of full size whose weights are holes, and planning for cards that are not here."""

from __future__ import annotations

import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

import full_size
from relight.jobs.request import GenerateRequest
from relight.planner import machine
from relight.planner.estimate import NoTimings
from relight.planner.machine import Cpu, Machine
from relight.planner.plan import Ask, Plan, Planning
from relight.planner.profiles import find_profile
from tiny_flux import TOKENIZER

GIB = 1 << 30
XEON = Cpu("Xeon E5", cores=8, available=28 * GIB, total=32 * GIB)
"""AVX2, no bfloat16."""

PlanOf = Callable[..., Plan]


@pytest.fixture(scope="session")
def full_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLUX.1 in Q4_K and in Q2_K, both in one folder, SD 1.5, SDXL, a language model of 8 billion weights."""
    folder = tmp_path_factory.mktemp("models")
    full_size.flux(folder / "flux")
    full_size.flux(folder / "both")
    full_size.write_flux(folder / "both" / "flux1-schnell-Q2_K.gguf", "Q2_K")
    for name in ("flux", "both"):
        (folder / name / "tokenizer.json").write_bytes(lzma.decompress(TOKENIZER.read_bytes()))
    full_size.stable_diffusion(folder / "sd15.safetensors")
    full_size.stable_diffusion(folder / "sdxl.safetensors", "sdxl")
    full_size.language_model(folder / "llama-8b-Q4_K.gguf")
    return folder


@pytest.fixture
def plan_of(full_models: Path) -> PlanOf:
    def planned(
        model: str,
        card: str | None = "rx580-8g",
        *,
        side: int | None = None,
        cpu: Cpu = XEON,
        ask: Ask | None = None,
        **request: object,
    ) -> Plan:
        gpu = machine.of_profile(find_profile(card, card)) if card else None
        asked = GenerateRequest(prompt="", width=side, height=side, seed=0, **request)  # type: ignore[arg-type]
        return Planning(Machine(cpu, gpu), ask or Ask(), lambda networks: NoTimings()).plan(
            str(full_models / model), asked
        )

    return planned
