"""The language model as a tenant of the card: layers by room, leaving when asked, never while it is used."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from llm.tiny_model import write_model
from relight.errors import ModelFileError
from relight.llm.asks import LoadSettings, Stats
from relight.llm.client import Llm
from relight.node.card import Card
from relight.node.talk import NAME, Talk
from relight.planner.language import read_language_model
from relight.planner.machine import Machine, of_profile, this_cpu
from relight.planner.profiles import PROFILES

SETTINGS = LoadSettings(n_gpu_layers=-1, context=256, slots=2)
ALL = 3
"""Two layers and the output."""


@dataclass
class FakeLlm:
    """What was asked of the process, which reads ten tokens a second."""

    alive = True
    done: list[Any] = field(default_factory=list)
    broken: bool = False

    def load(self, path: Path, settings: LoadSettings) -> None:
        self.done.append(("load", path.stem, settings.n_gpu_layers))
        if self.broken:
            raise ModelFileError("broken")

    def save(self, *, to_disk: bool) -> None:
        self.done.append("save")

    def unload(self) -> None:
        self.done.append("unload")

    def stats(self) -> Stats:
        return Stats(300, 30.0, 0, 0.0, 0, 0, 0, 0, 0, 0)


class Pictures:
    """They come to the end of a step in ten seconds."""

    busy = False

    def leave(self, *, wholly: bool = False) -> bool:
        return not self.busy

    def interruption_s(self) -> float:
        return 10.0

    @contextmanager
    def giving_way(self) -> Iterator[None]:
        self.busy = False
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("talk") / "tiny.gguf")


def bytes_of(model: Path, layers: int) -> int:
    return read_language_model(model).on_gpu(layers, SETTINGS.context * SETTINGS.slots)


def talking(total: int) -> tuple[Talk, FakeLlm, Card, Pictures]:
    card, pictures, llm = Card(total), Pictures(), FakeLlm()
    talk = Talk(SETTINGS, card)
    talk.llm = cast(Llm, llm)
    card.join(NAME, talk)
    card.join("pictures", pictures)
    return talk, llm, card, pictures


def test_all_layers_go_where_there_is_room(model: Path) -> None:
    talk, llm, card, _ = talking(bytes_of(model, ALL))
    with talk.use("tiny", model):
        assert talk.busy and talk.model == "tiny"
    assert llm.done == [("load", "tiny", ALL)] and card.held()[NAME] == bytes_of(model, ALL)
    assert not talk.busy


def test_beside_a_picture_at_work_fewer_layers_go_down_to_none(model: Path) -> None:
    talk, llm, card, pictures = talking(bytes_of(model, ALL))
    pictures.busy = True
    card.take("pictures", bytes_of(model, ALL) - bytes_of(model, 1))
    with talk.use("tiny", model):
        pass
    assert llm.done == [("load", "tiny", 1)]
    talk, llm, card, pictures = talking(bytes_of(model, ALL))
    pictures.busy = True
    card.take("pictures", card.total)
    with talk.use("tiny", model):
        pass
    assert llm.done == [("load", "tiny", 0)] and card.held()[NAME] == 0


def test_more_layers_go_once_pictures_have_ended_but_never_while_somebody_uses_it(model: Path) -> None:
    talk, llm, card, pictures = talking(bytes_of(model, ALL))
    pictures.busy = True
    card.take("pictures", card.total)
    with talk.use("tiny", model):
        pictures.busy = False
        with talk.use("tiny", model):
            assert llm.done == [("load", "tiny", 0)]
    with talk.use("tiny", model):
        pass
    assert llm.done[1:] == ["unload", ("load", "tiny", ALL)]
    assert card.held() == {NAME: bytes_of(model, ALL), "pictures": 0}


def test_a_long_prompt_interrupts_pictures_and_a_short_one_does_not(model: Path) -> None:
    talk, llm, card, pictures = talking(bytes_of(model, ALL))
    pictures.busy, talk.pictures = True, pictures
    talk._machine = Machine(this_cpu(1), of_profile(PROFILES["rx580-8g"]))
    card.take("pictures", bytes_of(model, ALL) - bytes_of(model, 1))
    for unread in (5000, 50):
        with talk.use("tiny", model, 8, unread):
            pass
    assert llm.done == [("load", "tiny", 1)], "foretold for a tiny model 5000 are nothing; 50 take five seconds"
    with talk.use("tiny", model, 8, 5000):
        pass
    assert llm.done[1:] == ["unload", ("load", "tiny", ALL)] and not pictures.busy


def test_it_leaves_for_pictures_when_idle_and_comes_back(model: Path) -> None:
    talk, llm, card, _ = talking(bytes_of(model, ALL))
    with talk.use("tiny", model):
        assert not talk.leave()
    card.take("pictures", card.total)
    assert llm.done[1:] == ["unload"] and talk.model is None
    with talk.use("tiny", model):
        pass
    assert llm.done[-1] == ("load", "tiny", ALL)


def test_another_model_waits_until_the_one_in_use_is_idle(model: Path, tmp_path: Path) -> None:
    talk, llm, _, _ = talking(bytes_of(model, ALL))
    other = write_model(tmp_path / "other.gguf")

    def use_other() -> None:
        with talk.use("other", other):
            pass

    thread = threading.Thread(target=use_other, daemon=True)
    with talk.use("tiny", model):
        thread.start()
        thread.join(0.1)
        assert thread.is_alive() and talk.model == "tiny"
    thread.join(10)
    assert llm.done == [("load", "tiny", ALL), "unload", ("load", "other", ALL)]


def test_a_model_that_cannot_be_loaded_holds_nothing(model: Path) -> None:
    talk, llm, card, _ = talking(bytes_of(model, ALL))
    llm.broken = True
    with pytest.raises(ModelFileError):
        with talk.use("tiny", model):
            pass
    assert card.held()[NAME] == 0 and talk.model is None and not talk.busy


def test_loading_and_a_picture_that_asks_for_the_card_do_not_wait_for_one_another(model: Path) -> None:
    talk, llm, card, _ = talking(bytes_of(model, ALL))
    loading, asked = threading.Event(), threading.Event()
    load = llm.load

    def slow(path: Path, settings: LoadSettings) -> None:
        loading.set()
        assert asked.wait(10)
        load(path, settings)

    llm.load = slow  # type: ignore[method-assign]

    def use() -> None:
        with talk.use("tiny", model):
            pass

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    assert loading.wait(10)
    tries = iter([False, True])
    with pytest.raises(Exception, match="language model"):
        card.take_when_idle("pictures", card.total, lambda: next(tries))
    asked.set()
    thread.join(10)
    assert not thread.is_alive() and talk.model == "tiny"
    card.take("pictures", card.total)
    assert card.held() == {NAME: 0, "pictures": card.total}


def test_without_a_card_it_is_on_the_cpu(model: Path) -> None:
    talk = Talk(SETTINGS, None)
    talk.llm = cast(Llm, llm := FakeLlm())
    with talk.use("tiny", model):
        pass
    assert llm.done == [("load", "tiny", 0)]
