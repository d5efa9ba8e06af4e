"""A chat beside a picture: the first token does not wait for its end, and goes first where that is sooner."""

from __future__ import annotations

import asyncio
import io
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny_sd
from llm.tiny_model import write_model
from relight.gateway.node import ChatAsk, ImageAsk, Message, Sampling, Usage
from relight.jobs.engine import EngineSettings
from relight.jobs.request import ModelFiles
from relight.ledger import Job, Ledger
from relight.llm.asks import LoadSettings
from relight.node import interruptions
from relight.node.card import Card
from relight.node.interruptions import Interruptions
from relight.node.making import KIND
from relight.node.node import RelightNode
from relight.node.registry import Registry
from relight.planner.language import read_language_model
from relight.planner.machine import Machine, of_profile, this_cpu
from relight.planner.profiles import PROFILES

pytestmark = pytest.mark.timeout(180)
STEPS = 60
SETTINGS = LoadSettings(n_gpu_layers=-1, context=256, slots=2, threads=1)
MACHINE = Machine(this_cpu(1), of_profile(PROFILES["rx580-8g"]))


@dataclass
class Making:
    step_s: float
    saved: float


def test_the_cost_is_the_end_of_steps_and_what_is_lost_of_other_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(interruptions.time, "monotonic", lambda: now[0])
    ours = Interruptions()
    assert ours.cost_s([]) == ours.cost_s([Making(0.0, 90.0)]) == math.inf
    makings = [Making(2.0, 50.0), Making(0.0, 97.0)]
    assert ours.cost_s(makings) == 2 * 2.0 + 3.0
    ours.begin()
    now[0] = 130.0
    assert ours.cost_s(makings) == math.inf
    ours.end()
    now[0] = 159.0
    assert ours.cost_s(makings) == math.inf, "pictures go on for as long as they waited"
    now[0] = 160.0
    assert ours.cost_s(makings) < math.inf


class Shared(Card):
    """Pictures, which no GPU makes here, count for all of it but what one layer takes."""

    left = 0

    def take(self, name: str, nbytes: int) -> None:
        super().take(name, self.total - self.left if name == KIND else nbytes)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("words") / "words.gguf")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return tiny_sd.sd1(tmp_path_factory.mktemp("sd") / "tiny.safetensors")


@pytest.fixture
def node(tmp_path: Path, model: Path, files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> Iterator[RelightNode]:
    monkeypatch.setenv("RELIGHT_MODELS", str(tmp_path / "models"))
    described = read_language_model(model)
    card = Shared(described.on_gpu(len(described.layers) + 1, SETTINGS.context * SETTINGS.slots))
    card.left = described.on_gpu(1, SETTINGS.context * SETTINGS.slots)
    engine = EngineSettings(backend="ggml-cpu", threads=1, check_results=False)
    with Ledger(tmp_path / "jobs") as ledger:
        node = RelightNode(ledger, Registry({"tiny": files}, {"words": model}), engine, SETTINGS, card=card)
        node.talk.machine, node.line.checkpoint_s = lambda: MACHINE, 0.0
        node.start()
        yield node
        node.stop(0.0)


def begun(node: RelightNode, steps: int = STEPS) -> str:
    """A picture in the works, some of its steps done."""
    request = {"prompt": "a red apple", "width": 64, "height": 64, "steps": steps, "cfg_scale": 1, "seed": 3}
    job = asyncio.run(node.submit_image("tiny", ImageAsk(request=request), owner="me", key=None, join=False))
    ends = time.monotonic() + 60
    while not denoised(node, job.id) and time.monotonic() < ends:
        time.sleep(0.01)
    return job.id


def denoised(node: RelightNode, job_id: str) -> bool:
    """Some steps, so that what one takes is known."""
    return any(saved.step > 2 for saved in node.ledger.checkpoints(job_id).values())


def chat(node: RelightNode) -> tuple[int, Usage | None]:
    async def answer() -> Usage | None:
        ask = ChatAsk(
            model="words", messages=(Message(role="user", parts=("hello",)),), sampling=Sampling(max_tokens=3)
        )
        return [piece.usage async for piece in node.chat(ask)][-1]

    usage = asyncio.run(answer())
    assert node.talk._model is not None
    return node.talk._model[2], usage


def ended(node: RelightNode, job_id: str) -> Job:
    done = node.ledger.wait(job_id, 120)
    assert done.state == "finished"
    return done


def test_a_chat_is_answered_while_a_picture_is_made(node: RelightNode) -> None:
    job = begun(node, steps=1000)
    layers, usage = chat(node)
    assert usage is not None and layers == 1, "one layer has room beside the picture"
    seen = node.ledger.get(job)
    assert (seen.state, seen.attempt) == ("running", 1)
    asyncio.run(node.cancel(job))


def test_a_picture_is_interrupted_where_the_answer_is_sooner_and_goes_on_after_it(node: RelightNode) -> None:
    node.talk._machine = MACHINE
    node.talk._measured["words"].made[1] = 1e6  # a processor that takes days
    whole = picture(node, ended(node, begun(node)))
    job = begun(node)
    layers, _ = chat(node)
    assert layers == 3, "the whole model and its output"
    assert node.ledger.get(job).state != "finished"
    assert node.line.interruption_s() == math.inf, "pictures get their share first"
    done = ended(node, job)
    assert done.attempt == 2 and picture(node, done) == whole
    assert len(done.report["seconds"]["steps"][0]) < STEPS


def picture(node: RelightNode, job: Job) -> bytes:
    return np.asarray(Image.open(io.BytesIO(node.ledger.result(job.id, 0)[0]))).tobytes()
