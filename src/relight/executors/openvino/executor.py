"""OpenVINO's CPU device behind the seam: a graph is checked, cut into segments, and each segment compiled or found."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from relight.errors import UnsupportedOp
from relight.executors.base import CompileOptions, MemoryUse, Progress, WeightSource, loaded_sets
from relight.executors.cores import physical_cores
from relight.executors.openvino import tables
from relight.executors.openvino.cache import ModelCache, default_folder
from relight.executors.openvino.device import core, description, elements, settings
from relight.executors.openvino.forms import Precision, Use, uses
from relight.executors.openvino.lowering import OPS
from relight.executors.openvino.memory import check_room, measure
from relight.executors.openvino.model import SegmentModel
from relight.executors.openvino.program import OpenvinoProgram, Step, weight_tensors
from relight.executors.openvino.segments import cut
from relight.executors.openvino.weights import OpenvinoWeights, WeightSets, load
from relight.graph import Graph, Tensor
from relight.weights.formats import FORMATS

log = logging.getLogger("relight.executors.openvino")

SEGMENT_BYTES = 256 << 20
SMALLER: tuple[Precision, ...] = ("bf16", "int8", "int4")


class OpenvinoExecutor:
    """Not for use by two threads at once.

    `cache_dir` holds compiled models that have constants (networks with convolutions). `segment_bytes` bounds the
    weights of one compiled model, and with them what compiling takes for a moment and unpacking at each run.
    """

    name = "openvino"

    def __init__(
        self, threads: int | None = None, cache_dir: Path | None = None, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self.threads = threads or physical_cores()
        self.cache = ModelCache(cache_dir or default_folder())
        self.segment_bytes = segment_bytes

    def why_not(self, node: Tensor) -> str | None:
        if node.op == "weight":
            return None if node.dtype in FORMATS else f"weights in {node.dtype} cannot be read"
        if node.op in ("rope", "timestep_embedding"):
            return tables.why_not(node)
        return None if node.op in OPS or node.op == "input" else f"{node.op} has no counterpart in OpenVINO"

    def measure(self, graph: Graph, options: CompileOptions) -> MemoryUse:
        return measure(graph, self._segments(graph, options), elements(graph, options))

    def load(
        self, graphs: tuple[Graph, ...], source: WeightSource, progress: Progress | None = None
    ) -> OpenvinoWeights:
        """Reads the file's pages; weights are packed when a program first says into which form."""
        return load(graphs, source, self.threads, progress)

    def compile(
        self, graph: Graph, weights: OpenvinoWeights | Sequence[OpenvinoWeights], options: CompileOptions
    ) -> OpenvinoProgram:
        self._check_ops(graph)
        loaded = WeightSets.of(graph, loaded_sets(weights))
        models = self._segments(graph, options)
        memory = measure(graph, models, elements(graph, options))
        check_room(memory, loaded.private_nbytes, lambda: self._alternatives(graph, options))
        requests: dict[str, Any] = {}
        blobs: list[np.ndarray] = []
        steps = []
        for model in models:
            signature = model.signature
            if signature not in requests:
                requests[signature] = self._compiled(model, loaded, blobs).create_infer_request()
            steps.append(Step(requests[signature], model, weight_tensors(model, loaded)))
        held = blobs + [array for model in models for use in model.weights for array in loaded.already_packed(use)]
        return OpenvinoProgram(graph, memory, steps, loaded.stored, held)

    def close(self) -> None:
        pass

    def _segments(self, graph: Graph, options: CompileOptions) -> list[SegmentModel]:
        chosen = elements(graph, options)
        found = {(node.serial, number): use for node, number, use in uses(graph, options.precision)}
        segments = cut(graph, _node_bytes(found), self.segment_bytes)
        return [SegmentModel(segment, found, chosen) for segment in segments]

    def _check_ops(self, graph: Graph) -> None:
        for node in graph.nodes:
            if reason := self.why_not(node):
                raise UnsupportedOp(f"openvino cannot run {node}: {reason}")
        for name, node in graph.outputs.items():
            if node.op == "weight":
                raise UnsupportedOp(f"openvino gives results only, and output {name} is the weight {node.name}")

    def _alternatives(self, graph: Graph, options: CompileOptions) -> dict[str, MemoryUse]:
        """What the graph would take in each precision that this CPU has."""
        needs: dict[str, MemoryUse] = {}
        for precision in SMALLER:
            with suppress(UnsupportedOp):
                needs[precision] = self.measure(graph, replace(options, precision=precision))
        return needs

    def _compiled(self, model: SegmentModel, weights: WeightSets, blobs: list[np.ndarray]) -> Any:
        """From the cache where the model has constants and was compiled before. Others compile as fast as they load."""
        start = time.perf_counter()
        key = self._cache_key(model, weights)
        compiled = None if key is None else self._import(key, blobs)
        if compiled is None:
            compiled = core().compile_model(model.build(weights), "CPU", settings(self.threads))
            if key is not None:
                self.cache.store(key, compiled.export_model().getbuffer())
        log.debug("%d operations ready in %.2f s", len(model.segment.nodes), time.perf_counter() - start)
        return compiled

    def _cache_key(self, model: SegmentModel, weights: WeightSets) -> str | None:
        """Hash of structure, device and the files that the constants come from; None without constants or files."""
        files = []
        for use in model.constants:
            stored = weights.stored[use.leaf.attrs["key"]][1]
            if not stored.path.is_file():
                return None
            status = stored.path.stat()
            files.append((stored.path.resolve(), status.st_size, status.st_mtime_ns))
        if not files:
            return None
        whole = repr((model.signature, sorted(set(files)), description(), self.threads))
        return hashlib.sha256(whole.encode()).hexdigest()

    def _import(self, key: str, blobs: list[np.ndarray]) -> Any:
        """The constants of an imported model stay in its file: the blob is mapped, and must be held while it lives."""
        path = self.cache.find(key)
        if path is None:
            return None
        blob = np.memmap(path, np.uint8, "c")
        try:
            compiled = core().import_model(ov.Tensor(blob, shared_memory=True), "CPU", settings(self.threads))
        except RuntimeError as error:
            log.warning("compiled model %s is of no use, compiling again: %s", path, error)
            self.cache.discard(path)
            return None
        blobs.append(blob)
        return compiled


def _node_bytes(found: Mapping[tuple[int, int], Use]) -> dict[int, int]:
    """Bytes of each node's fed weights by serial; packed ones as if of two bytes, as they are unpacked."""
    sizes: dict[int, int] = {}
    for (serial, _), use in found.items():
        if use.role != "constant":
            sizes[serial] = sizes.get(serial, 0) + max(use.nbytes, 2 * use.leaf.size)
    return sizes
