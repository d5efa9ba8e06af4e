"""Which card a node shares, by the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relight.configuration.engine import engine_settings
from relight.configuration.load import load
from relight.node.health import Health
from relight.node.opened import gpu_of
from relight.planner.machine import HEADROOM_BYTES

GIB = 1 << 30
EXAMPLES = Path(__file__).parents[2] / "examples"


class Seen(Health):
    """A machine with two cards."""

    def __init__(self) -> None:
        super().__init__(engine_settings(load(environ={}, folder=Path("/"))), None)

    def devices(self) -> list[dict[str, Any]]:
        cards = [
            {"name": name, "type": "gpu", "memory_free": free, "memory_total": 8 * GIB}
            for name, free in (("vulkan0", 7 * GIB), ("vulkan1", 6 * GIB))
        ]
        return [*cards, {"name": "ggml-cpu", "type": "cpu", "memory_free": 0, "memory_total": 0}]


def shared(file: Path) -> tuple[str | None, int]:
    return gpu_of(Seen(), engine_settings(load(file, environ={})))


@pytest.mark.parametrize("name", ["rx580-flux-and-chat.yaml", "rx470-4g-sd15.yaml"])
def test_the_examples_for_cards_share_the_card(name: str) -> None:
    assert shared(EXAMPLES / name)[0] == "vulkan0"


@pytest.mark.parametrize("name", ["batch-cpu.yaml", "wsl2-cpu.yaml"])
def test_the_examples_for_processors_leave_the_card_alone(name: str) -> None:
    assert shared(EXAMPLES / name) == (None, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("vulkan0", 7 * GIB - HEADROOM_BYTES)),
        ("engine: {backend: vae=cpu}", ("vulkan0", 7 * GIB - HEADROOM_BYTES)),
        ("model_routing: {diffusion: {target: gpu}, decoder: {target: cpu}}", ("vulkan0", 7 * GIB - HEADROOM_BYTES)),
        ("backend: {device_index: 1}", ("vulkan1", 6 * GIB - HEADROOM_BYTES)),
        ("engine: {backend: cpu}", (None, 0)),
        ("engine: {max_vram: 3GB}", ("vulkan0", 3 * GIB)),
        ("runtime: {offload_threshold: 0.5}", ("vulkan0", 4 * GIB)),
    ],
)
def test_the_card_and_its_bytes_are_those_of_the_settings(
    tmp_path: Path, text: str, expected: tuple[str | None, int]
) -> None:
    file = tmp_path / "relight.yaml"
    file.write_text(text)
    assert shared(file) == expected
