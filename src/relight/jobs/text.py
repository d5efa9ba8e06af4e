"""From prompts to what the backbone attends to, for each family of models."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import numpy as np

from relight.errors import RequestError, RuinedPicture
from relight.images.verdict import judge_numbers
from relight.jobs.checks import Checked, FluxTokens
from relight.jobs.conditioning import ConditioningCache, encoder_identity, identity, key_of
from relight.jobs.events import Listener, Warned
from relight.jobs.loras import for_text
from relight.jobs.request import Lora
from relight.jobs.run import Run
from relight.jobs.settle import Pass, Settled
from relight.models import unet
from relight.models.tokenizers import CLIP_END, TokenIds
from relight.prompts import Chunk, at_step, chunks, equal_lengths, mentioned, schedule, take_loras, weighted
from relight.prompts.chunks import LENGTH
from relight.workers.components.text import VECTORS

CUT_SHOWN = 200
STEERING_BYTES = 1 << 28
"""Of what prompts lately gave the backbone: 17 MB each for FLUX.1 schnell's four steps."""
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
    `tokens`: rows the backbone attends to; `inputs`: what the stage made of the texts; `cached`: what encoders gave
    before, by encoder, where it is known of every text."""

    texts: tuple[str, ...]
    positive: tuple[list[int], ...]
    negative: tuple[list[int] | None, ...]
    loras: tuple[Lora, ...]
    tokens: int = 0
    inputs: Any = None
    keys: Mapping[str, list[str]] = field(default_factory=dict)
    cached: Mapping[str, list[Arrays]] = field(default_factory=dict)


class TextStage(ABC):
    """`cache` keeps what encoders give; `backend` says where the user wants each."""

    def __init__(self, checked: Checked, cache: ConditioningCache | None, backend: Mapping[str, str]) -> None:
        self.checked, self.files, self.cache, self.backend = checked, checked.files, cache, backend

    def with_cached(self, plan: TextPlan, asked: Mapping[str, list[Any]]) -> TextPlan:
        """The plan with what is known already. `asked`: by encoder, what decides on its answer besides its files."""
        if self.cache is None:
            return plan
        keys, loras = {}, for_text(self.files, plan.loras)
        for encoder, parts in asked.items():
            whose = [encoder_identity(self.files, encoder, loras), self.backend[encoder]]
            keys[encoder] = [key_of(whose, part) for part in parts]
        known = {encoder: found for encoder, mine in keys.items() if (found := self.cache.get(mine)) is not None}
        return replace(plan, keys=keys, cached=known)

    def submit(self, run: Run, plan: TextPlan) -> Encoding:
        """Encode every text, each encoder in its worker's lane."""
        return {encoder: self._submit(run, plan, encoder) for encoder in self.files.family.text}

    def _submit(self, run: Run, plan: TextPlan, encoder: str) -> Future[list[Arrays]]:
        if encoder in plan.cached:
            return known(plan.cached[encoder])

        def task() -> list[Arrays]:
            found = self.encode(run, plan, encoder)
            if run.fleet.settings.check_results:
                look_at(encoder, found)
            if self.cache is not None:
                for key, arrays in zip(plan.keys[encoder], found, strict=True):
                    self.cache.put(key, arrays)
            return found

        return run.submit(encoder, task)

    @abstractmethod
    def plan(self, settled: Settled, tell: Listener) -> TextPlan:
        """Raises RequestError for what cannot be understood. Tells of what is left out."""

    @abstractmethod
    def encoder_sizes(self, run: Run, plan: TextPlan, encoder: str) -> dict[str, int]:
        """What an encoder's graph depends on for these texts."""

    @abstractmethod
    def encode(self, run: Run, plan: TextPlan, encoder: str) -> list[Arrays]:
        """What an encoder gives for each text."""

    @abstractmethod
    def conditions(self, run: Run, plan: TextPlan, encoded: Encoding, which: Pass) -> Future[Conditions]:
        """What a pass is steered by."""


def look_at(encoder: str, found: list[Arrays]) -> None:
    """Raises RuinedPicture for what no picture can come of, and what must not be kept for the next one."""
    broken = next((w for each in found for array in each.values() if (w := judge_numbers(array, "text"))), None)
    if broken is not None:
        raise RuinedPicture(
            f"{encoder}: {broken.message}. Its file is damaged, or the device computes wrongly: "
            f"--backend {encoder}=cpu tells which"
        )


def text_stage(checked: Checked, cache: ConditioningCache | None, backend: Mapping[str, str]) -> TextStage:
    kind = FluxText if checked.files.family.name == "flux" else ClipTexts
    return kind(checked, cache, backend)


def known[T](value: T) -> Future[T]:
    future: Future[T] = Future()
    future.set_result(value)
    return future


def texts_by_step(settled: Settled, tell: Listener) -> TextPlan:
    """The prompts without their LoRA tags, each text once, and where each is used."""
    request = settled.request
    if request.negative_prompt and settled.rows == 1:
        tell(Warned(f"the negative prompt does nothing at cfg scale {settled.cfg_scale:g}; give --cfg-scale"))
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

    def __init__(self, checked: Checked, cache: ConditioningCache | None, backend: Mapping[str, str]) -> None:
        super().__init__(checked, cache, backend)
        self._lately: dict[Hashable, np.ndarray] = {}

    def plan(self, settled: Settled, tell: Listener) -> TextPlan:
        plan = texts_by_step(settled, tell)
        tokens = {text: self.checked.flux_tokens(text, settled.text_tokens) for text in plan.texts}
        for both in tokens.values():
            warn_if_cut(both.t5, settled.text_tokens, tell)
        plan = replace(plan, tokens=settled.text_tokens, inputs=tokens)
        texts = list(plan.texts)
        return self.with_cached(plan, {"clip_l": texts, "t5xxl": [[settled.text_tokens, text] for text in texts]})

    def encoder_sizes(self, run: Run, plan: TextPlan, encoder: str) -> dict[str, int]:
        return run.sizes(run.settled.passes[0])

    def encode(self, run: Run, plan: TextPlan, encoder: str) -> list[Arrays]:
        sizes = self.encoder_sizes(run, plan, encoder)
        run.load(encoder, sizes)
        tokens: list[FluxTokens] = [plan.inputs[text] for text in plan.texts]
        if encoder == "clip_l":
            return [run.call("encode", encoder, sizes, {"ids": t.clip.ids}, eos=int(t.clip.eos)) for t in tokens]
        states = [run.call("encode", encoder, sizes, {"ids": t.t5.ids})["text"] for t in tokens]
        return [{"text": weighted(text, t.weights)} for text, t in zip(states, tokens, strict=True)]

    def conditions(self, run: Run, plan: TextPlan, encoded: Encoding, which: Pass) -> Future[Conditions]:
        """The modulation of every level at once is computed where it was placed, unless it was for a picture lately."""
        sizes, number = run.sizes(which), run.settled.passes.index(which)
        levels, guidance = run.settled.evaluated(which), run.settled.guidance or 0.0
        key = (plan.texts, tuple(levels), guidance, plan.loras)

        def modulation(pooled: np.ndarray) -> np.ndarray:
            arrays = {"timesteps": np.array(levels, np.float32), "pooled": pooled}
            return run.call("encode", "modulation", sizes, arrays, guidance=guidance)["modulation"]

        def conditions(steering: np.ndarray) -> Conditions:
            text = np.stack([each["text"] for each in encoded["t5xxl"].result()])
            return Conditions({"modulation": steering, "text": text}, plan.positive[number], plan.negative[number])

        def task() -> Conditions:
            run.load("modulation", sizes)
            steering = np.stack([modulation(each["pooled"]) for each in encoded["clip_l"].result()])
            self._lately = latest([*self._lately.items(), (key, steering)], STEERING_BYTES)
            return conditions(steering)

        if key in self._lately and encoded["t5xxl"].done():
            return known(conditions(self._lately[key]))
        return run.submit("modulation", task)


class ClipTexts(TextStage):
    """Stable Diffusion's: the states of one or two CLIPs side by side, chunk after chunk, tokens weighted as the prompt
    says; for SDXL CLIP-G's pooled vector of the first chunk, with the picture's size, as well."""

    def plan(self, settled: Settled, tell: Listener) -> TextPlan:
        plan, tokenizer = texts_by_step(settled, tell), self.checked.clip_tokenizer
        names = [name for text in plan.texts for name in mentioned(text, tokenizer, self.files.embeddings)]
        vectors = {name: self.checked.embedding(name) for name in dict.fromkeys(names)}
        counts = {name: len(next(iter(rows.values()))) for name, rows in vectors.items()}
        cut = {text: chunks(text, tokenizer, counts) for text in plan.texts}
        tokens = math.lcm(*(len(parts) for parts in cut.values())) * LENGTH
        plan = replace(plan, tokens=tokens, inputs={"chunks": cut, "vectors": vectors})
        used = [identity([self.files.embeddings[name]]) for name in vectors]
        asked = [[text, settled.clip_skip, used] for text in plan.texts]
        return self.with_cached(plan, dict.fromkeys(self.files.family.text, asked))

    def encoder_sizes(self, run: Run, plan: TextPlan, encoder: str) -> dict[str, int]:
        return self.sizes(run.settled, encoder, bool(plan.inputs["vectors"]))

    def encode(self, run: Run, plan: TextPlan, encoder: str) -> list[Arrays]:
        sizes = self.encoder_sizes(run, plan, encoder)
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


def latest[K](found: Sequence[tuple[K, np.ndarray]], most_bytes: int) -> dict[K, np.ndarray]:
    """As many of the last as fit, the very last in any case."""
    totals = accumulate(array.nbytes for _, array in reversed(found))
    kept = max(1, sum(total <= most_bytes for total in totals))
    return dict(found[-kept:])


def joined(parts: Sequence[Arrays]) -> Arrays:
    """Chunks of one text as one: states one after another, the pooled vector of the first."""
    return dict(parts[0]) | {"hidden": np.concatenate([part["hidden"] for part in parts])}


def warn_if_cut(tokens: TokenIds, length: int, tell: Listener) -> None:
    """CLIP sees 77 tokens and gives one pooled vector, T5 carries the prompt: only what T5 loses is worth a word."""
    if tokens.cut:
        begin = tokens.cut if len(tokens.cut) <= CUT_SHOWN else tokens.cut[:CUT_SHOWN] + " ..."
        tell(Warned(f"the prompt has {tokens.count} tokens, {length - 1} fit; left out from here on: {begin!r}"))
