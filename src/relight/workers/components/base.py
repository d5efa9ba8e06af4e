"""What every network of a model can do on its executor: be measured, loaded, compiled, run and let go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from relight.errors import OutOfDeviceMemory
from relight.executors.base import CompileOptions, LoadedWeights, MemoryUse, Program, Progress
from relight.graph import Graph, Weights
from relight.weights.checkpoint import Checkpoint, open_component
from relight.weights.lora import Adapters, combine, open_lora
from relight.workers.components.place import Place

Sizes = Mapping[str, int]
"""What a picture asks of a component: `text_tokens`, `latent_height`, `latent_width`, `batch`, `tile` ..."""
Arrays = Mapping[str, np.ndarray]
Values = Mapping[str, Any]


class StepDone(Protocol):
    """Called after each step or tile; may raise JobCancelled to stop the work there."""

    def __call__(self, done: int, total: int, seconds: float = 0.0, arrays: Arrays | None = None, /) -> None: ...


@dataclass(frozen=True)
class Opening:
    """What a component is made of: `kind` of network in `paths`, and the files of networks recorded into its graph."""

    name: str
    kind: str
    paths: tuple[Path, ...]
    options: CompileOptions = CompileOptions()
    extras: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)


class Component(ABC):
    """One network of a checkpoint. Loading and compiling are separate from running, and can be measured before."""

    stage: ClassVar[str]
    """What its progress is called."""

    def __init__(self, opening: Opening, place: Place) -> None:
        self.name, self.kind, self.place, self.options = opening.name, opening.kind, place, opening.options
        self.checkpoint: Checkpoint = open_component(opening.kind, opening.paths)
        self.base = Weights(self.checkpoint)
        self.adapters: Adapters | None = None
        self.adapted_by: Hashable = ()
        self.weights: LoadedWeights | None = None
        self.adapter_weights: LoadedWeights | None = None
        self.buffer_bytes = 0

    @property
    def w(self) -> Weights:
        """The weights with the LoRA set of the moment."""
        return self.base.with_adapters(self.adapters) if self.adapters else self.base

    @abstractmethod
    def graph(self, sizes: Sizes) -> Graph:
        """The graph for one picture of these sizes."""

    @abstractmethod
    def run(self, sizes: Sizes, arrays: Arrays, values: Values, step_done: StepDone) -> dict[str, np.ndarray]:
        """What the component is for."""

    def shape_key(self, sizes: Sizes) -> Hashable:
        """Sizes that need graphs of their own have keys of their own."""
        return tuple(sorted(sizes.items()))

    def adapt(self, loras: Sequence[tuple[str, float]]) -> list[str]:
        """Put this set of (path, weight) beside the weights, which stay loaded; the names that fit nothing here.

        Raises ModelFileError for a file that is no LoRA of this model."""
        wanted = tuple(loras)
        if wanted == self.adapted_by:
            return []
        self.place.drop(self.name)
        if self.adapter_weights is not None:
            self.adapter_weights.close()
        self.adapters, self.adapter_weights, self.adapted_by = None, None, ()
        found = combine([(open_lora(Path(path)), weight) for path, weight in wanted], self.kind, self.checkpoint)
        self.adapters, self.adapted_by = (found if len(found) else None), wanted
        return list(found.unmatched)

    def measure(self, sizes: Sizes) -> MemoryUse:
        return self.place.executor.measure(self.graph(sizes), self.options)

    def load(self, sizes: Sizes, progress: Progress | None = None) -> None:
        """Bring the weights to the device; once, and those of a LoRA set once for the set."""
        with self._memory_explained():
            if self.weights is None:
                self.weights = self.place.executor.load((self.graph(sizes),), self.checkpoint, progress)
            if self.adapters is not None and self.adapter_weights is None:
                self.adapter_weights = self.place.executor.load((self.graph(sizes),), self.adapters)

    def loaded(self) -> list[LoadedWeights]:
        """Everything a program is compiled over."""
        return [weights for weights in (self.weights, self.adapter_weights) if weights is not None]

    def program(self, sizes: Sizes) -> Program:
        """The compiled graph for these sizes; compiled now if it is not there yet."""
        self.load(sizes)

        def compile_it() -> Program:
            with self._memory_explained():
                return self.place.executor.compile(self.graph(sizes), self.loaded(), self.options)

        program = self.place.program(self.name, (self.shape_key(sizes), self.adapted_by), compile_it)
        self.buffer_bytes = program.memory.compute
        return program

    @contextmanager
    def _memory_explained(self) -> Iterator[None]:
        """A refusal names the component and what may help."""
        executor = self.place.executor.name
        try:
            yield
        except OutOfDeviceMemory as error:
            raise OutOfDeviceMemory(f"{self.name}: {error}; {way_out(self.name, executor)}") from error

    def report(self) -> dict[str, Any]:
        return {
            "executor": self.place.executor.name,
            "weight_bytes": sum(weights.nbytes for weights in self.loaded()),
            "buffer_bytes": self.buffer_bytes,
        }

    def close(self) -> None:
        self.place.release()
        for weights in self.loaded():
            weights.close()
        self.weights = self.adapter_weights = None
        self.checkpoint.close()


def way_out(component: str, executor: str) -> str:
    if executor.startswith("vulkan"):
        return f"try --backend {component}=cpu, a smaller picture or a smaller quantisation"
    return "take a smaller file of it (Q8_0, Q4_K) or a smaller picture, or close other programs"
