"""A chat that comes in the middle of a FLUX.1 picture: how soon it is answered, and what the picture pays.

    python benchmarks/chat_beside.py --pretend rx580-8g --max-vram 8 --width 4096 --layers 32 --words 128256
    python benchmarks/chat_beside.py --preset small --size 64x64 --relight-backend cpu    # no card: both on the CPU

The node of `relight serve` has both models; with an 8B and FLUX.1 they do not fit 8 GB together. A picture by itself is
timed, and the chat by itself with the model loaded; then pictures with a chat that is asked when the first step has
ended. JSON lines, the medians last: `chat_layers` says how much of the language model was on the card for the answer.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
from comparison import PROMPTS, tell
from flux_files import flux_files
from flux_queue import Heard, ended, node, parser, submitted, until
from flux_shapes import PRESETS
from flux_vs_sdcpp import write_tokenizer
from llm_files import LlmSizes, write_llm
from relight.gateway.node import ChatAsk, Message, Sampling
from relight.node.node import RelightNode
from relight.planner.profiles import VARIABLE

WORDS = "talk"


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--width", type=int, default=1024, help="of the language model")
    p.add_argument("--layers", type=int, default=4)
    p.add_argument("--words", type=int, default=32_768)
    p.add_argument("--tokens", type=int, default=48, help="of an answer")
    p.add_argument("--rounds", type=int, default=3)
    a = p.parse_args()
    tell(kind="run", argv=sys.argv[1:], machine=machine.describe())
    if a.pretend:
        os.environ[VARIABLE] = a.pretend
    files = flux_files(a.folder, PRESETS[a.preset], a.format)
    write_tokenizer(a.folder)
    with tempfile.TemporaryDirectory(dir=a.folder) as kept:
        sizes = LlmSizes(width=a.width, layers=a.layers, words=a.words, format="Q4_K")
        words = write_llm(Path(kept) / f"{WORDS}.gguf", sizes)
        with node(a, files, Path(kept), {WORDS: words}) as made:
            Bench(made, a).measure()


class Bench:
    def __init__(self, made: RelightNode, a: argparse.Namespace) -> None:
        self.node, self.a, self.heard = made, a, Heard.of(made)
        self.layers = 0
        self._load, made.talk.llm.load = made.talk.llm.load, self.noted  # type: ignore[method-assign]

    def noted(self, *arguments: Any, **named: Any) -> Any:
        loaded = self._load(*arguments, **named)
        self.layers = loaded.gpu_layers
        return loaded

    def measure(self) -> None:
        self.picture(0)
        alone = self.picture(1)
        self.chat("hello")
        by_itself = self.chat("hello again")
        tell(kind="alone", picture_s=alone["picture_s"], chat=by_itself)
        self.picture(2)
        rounds = []
        for number in range(3, 3 + self.a.rounds):
            rounds.append(self.picture(number, f"{number}: and meanwhile?"))
            tell(kind="round", **rounds[-1])
        middle = {name: round(statistics.median(each[name] for each in rounds), 3) for name in rounds[0]}
        tell(kind="summary", **middle, picture_alone_s=alone["picture_s"], chat_alone=by_itself)

    def picture(self, seed: int, said: str | None = None) -> dict[str, float]:
        """Seconds of one, with a chat after its first step where there is something said."""
        began = time.monotonic()
        job, _ = submitted(self.node, self.a, PROMPTS[seed % len(PROMPTS)], seed)
        found: dict[str, float] = {}
        if said is not None:
            until(lambda: bool(self.heard.steps[job]))
            found = self.chat(said)
        (done,) = ended(self.node, [job])
        steps = len(self.heard.steps[job])
        return {"picture_s": round(time.monotonic() - began, 3), "attempts": done.attempt, "steps": steps, **found}

    def chat(self, said: str) -> dict[str, float]:
        """Of an answer: seconds to the first token, tokens a second after it, layers on the card."""
        ask = ChatAsk(
            model=WORDS,
            messages=(Message(role="user", parts=(said,)),),
            sampling=Sampling(max_tokens=self.a.tokens, temperature=0.0),
        )

        async def first() -> tuple[float, float, int]:
            times, made = [], 0
            async for piece in self.node.chat(ask):
                times.append(time.perf_counter())
                made = piece.usage.completion_tokens if piece.usage else made
            return times[0], times[-1], made

        began = time.perf_counter()
        soonest, last, tokens = asyncio.run(first())
        return {
            "chat_first_s": round(soonest - began, 3),
            "chat_tokens_per_s": round((tokens - 1) / max(last - soonest, 1e-9), 2),
            "chat_layers": self.layers,
        }


if __name__ == "__main__":
    main()
