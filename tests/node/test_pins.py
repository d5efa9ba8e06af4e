"""Models that stay: which may, what they take together, and what is refused for their sake."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm.tiny_model import write_model
from relight.errors import ConfigError, RequestError
from relight.gateway.node import ImageAsk
from relight.jobs.engine import EngineSettings
from relight.jobs.request import ModelFiles
from relight.ledger import Ledger
from relight.llm.asks import LoadSettings
from relight.node import pins
from relight.node.announced import announced
from relight.node.card import Card
from relight.node.node import KIND, NAME, RelightNode
from relight.node.pins import Pins, fitting, pinned
from relight.node.registry import EMBEDDED, Registry
from relight.node.shelf import PipelineShelf
from relight.node.talk import Talk
from relight.planner.language import read_language_model

pytestmark = pytest.mark.timeout(120)
CPU = EngineSettings(backend="cpu", threads=1)


@pytest.fixture
def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RELIGHT_MODELS", str(tmp_path / "models"))
    return write_model(tmp_path / "tiny.gguf")


@pytest.fixture
def registry(chat: Path, tiny_files: ModelFiles) -> Registry:
    return Registry({"other": tiny_files}, chat={"tiny": chat, "second": chat})


def test_they_are_found_by_name_or_by_the_name_of_their_file(registry: Registry, chat: Path) -> None:
    assert pinned([EMBEDDED, str(chat)], registry) == Pins(EMBEDDED, "tiny")
    assert pinned([], registry) == Pins()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["nothing"], f"server.pinned: no model nothing; there are other, {EMBEDDED}, second, tiny"),
        ([EMBEDDED, "other"], "are both for pictures, and one of them is open at a time"),
        (["tiny", "second"], "are both for conversations"),
    ],
)
def test_what_cannot_stay_is_refused(registry: Registry, names: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        pinned(names, registry)


def test_together_they_must_fit_on_the_card(registry: Registry, chat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins, "planned", lambda *of: None)
    monkeypatch.setattr(pins, "card_bytes", lambda plan: 1000)
    language = LoadSettings(n_gpu_layers=2, context=256, slots=1)
    words = read_language_model(chat).on_gpu(2, 256)
    both = Pins(EMBEDDED, "tiny")
    assert fitting(both, registry, CPU, language, Card(1000 + words)) == Pins(EMBEDDED, "tiny", 1000)
    with pytest.raises(ConfigError, match=r"relight-emoji .* and tiny .* with 2 layers do not fit"):
        fitting(both, registry, CPU, language, Card(999 + words))
    assert fitting(both, registry, CPU, language, None) == both


@pytest.fixture
def node(tmp_path: Path, registry: Registry) -> Iterator[RelightNode]:
    language = LoadSettings(n_gpu_layers=0, context=256, slots=1, threads=1)
    with Ledger(tmp_path / "jobs") as ledger:
        made = RelightNode(ledger, registry, CPU, language, card=Card(10**10), pins=Pins(EMBEDDED, "tiny", 500))
        yield made
        made.shelf.leave(wholly=True)
        made.talk.close()


def test_they_are_loaded_and_idleness_and_others_leave_them_there(node: RelightNode) -> None:
    assert node.card is not None and node.card.held()[KIND] == 500
    pins.bring(node.pins, node.shelf, node.talk, node.registry)
    assert (node.shelf.model, node.talk.model) == (EMBEDDED, "tiny")
    assert node.shelf._open is not None and node.shelf._open.fleet.where("diffusion")
    assert node.card.leave_if_idle(0) == [] and node.card.room(NAME) == 10**10 - 500
    assert (node.shelf.model, node.talk.model) == (EMBEDDED, "tiny")


def test_a_request_that_would_send_one_away_is_refused(node: RelightNode) -> None:
    ask = ImageAsk(request={"prompt": "a cat", "width": 64, "height": 64})
    with pytest.raises(RequestError, match=f"other would send {EMBEDDED} away, which is to stay"):
        asyncio.run(node.submit_image("other", ask, owner="me", key=None, join=False))
    assert asyncio.run(node.submit_image(EMBEDDED, ask, owner="me", key=None, join=False)).state == "queued"
    asks: Any = type("Ask", (), {"model": "second", "inputs": (), "dimensions": None})()
    with pytest.raises(RequestError, match="second would send tiny away"):
        asyncio.run(node.embed(asks))


def test_a_server_says_what_will_be_where(registry: Registry) -> None:
    shelf, talk = PipelineShelf(registry.files, CPU), Talk(LoadSettings(n_gpu_layers=0, context=256, slots=2), None)
    said = list(announced(registry, shelf.settings, Pins(EMBEDDED), talk, None))
    assert said[0].startswith(f"{EMBEDDED} at 128x128, ")
    assert "s a picture" in said[0] and "an hour of a queue" in said[0]
    assert any(line.startswith("  ggml-cpu: ") and "diffusion" in line for line in said)
    assert "tiny: on the CPU, 2 conversations of 256 tokens" in said
