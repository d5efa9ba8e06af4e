"""From the end of a picture to the first token of a chat, where both models do not fit the card together.

    python benchmarks/swap.py                                         # no GPU: the CPU stands in for the card
    python benchmarks/swap.py --preset sd15 --size 512x512 --steps 20 --device vulkan0 --width 4096 --layers 32 \\
        --words 128256 --format Q4_K                                  # an 8B and SD 1.5, some 7 GB in a card of 5.7

The node is in this process, as `relight serve` runs it, with a card that has room for the language model alone. Four
rounds of each: the model is loaded onto an idle card, which gives the load rate; a chat is asked of the loaded model,
which gives the first token's time; a picture is made, and a chat is asked the moment its job has ended; the same with
the next turn of a long conversation, whose state was kept, and with as long a one that nobody has read.

Without a GPU the weights are mapped and not copied, and pictures are made by the small model that ships: the steps on
the way are all taken, but their seconds say nothing about a card. One JSON line for each round, then the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from llm_files import LlmSizes, write_llm
from machine import describe
from relight.gateway.node import ChatAsk, ImageAsk, Message, Sampling, Usage
from relight.jobs import models
from relight.jobs.engine import EngineSettings
from relight.jobs.request import ModelFiles
from relight.ledger import Ledger
from relight.llm.asks import LoadSettings
from relight.node.card import Card
from relight.node.health import Health
from relight.node.making import KIND
from relight.node.node import RelightNode
from relight.node.opened import gpu_of
from relight.node.registry import EMBEDDED, Registry
from relight.planner.language import read_language_model
from sd_files import sd_checkpoint
from sd_shapes import PRESETS

TARGET = 1.15
WORDS = "talk"
SPARE = 1.03
"""The card is so much larger than what the language model is predicted to take."""
PATIENCE_S = 600.0


class StandIn(Card):
    """Pictures hold half of it, as if they were on it."""

    def take(self, name: str, nbytes: int) -> None:
        super().take(name, self.total // 2 if name == KIND else nbytes)


class Bench:
    def __init__(self, node: RelightNode, pictures: str, request: dict[str, Any]) -> None:
        self.node, self.pictures, self.request = node, pictures, request
        self.asked = 0
        self.loading = 0.0, 0.0
        self._load, node.talk.llm.load = node.talk.llm.load, self.timed  # type: ignore[method-assign]

    def timed(self, *arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        loaded = self._load(*arguments, **named)
        self.loading = began, time.perf_counter()
        return loaded

    def picture(self) -> float:
        """Make one; seconds of it."""
        began = time.perf_counter()
        self.asked += 1
        asked = self.request | {"seed": self.asked}
        view = asyncio.run(
            self.node.submit_image(self.pictures, ImageAsk(request=asked), owner="me", key=None, join=False)
        )
        done = self.node.ledger.wait(view.id, PATIENCE_S)
        if done.state != "finished":
            raise SystemExit(f"the picture has not been made: {done.error or done.state}")
        return time.perf_counter() - began

    def chat(self, *said: str) -> tuple[float, str, Usage]:
        """Seconds to the first token, the answer, and what was read. The turns alternate, the user's first."""
        roles = [("user", "assistant")[i % 2] for i in range(len(said))]
        messages = tuple(Message(role=role, parts=(text,)) for role, text in zip(roles, said, strict=True))  # type: ignore[arg-type]
        ask = ChatAsk(model=WORDS, messages=messages, sampling=Sampling(max_tokens=4, temperature=0.0))
        return asyncio.run(self._chat(ask))

    async def _chat(self, ask: ChatAsk) -> tuple[float, str, Usage]:
        began, first, text, usage = time.perf_counter(), 0.0, "", None
        async for piece in self.node.chat(ask):
            first = first or time.perf_counter() - began
            text, usage = text + piece.text, piece.usage or usage
        assert usage is not None
        return first, text, usage

    def load(self) -> float:
        """Seconds of bringing the model to an idle card."""
        for model in (self.pictures, WORDS):
            asyncio.run(self.node.unload(model))
        began = time.perf_counter()
        with self.node.talk.use(WORDS, self.node.registry.chat_file(WORDS)):
            return time.perf_counter() - began

    def nothing_left_over(self) -> None:
        if not self.node.card or self.node.card.held()[KIND]:
            raise SystemExit("the picture stayed on the card: both models fit it together")


def one_round(bench: Bench, number: int, long: str) -> dict[str, float]:
    """Prompts differ from round to round, so that none is remembered but the conversation that shall be."""
    found = {"load_s": bench.load()}
    found["first_token_s"], *_ = bench.chat(f"{number} hello")
    found["picture_s"] = bench.picture()
    began = time.perf_counter()
    found["swap_s"], *_ = bench.chat(f"{number} and then")
    bench.nothing_left_over()
    found |= {"swap_leaving_s": bench.loading[0] - began, "swap_loading_s": bench.loading[1] - bench.loading[0]}
    _, answer, before = bench.chat(f"{number} {long}")
    bench.picture()
    found["followed_s"], _, usage = bench.chat(f"{number} {long}", answer, "go on")
    known = before.prompt_tokens + before.completion_tokens
    found |= {"followed_tokens": usage.prompt_tokens, "read_again": known - usage.cached_tokens}
    bench.picture()
    found["unread_s"], _, usage = bench.chat(f"unread {number} {long}", answer, "go on")
    return found | {"unread_tokens": usage.prompt_tokens - usage.cached_tokens}


def summary(rounds: list[dict[str, float]], nbytes: int) -> dict[str, Any]:
    median = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    allowed = median["load_s"] + median["first_token_s"]
    ratio = median["swap_s"] / allowed
    return {
        "loaded_bytes": nbytes,
        "load_gb_per_s": round(nbytes / median["load_s"] / 1e9, 3),
        **{name: round(value, 4) for name, value in median.items()},
        "swap": {"ratio": round(ratio, 3), "target": TARGET, "met": ratio < TARGET},
        "next_turn": {"tokens": median["followed_tokens"], "read_again": median["read_again"]},
        "next_turn_to_unread": round(median["followed_s"] / median["unread_s"], 3),
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", help="the GPU; without it the CPU stands in")
    p.add_argument("--preset", choices=[*PRESETS, "emoji"], default="emoji", help="of the picture model")
    p.add_argument("--size", default="64x64")
    p.add_argument("--steps", type=int, default=4)
    p.add_argument("--width", type=int, default=2048, help="of the language model")
    p.add_argument("--layers", type=int, default=4)
    p.add_argument("--words", type=int, default=32_768)
    p.add_argument("--format", default="Q4_0")
    p.add_argument("--prompt-tokens", type=int, default=600, help="of the long conversation, about")
    p.add_argument("--rounds", type=int, default=4)
    p.add_argument("--threads", type=int)
    p.add_argument("--folder", type=Path, help="of the picture model's file: made, or found")
    a = p.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["RELIGHT_MODELS"] = str(folder / "models")
        sizes = LlmSizes(width=a.width, layers=a.layers, words=a.words, format=a.format)
        node, nbytes = opened(a, folder, write_llm(folder / f"{WORDS}.gguf", sizes), stack)
        width, height = map(int, a.size.split("x"))
        request = {"prompt": "a red fox", "width": width, "height": height, "steps": a.steps, "sampler": "euler"}
        bench = Bench(node, EMBEDDED if a.preset == "emoji" else a.preset, request)
        long = "hello and the " * (a.prompt_tokens // 6)
        print(json.dumps({"kind": "warm-up", **one_round(bench, 0, long)}), flush=True)
        rounds = []
        for number in range(1, a.rounds + 1):
            rounds.append(one_round(bench, number, long))
            print(json.dumps({"kind": "round", **{k: round(v, 4) for k, v in rounds[-1].items()}}), flush=True)
        print(json.dumps({"kind": "run", **{k: str(v) for k, v in vars(a).items() if v is not None}, **describe()}))
        print(json.dumps({"kind": "summary", **summary(rounds, nbytes)}))


def opened(a: argparse.Namespace, folder: Path, words: Path, stack: ExitStack) -> tuple[RelightNode, int]:
    """The node, started, and the bytes that the language model has on the card."""
    language = LoadSettings(n_gpu_layers=-1, device=a.device, context=2048, slots=2, threads=a.threads)
    model = read_language_model(words)
    held = model.on_gpu(len(model.layers) + 1, language.context * language.slots)
    room = int(SPARE * held)
    named: dict[str, ModelFiles] = {}
    if a.preset != "emoji":
        file = sd_checkpoint((a.folder or folder) / f"{a.preset}.safetensors", PRESETS[a.preset])
        named[a.preset] = models.model_files(str(file), {})
    backend = None if a.device else "cpu"
    engine = EngineSettings(backend=backend, max_vram_bytes=room, threads=a.threads, gpu=a.device)
    health = Health(engine, a.device)
    if a.device:
        device, there = gpu_of(health, EngineSettings(backend=f"diffusion={a.device}"))
        if device is None or there < room:
            raise SystemExit(f"{a.device} has no room for {room} bytes")
        card = Card(room, health.free)
    else:
        card = StandIn(room)
    ledger = stack.enter_context(Ledger(folder / "jobs"))
    node = RelightNode(ledger, Registry(named, {WORDS: words}), engine, language, card=card, health=health)
    node.start()
    stack.callback(node.stop, 0.0)
    return node, held - model.compute(language.context * language.slots)


if __name__ == "__main__":
    main()
