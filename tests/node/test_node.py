"""The node's answers: jobs and their events, from the ledger and the threads that make pictures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relight.demo import EMBEDDED as EMBEDDED_FOLDER
from relight.errors import JobNotFound, KeyConflict, ModelStopped, RequestError
from relight.gateway.node import ChatAsk, ImageAsk, JobEvent, Message, Sampling
from relight.jobs.engine import EngineSettings
from relight.jobs.events import Advanced, Previewed
from relight.jobs.models import files_in
from relight.ledger import Attempt, Ledger, NewResult
from relight.llm.asks import LoadSettings
from relight.node.breaker import DEATHS
from relight.node.node import RelightNode
from relight.node.registry import EMBEDDED, Registry

ASK = {"prompt": "a red apple", "width": 64, "height": 64, "steps": 2}


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RelightNode]:
    """Not started: the test is the worker."""
    monkeypatch.setenv("RELIGHT_MODELS", str(tmp_path / "models"))
    with Ledger(tmp_path / "jobs") as ledger:
        yield RelightNode(ledger, Registry(), EngineSettings(backend="cpu"), LoadSettings())


def submit(node: RelightNode, key: str | None = None, *, join: bool = False, **changes: Any) -> str:
    ask = ImageAsk(request=ASK | changes)
    return asyncio.run(node.submit_image(EMBEDDED, ask, owner="me", key=key, join=join)).id


def claim(node: RelightNode) -> Attempt:
    attempt = node.ledger.claim(("image",), "test")
    assert attempt is not None
    return attempt


def finish(node: RelightNode, attempt: Attempt) -> None:
    assert node.ledger.commit(attempt, [NewResult(b"png", "image/png", {"seed": 1})], {})


def test_events_tell_position_steps_previews_and_the_end(node: RelightNode) -> None:
    first, second = submit(node), submit(node, seed=2)

    async def follow() -> list[JobEvent]:
        told: list[JobEvent] = []
        async for event in node.events(second):
            told.append(event)
            if len(told) == 1:
                await asyncio.to_thread(lambda: finish(node, claim(node)))
                attempt = await asyncio.to_thread(claim, node)
                assert attempt.job.id == second
                node._told(second, Advanced("denoise", 1, 2, 0.5))
                node._told(second, Previewed(0, 1, 2, np.zeros((8, 8, 3), np.uint8)))
                await asyncio.to_thread(finish, node, attempt)
        return told

    told = asyncio.run(asyncio.wait_for(follow(), 30))
    assert (told[0].state, told[0].position) == ("queued", 1)
    steps = [event for event in told if event.stage == "denoise" and event.state == "running"]
    assert (steps[0].step, steps[0].of) == (1, 2) and steps[0].seconds_left is not None
    previews = [event.preview for event in told if event.preview]
    assert len(previews) == 1 and previews[0].startswith(b"\x89PNG")
    assert told[-1].state == "finished" and [event.ended for event in told].count(True) == 1
    numbers = [event.number for event in told]
    assert numbers == sorted(numbers)
    assert node.ledger.get(first).state == "finished"


def test_events_of_an_ended_job_are_its_end_alone(node: RelightNode) -> None:
    job = submit(node)
    finish(node, claim(node))

    async def follow() -> list[str]:
        return [event.state async for event in node.events(job)]

    assert asyncio.run(asyncio.wait_for(follow(), 30)) == ["finished"]


def test_events_of_a_job_that_is_not_there_say_so(node: RelightNode) -> None:
    with pytest.raises(JobNotFound):
        asyncio.run(asyncio.wait_for(anext(node.events("job-0")), 30))  # type: ignore[arg-type]


def test_a_step_on_its_way_when_the_job_was_cancelled_is_not_told(node: RelightNode) -> None:
    job = submit(node)
    claim(node)
    assert asyncio.run(node.cancel(job)).state == "cancelled"
    node._told(job, Advanced("denoise", 1, 2, 0.5))
    assert node.lives.get(job).number == 0


def test_a_key_and_an_identical_request_give_the_job_that_is_there(node: RelightNode) -> None:
    job = submit(node, "a", seed=1)
    assert submit(node, "a", seed=1) == job == submit(node, None, join=True, seed=1)
    assert submit(node, seed=1) != job
    with pytest.raises(KeyConflict):
        submit(node, "a", seed=2)


def test_a_model_that_is_stopped_still_answers_with_the_job_that_is_there(node: RelightNode) -> None:
    kept, joined = submit(node, "a", seed=1), submit(node, seed=2)
    ended = submit(node, "b", seed=3)
    asyncio.run(node.cancel(ended))
    for _ in range(DEATHS):
        node.line.breaker.lost(EMBEDDED)
    assert submit(node, "a", seed=1) == kept and submit(node, "b", seed=3) == ended
    assert submit(node, join=True, seed=2) == joined
    with pytest.raises(KeyConflict):
        submit(node, "a", seed=4)
    for key, join, seed in (("c", False, 1), (None, False, 2), (None, True, 3)):
        with pytest.raises(ModelStopped):
            submit(node, key, join=join, seed=seed)
    assert len(node.ledger.jobs()) == 3


class Silent(list[Any]):
    """A language model whose answers are empty."""

    def chat(self, ask: object) -> Silent:
        return self

    def cancel(self) -> None:
        pass


def test_a_chat_says_how_long_it_may_be_and_how_much_of_it_is_new(
    node: RelightNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[tuple[int | None, int]] = []

    @contextmanager
    def use(name: str, path: Path, tokens: int | None, unread: int) -> Iterator[Silent]:
        used.append((tokens, unread))
        yield Silent()

    monkeypatch.setattr(node.talk, "use", use)
    monkeypatch.setattr(node.registry, "chat_file", Path)
    messages = (Message(role="user", parts=("wood" * 1000,)),)
    ask = ChatAsk(model="words", messages=messages, sampling=Sampling(max_tokens=7))

    async def heard() -> list[Any]:
        return [piece async for piece in node.chat(ask)]

    assert asyncio.run(heard()) == asyncio.run(heard()) == []
    (most, unread), again = used
    assert most == 7 and 1000 <= unread < 1020 and again == (7, 0)


def test_a_seed_is_chosen_once_where_none_is_asked_for(node: RelightNode) -> None:
    job = submit(node, "a")
    assert submit(node, "a") == job
    assert 0 <= node.ledger.get(job).chosen["seed"] < 2**32
    assert "seed" not in node.ledger.get(submit(node, seed=0)).chosen


def test_settings_fill_what_a_request_leaves_open_of_other_models_than_the_one_that_ships(node: RelightNode) -> None:
    node.usual = {"steps": 7, "sampler": "heun"}
    node.registry = Registry({"mine": files_in(EMBEDDED_FOLDER)})
    for model, chosen in (("mine", {"sampler": "heun"}), (EMBEDDED, {})):
        ask = ImageAsk(request=ASK | {"seed": 1})
        job = asyncio.run(node.submit_image(model, ask, owner="me", key=None, join=False)).id
        assert node.ledger.get(job).chosen == chosen


def test_what_is_wrong_is_told_at_submission(node: RelightNode) -> None:
    for changes in ({"sampler": "nonsense"}, {"redraw": {"image": "picture"}}):
        with pytest.raises(RequestError):
            submit(node, **changes)
    with pytest.raises(RequestError, match="none for pictures here"):
        asyncio.run(node.submit_image("/etc/passwd", ImageAsk(request=ASK), owner="me", key=None, join=False))
    assert node.ledger.jobs() == []


def test_a_model_whose_workers_die_is_shown_and_takes_no_more_jobs_for_a_while(node: RelightNode) -> None:
    waiting = submit(node)
    for _ in range(DEATHS):
        node.line.breaker.lost(EMBEDDED)
    with pytest.raises(ModelStopped, match="tried again in 60 s"):
        submit(node, seed=2)
    (shown,) = (card for card in node.models() if card.id == EMBEDDED)
    assert shown.stopped_s is not None and 50 < shown.stopped_s <= 60
    told = {metric.name: metric.values for metric in node.metrics()}
    assert told["worker_deaths"] == [({"model": EMBEDDED}, DEATHS)]
    assert told["model_stopped_seconds"][0][0] == {"model": EMBEDDED}
    left = asyncio.run(node.job(waiting)).seconds_left
    node.line.breaker.worked(EMBEDDED)
    assert left is not None and left > 50 + (asyncio.run(node.job(waiting)).seconds_left or 0)
    submit(node, seed=2)


def test_a_node_that_stops_takes_no_more(node: RelightNode) -> None:
    assert node.ready().ok
    node._stopping.set()
    assert not node.ready().ok


def test_metrics_count_jobs_by_state(node: RelightNode) -> None:
    submit(node)
    values = {metric.name: dict(metric.values[0][0]) | {"": metric.values[0][1]} for metric in node.metrics()[:1]}
    assert values["jobs"] == {"state": "queued", "": 1}
