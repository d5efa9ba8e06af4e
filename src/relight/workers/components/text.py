"""Text encoders: CLIP in its three sizes, one chunk of 77 tokens at a time, and T5."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

import numpy as np

from relight.graph import Graph
from relight.models import clip, t5
from relight.workers.components.base import Arrays, Component, Sizes, StepDone, Values

VECTORS = "vectors_"


class ClipText(Component):
    """Sizes say what is wanted: `hidden` at clip skip `skip`, with the final norm where `final_norm` is 1; `pooled`;
    `replaced` for prompts with textual inversions."""

    stage: ClassVar[str] = "encode"

    @property
    def config(self) -> clip.ClipConfig:
        return clip.ClipConfig.from_weights(self.base, self.kind)

    def graph(self, sizes: Sizes) -> Graph:
        config = self.config
        return clip.record(
            self.w,
            config,
            skip=config.skip(sizes.get("skip", 1)),
            final_norm=bool(sizes.get("final_norm", 1)),
            hidden=bool(sizes.get("hidden", 0)),
            pooled=bool(sizes.get("pooled", 1)),
            replaced=bool(sizes.get("replaced", 0)),
        )

    def shape_key(self, sizes: Sizes) -> Hashable:
        return tuple(sizes.get(name) for name in ("skip", "final_norm", "hidden", "pooled", "replaced"))

    def run(self, sizes: Sizes, arrays: Arrays, values: Values, step_done: StepDone) -> dict[str, np.ndarray]:
        """`ids` [77], `eos`, and `vectors_N` [n D] that stand for the tokens from N on -> `hidden`, `pooled`."""
        pooled, replaced = sizes.get("pooled", 1), sizes.get("replaced", 0)
        vectors = {int(name.removeprefix(VECTORS)): rows for name, rows in arrays.items() if name.startswith(VECTORS)}
        inputs = clip.host_inputs(
            self.config, arrays["ids"], values["eos"] if pooled else None, vectors if replaced else None
        )
        return self.program(sizes).run(inputs)


class T5Text(Component):
    stage: ClassVar[str] = "encode"

    def graph(self, sizes: Sizes) -> Graph:
        return t5.record(self.w, t5.T5Config.from_weights(self.base), sizes["text_tokens"])

    def shape_key(self, sizes: Sizes) -> Hashable:
        return sizes["text_tokens"]

    def run(self, sizes: Sizes, arrays: Arrays, values: Values, step_done: StepDone) -> dict[str, np.ndarray]:
        """`ids` [T] -> `text` [T 4096]."""
        return self.program(sizes).run(t5.host_inputs(t5.T5Config.from_weights(self.base), arrays["ids"]))
