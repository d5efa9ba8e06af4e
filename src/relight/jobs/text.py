"""From prompts to what the backbone attends to, for each family of models."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from relight.errors import RequestError
from relight.jobs.checks import Checked
from relight.jobs.events import Listener, Warned
from relight.jobs.request import Lora
from relight.jobs.run import Run
from relight.jobs.settle import Pass, Settled
from relight.models import unet
from relight.models.tokenizers import CLIP_END, TokenIds
from relight.prompts import Chunk, at_step, chunks, equal_lengths, mentioned, schedule, take_loras, weighted
from relight.prompts.chunks import LENGTH
from relight.workers.components.text import VECTORS

CUT_SHOWN = 200
OTHER_PAD = 0
"""What CLIP-G and CLIP-H see after the end of the text, and CLIP-L does not."""

Arrays = dict[str, np.ndarray]
Encoding = Mapping[str, Future[list[Arrays]]]
"""By encoder, what it gives for each text of a plan."""


@dataclass(frozen=True, eq=False)
class Conditions:
    """Arrays of the denoising call, one row for each text, and which of them each step uses."""

    arrays: dict[str, np.ndarray]
    positive: list[int]
    negative: list[int] | None


@dataclass(frozen=True, eq=False)
class TextPlan:
    """The different `texts` of a request; `positive` and `negative` give for each pass the text of each step.
    `tokens`: rows the backbone attends to; `inputs`: what the stage made of the texts."""

    texts: tuple[str, ...]
    positive: tuple[list[int], ...]
    negative: tuple[list[int] | None, ...]
    loras: tuple[Lora, ...]
    tokens: int = 0
    inputs: Any = None


class TextStage(ABC):
    def __init__(self, checked: Checked) -> None:
        self.checked, self.files = checked, checked.files

    @abstractmethod
    def plan(self, settled: Settled, tell: Listener) -> TextPlan:
        """Raises RequestError for what cannot be understood. Tells of what is left out."""

    @abstractmethod
    def submit(self, run: Run, plan: TextPlan) -> Encoding:
        """Encode every text, each encoder in its worker's lane."""

    @abstractmethod
    def conditions(self, run: Run, plan: TextPlan, encoded: Encoding, which: Pass) -> Future[Conditions]:
        """What a pass is steered by."""


def text_stage(checked: Checked) -> TextStage:
    return FluxText(checked) if checked.files.family.name == "flux" else ClipTexts(checked)


def texts_by_step(settled: Settled) -> TextPlan:
    """The prompts without their LoRA tags, each text once, and where each is used."""
    request = settled.request
    prompt, tags = take_loras(request.prompt)
    negative, more = take_loras(request.negative_prompt)
    loras = (*request.loras, *(Lora(tag.name, tag.backbone, tag.text) for tag in (*tags, *more)))
    texts: dict[str, int] = {}

    def by_step(text: str, number: int) -> list[int]:
        timeline = schedule(text, steps[number], first_pass=steps[0] if number else 0)
        return [texts.setdefault(at_step(timeline, step), len(texts)) for step in range(steps[number])]

    steps = [len(which.levels) - 1 for which in settled.passes]
    positive = tuple(by_step(prompt, number) for number in range(len(steps)))
    two = settled.rows > 1
    without = tuple(by_step(negative, number) if two else None for number in range(len(steps)))
    return TextPlan(tuple(texts), positive, without, loras)


class FluxText(TextStage):
    """CLIP-L's pooled vector steers the modulation, T5's states are attended to, weighted as the prompt says."""

    def plan(self, settled: Settled, tell: Listener) -> TextPlan:
        plan = texts_by_step(settled)
        tokens = {text: self.checked.flux_tokens(text, settled.text_tokens) for text in plan.texts}
        for both in tokens.values():
            warn_if_cut(both.t5, settled.text_tokens, tell)
        return replace(plan, tokens=settled.text_tokens, inputs=tokens)

    def submit(self, run: Run, plan: TextPlan) -> Encoding:
        sizes = run.sizes(run.settled.passes[0])
        tokens = [plan.inputs[text] for text in plan.texts]

        def pooled() -> list[Arrays]:
            run.load("clip_l", sizes)
            return [run.call("encode", "clip_l", sizes, {"ids": t.clip.ids}, eos=int(t.clip.eos)) for t in tokens]

        def text() -> list[Arrays]:
            run.load("t5xxl", sizes)
            states = [run.call("encode", "t5xxl", sizes, {"ids": t.t5.ids})["text"] for t in tokens]
            return [{"text": weighted(text, t.weights)} for text, t in zip(states, tokens, strict=True)]

        return {"clip_l": run.submit("clip_l", pooled), "t5xxl": run.submit("t5xxl", text)}

    def conditions(self, run: Run, plan: TextPlan, encoded: Encoding, which: Pass) -> Future[Conditions]:
        """The modulation of every level at once is computed where it was placed."""
        sizes, number = run.sizes(which), run.settled.passes.index(which)
        levels = np.array(run.settled.evaluated(which), np.float32)

        def modulation(pooled: np.ndarray) -> np.ndarray:
            arrays = {"timesteps": levels, "pooled": pooled}
            guidance = run.settled.guidance or 0.0
            return run.call("encode", "modulation", sizes, arrays, guidance=guidance)["modulation"]

        def task() -> Conditions:
            run.load("modulation", sizes)
            steering = np.stack([modulation(each["pooled"]) for each in encoded["clip_l"].result()])
            text = np.stack([each["text"] for each in encoded["t5xxl"].result()])
            return Conditions({"modulation": steering, "text": text}, plan.positive[number], plan.negative[number])

        return run.submit("modulation", task)


class ClipTexts(TextStage):
    """Stable Diffusion's: the states of one or two CLIPs side by side, chunk after chunk, tokens weighted as the prompt
    says; for SDXL CLIP-G's pooled vector of the first chunk, with the picture's size, as well."""

    def plan(self, settled: Settled, tell: Listener) -> TextPlan:
        plan, tokenizer = texts_by_step(settled), self.checked.clip_tokenizer
        names = [name for text in plan.texts for name in mentioned(text, tokenizer, self.files.embeddings)]
        vectors = {name: self.checked.embedding(name) for name in dict.fromkeys(names)}
        counts = {name: len(next(iter(rows.values()))) for name, rows in vectors.items()}
        cut = {text: chunks(text, tokenizer, counts) for text in plan.texts}
        tokens = math.lcm(*(len(parts) for parts in cut.values())) * LENGTH
        return replace(plan, tokens=tokens, inputs={"chunks": cut, "vectors": vectors})

    def submit(self, run: Run, plan: TextPlan) -> Encoding:
        return {name: run.submit(name, partial(self._encode, run, plan, name)) for name in self.files.family.text}

    def _encode(self, run: Run, plan: TextPlan, encoder: str) -> list[Arrays]:
        sizes = self.sizes(run.settled, encoder, bool(plan.inputs["vectors"]))
        run.load(encoder, sizes)
        return [
            joined([self._chunk(run, plan, encoder, sizes, chunk) for chunk in plan.inputs["chunks"][text]])
            for text in plan.texts
        ]

    def sizes(self, settled: Settled, encoder: str, replaced: bool) -> dict[str, int]:
        family = self.files.family
        return {
            "skip": settled.clip_skip,
            "final_norm": int(family.hidden_norm),
            "hidden": 1,
            "pooled": int(encoder == "clip_g"),
            "replaced": int(replaced),
        }

    def _chunk(self, run: Run, plan: TextPlan, encoder: str, sizes: dict[str, int], chunk: Chunk) -> Arrays:
        arrays = {"ids": chunk.padded(CLIP_END if encoder == "clip_l" else OTHER_PAD)}
        for slot in chunk.slots:
            rows = plan.inputs["vectors"][slot.name].get(encoder)
            if rows is None:
                raise RequestError(f"embedding {slot.name} is not for this model: it has nothing for {encoder}")
            arrays[f"{VECTORS}{slot.start}"] = rows
        found = run.call("encode", encoder, sizes, arrays, eos=chunk.eos)
        return found | {"hidden": weighted(found["hidden"], chunk.weights)}

    def conditions(self, run: Run, plan: TextPlan, encoded: Encoding, which: Pass) -> Future[Conditions]:
        number = run.settled.passes.index(which)

        def task() -> Conditions:
            sides = [encoded[name].result() for name in self.files.family.text]
            contexts = [np.concatenate([side["hidden"] for side in row], axis=1) for row in zip(*sides, strict=True)]
            arrays = {"context": np.stack(equal_lengths(contexts))}
            if "clip_g" in encoded:
                size = (which.height, which.width)
                pooled = [each["pooled"] for each in encoded["clip_g"].result()]
                arrays["label"] = np.concatenate([unet.sdxl_label(each, size, (0, 0), size) for each in pooled])
            return Conditions(arrays, plan.positive[number], plan.negative[number])

        return run.submit("diffusion", task)


def joined(parts: Sequence[Arrays]) -> Arrays:
    """Chunks of one text as one: states one after another, the pooled vector of the first."""
    return dict(parts[0]) | {"hidden": np.concatenate([part["hidden"] for part in parts])}


def warn_if_cut(tokens: TokenIds, length: int, tell: Listener) -> None:
    """CLIP sees 77 tokens and gives one pooled vector, T5 carries the prompt: only what T5 loses is worth a word."""
    if tokens.cut:
        begin = tokens.cut if len(tokens.cut) <= CUT_SHOWN else tokens.cut[:CUT_SHOWN] + " ..."
        tell(Warned(f"the prompt has {tokens.count} tokens, {length - 1} fit; left out from here on: {begin!r}"))
