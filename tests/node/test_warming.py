"""Warm-up while nobody asks for anything, and how it gives way."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from relight import demo
from relight.jobs import models
from relight.jobs.engine import EngineSettings
from relight.ledger import Ledger, NewJob
from relight.llm.asks import LoadSettings
from relight.node import warming
from relight.node.card import Card
from relight.node.node import RelightNode
from relight.node.registry import EMBEDDED, Registry
from relight.node.warming import NAME, Candidate, Warming, warm_command
from relight.tuning import tables
from relight.tuning.lacking import lacks

pytestmark = pytest.mark.timeout(120)
LONG = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
"""A warm-up that has a worker, and never ends by itself."""


class Other:
    busy = False

    def leave(self, *, wholly: bool = False) -> bool:
        return True


def candidate(script: str, commands: list[int | None] | None = None) -> Candidate:
    def command(nbytes: int | None) -> list[str]:
        if commands is not None:
            commands.append(nbytes)
        return [sys.executable, "-c", script]

    return Candidate("a model", command)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that were started."""
    found: list[subprocess.Popen[bytes]] = []
    begin = warming.begun

    def noted(command: list[str]) -> subprocess.Popen[bytes]:
        found.append(begin(command))
        return found[-1]

    monkeypatch.setattr(warming, "begun", noted)
    yield found
    for process in found:
        warming.end(process)
        process.wait()


def until(happens: object, deadline_s: float = 30.0) -> None:
    ends = time.monotonic() + deadline_s
    while not happens():  # type: ignore[operator]
        assert time.monotonic() < ends
        threading.Event().wait(0.01)


def started(script: str, card: Card | None = None, idle: bool = True, **more: float) -> Warming:
    made = Warming(lambda: [candidate(script)], lambda: idle, card, **{"after_s": 0.05} | more)
    made.start()
    return made


def test_a_request_ends_it_at_once_with_its_workers_and_it_goes_on_later(
    begun: list[subprocess.Popen[bytes]],
) -> None:
    made = started(f"{LONG} print('there'); time.sleep(600)")
    until(lambda: begun and psutil.Process(begun[0].pid).children())
    worker = psutil.Process(begun[0].pid).children()[0]
    assert made.model == "a model" and not made.busy
    asked = time.monotonic()
    made.came()
    assert begun[0].wait(5) != 0 and time.monotonic() - asked < 2
    psutil.wait_procs([worker], timeout=5)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    until(lambda: len(begun) == 2)
    assert not made.failed and not made.warmed
    made.stop()
    assert begun[1].poll() is not None and made.model is None


def test_on_the_card_it_is_a_tenant_that_leaves_for_anybody(begun: list[subprocess.Popen[bytes]]) -> None:
    card = Card(10**9)
    card.join("pictures", Other())
    card.join("stays", Other(), pinned=True)
    card.take("pictures", 3 * 10**8)
    card.take("stays", 10**8)
    commands: list[int | None] = []
    made = Warming(lambda: [candidate("import time; time.sleep(600)", commands)], lambda: True, card, after_s=0.05)
    made.start()
    until(lambda: begun)
    assert card.held() == {"pictures": 0, "stays": 10**8, NAME: 9 * 10**8} and commands == [9 * 10**8]
    card.take("pictures", 5 * 10**8)
    assert begun[0].poll() is not None and card.held()["pictures"] == 5 * 10**8
    made.stop()
    until(lambda: not card.held()[NAME])


def test_it_does_not_begin_where_little_is_left_or_somebody_waits(begun: list[subprocess.Popen[bytes]]) -> None:
    card = Card(10**9)
    card.join("stays", Other(), pinned=True)
    card.take("stays", 10**9)
    for made in (started("", card), started("", idle=False), started("", after_s=60.0)):
        threading.Event().wait(0.2)
        made.stop()
    assert not begun


@pytest.mark.parametrize(("script", "failed"), [("", False), ("raise SystemExit(2)", True)])
def test_what_it_came_to_is_known(begun: list[subprocess.Popen[bytes]], script: str, failed: bool) -> None:
    made = started(script)
    until(lambda: made.failed or made.warmed)
    made.stop()
    assert bool(made.failed) == failed and (failed or made.warmed[0] == "a model")


def test_a_node_warms_up_what_it_was_asked_for_and_then_it_lacks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model that ships, by the real command."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("RELIGHT_MODELS", str(tmp_path / "models"))
    engine = EngineSettings(backend="cpu", threads=1, tuning=tables.folder())
    files = models.files_in(demo.EMBEDDED)
    assert lacks(files, engine, with_gpu=False) and not lacks(files, EngineSettings(), with_gpu=False)
    with Ledger(tmp_path / "jobs") as ledger:
        asked = {"prompt": "a cat", "width": 64, "height": 64}
        done = ledger.submit(NewJob(kind="image", model=EMBEDDED, request=asked))
        ledger.cancel(done.id)
        node = RelightNode(ledger, Registry(), engine, LoadSettings(), warm=True)
        assert node.warming is not None
        node.warming.after_s = 0.05
        node.warming.start()
        until(lambda: node.warming.model, 30)
        (cpu,) = (each for each in asyncio.run(node.devices()) if each["kind"] == "cpu")
        assert cpu["warming"] == EMBEDDED
        until(lambda: node.warming.warmed or node.warming.failed, 100)
        node.warming.stop()
        node.health_checks.close()
        assert node.warming.warmed == [EMBEDDED] and list(node._cold()) == []
    assert not lacks(files, engine, with_gpu=False)
    (table,) = (json.loads(path.read_text()) for path in tables.folder().glob("*.json"))
    assert {each["component"] for each in table["timed"]} == set(files.family.components)


def test_the_command_computes_as_the_server_does() -> None:
    engine = EngineSettings(backend="vae=cpu", threads=3)
    assert warm_command("flux", None, engine, "vulkan1", 3 << 29)[4:] == [
        *("warm", "flux", "--threads", "3", "--device", "vulkan1", "--backend", "vae=cpu", "--max-vram", "1.500")
    ]
