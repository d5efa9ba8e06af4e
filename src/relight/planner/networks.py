"""The networks of a model, recorded at any size without a device: their graphs, bytes and seconds by the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from relight.executors.base import CompileOptions, MemoryUse
from relight.executors.choices import UNKNOWN_CORES
from relight.executors.leaves import held_format, leaf_nbytes, roles
from relight.executors.null import NullExecutor
from relight.graph import Graph
from relight.jobs.families import OPTIONAL
from relight.jobs.request import ModelFiles
from relight.planner.cost import Cost, Lowering, cost, largest_tensor
from relight.planner.rates import Rates
from relight.weights.stored import Made
from relight.workers.components import NETWORKS
from relight.workers.components.base import Component, Opening
from relight.workers.components.place import Place

Sizes = Mapping[str, int]
CPU_ALIGNMENT = 32


def padded(nbytes: int) -> int:
    return -(-nbytes // CPU_ALIGNMENT) * CPU_ALIGNMENT


class Networks(AbstractContextManager["Networks"]):
    """Opens files when they are first asked about. `cores` are those of the GPU. Not for use by two threads at once."""

    def __init__(self, files: ModelFiles, cores: int = UNKNOWN_CORES) -> None:
        self.files, self.cores = files, cores
        self._components: dict[str, Component] = {}
        self._graphs: dict[object, Graph] = {}
        self._measured: dict[object, MemoryUse] = {}
        self._costs: dict[object, Cost] = {}
        self._largest: dict[object, int] = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for component in self._components.values():
            component.close()
        self._components.clear()

    def component(self, name: str) -> Component:
        if name not in self._components:
            described = self.files.family.components.get(name) or OPTIONAL[name]
            opening = Opening(name, described.kind, self.files.of(name))
            self._components[name] = NETWORKS[described.network](opening, Place(NullExecutor("vulkan0")))
        return self._components[name]

    def shape(self, name: str, sizes: Sizes) -> str:
        """What a graph depends on, in a word: the same for sizes that have one graph."""
        return repr(self.component(name).shape_key(sizes))

    def graph(self, name: str, sizes: Sizes) -> Graph:
        key = name, self.shape(name, sizes)
        if key not in self._graphs:
            self._graphs[key] = self.component(name).graph(sizes)
        return self._graphs[key]

    def parameters(self, name: str) -> int:
        stored = self.component(name).checkpoint
        return sum(math.prod(stored.shape(tensor)) for tensor in stored)

    def paths(self, name: str) -> tuple[Path, ...]:
        return self.files.of(name)

    def format(self, name: str) -> str:
        """That most of its parameters are in."""
        stored = self.component(name).checkpoint
        counts: dict[str, int] = {}
        for tensor in stored:
            counts[stored.format(tensor)] = counts.get(stored.format(tensor), 0) + math.prod(stored.shape(tensor))
        return max(counts, key=lambda form: counts[form])

    def measure(self, name: str, executor: str, sizes: Sizes, options: CompileOptions) -> MemoryUse:
        """As ggml's allocator would have it, or as OpenVINO's own count says."""
        key = name, executor, self.shape(name, sizes), options
        if key not in self._measured:
            graph = self.graph(name, sizes)
            if executor == "openvino":
                from relight.executors.openvino import OpenvinoExecutor

                self._measured[key] = OpenvinoExecutor().measure(graph, options)
            else:
                self._measured[key] = NullExecutor(executor, cores=self.cores).measure(graph, options)
        return self._measured[key]

    def copied(self, name: str, sizes: Sizes) -> int:
        """Bytes of weights that ggml on the CPU holds besides the mapped file: those it must convert or reorder."""
        stored = self.component(name).checkpoint
        total = 0
        for leaf, role in roles((self.graph(name, sizes),)).values():
            form = held_format(leaf, role)
            there = stored[leaf.name] if leaf.name in stored else None
            whole = leaf.attrs["rows"] is None and leaf.attrs["columns"] is None
            plain = there is not None and len(there.parts) == 1 and not isinstance(there.parts, Made)
            if not (whole and plain and there is not None and there.format == form and there.scale == 1.0):
                total += padded(leaf_nbytes(leaf, form))
        return total

    def way(self, name: str, executor: str, sizes: Sizes, options: CompileOptions) -> tuple[frozenset[bool], ...]:
        """How ggml computes attention and convolutions under these options."""
        nodes, lowering = self.graph(name, sizes).nodes, self._lowering(executor, options)
        flash = frozenset(lowering.flash(node) for node in nodes if node.op == "attention")
        return flash, frozenset(lowering.direct(node) for node in nodes if node.op == "conv2d")

    def _lowering(self, executor: str, options: CompileOptions) -> Lowering:
        return Lowering(options, executor.startswith("vulkan"), self.cores)

    def largest(self, name: str, sizes: Sizes, options: CompileOptions) -> int:
        """Bytes of its largest tensor on a GPU."""
        key = name, self.shape(name, sizes), options
        if key not in self._largest:
            self._largest[key] = largest_tensor(self.graph(name, sizes), self._lowering("vulkan0", options))
        return self._largest[key]

    def cost(self, name: str, executor: str, rates: Rates, sizes: Sizes, options: CompileOptions) -> Cost:
        """Of one run of its graph."""
        key = name, executor, self.shape(name, sizes), options, rates.source
        if key not in self._costs:
            self._costs[key] = cost(self.graph(name, sizes), rates, self._lowering(executor, options))
        return self._costs[key]
