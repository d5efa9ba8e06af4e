"""Compiles a recorded graph for one ggml device and runs it. Sizes are known, and refusals made, before that."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from relight.errors import DeviceLost, ExecutorError, OutOfDeviceMemory, UnsupportedOp
from relight.executors.base import CompileOptions, MemoryUse, Progress, WeightSource, check_inputs, loaded_sets
from relight.executors.cores import physical_cores
from relight.executors.ggml.api import NO_MEMORY, STATUS, ffi, text
from relight.executors.ggml.devices import Device, find_device
from relight.executors.ggml.lowering import DTYPES, OPS, Lowering, dimensions, node_bound
from relight.executors.ggml.weights import GgmlWeights, placeholder
from relight.executors.leaves import held_format, joined, roles
from relight.executors.limit import GIB, MemoryLimit
from relight.graph import Graph, Tensor

ELSEWHERE = 0x1000  # stands for the address of a tensor that already has memory, while sizes are measured


class GgmlExecutor:
    """`name` is `ggml-cpu` or `vulkan0`; `limit_bytes` a hard limit on what is allocated on the device."""

    def __init__(self, name: str = "ggml-cpu", *, threads: int | None = None, limit_bytes: int | None = None) -> None:
        self.device: Device = find_device(name)
        self.name = name
        self.limit = MemoryLimit(name, limit_bytes)
        self.base = self.device.lib.base
        self.threads = threads or physical_cores()
        self.base.ggml_backend_free(self.open_stream())  # a device that cannot be opened is found here

    def open_stream(self) -> Any:
        """A ggml backend: a queue of work with scratch memory of its own, which goes when the stream is freed."""
        stream = self.base.ggml_backend_dev_init(self.device.handle, ffi.NULL)
        if stream == ffi.NULL:
            raise ExecutorError(f"{self.name} ({self.device.description}) could not be opened by its driver")
        if not self.device.is_vulkan:
            registry = self.base.ggml_backend_dev_backend_reg(self.device.handle)
            address = self.base.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_set_n_threads")
            ffi.cast("void (*)(ggml_backend_t, int)", address)(stream, self.threads)
        return stream

    def why_not(self, node: Tensor) -> str | None:
        return None if node.op in (*OPS, "input", "weight") else f"{self.name} has no {node.op}"

    def measure(self, graph: Graph, options: CompileOptions) -> MemoryUse:
        """Exactly what a program takes beside its weights. Raises UnsupportedOp."""
        for node in graph.nodes:
            if (reason := self.why_not(node)) is not None:
                raise UnsupportedOp(reason)
        build = Build(self.device, graph, options, self._measured_weights(graph))
        try:
            size = ffi.new("size_t *")
            allocator = self.base.ggml_gallocr_new(self.device.buffer_type)
            self.base.ggml_gallocr_reserve_n_size(allocator, build.graph, ffi.NULL, ffi.NULL, size)
            self.base.ggml_gallocr_free(allocator)
            return MemoryUse(self.measure_weights((graph,)), int(size[0]) + build.static_bytes())
        finally:
            build.close()

    def measure_weights(self, graphs: tuple[Graph, ...]) -> int:
        """Bytes the weights of these graphs take on the device if none is used in place."""
        leaves = roles(graphs)
        ctx = self.base.ggml_init((self.base.ggml_tensor_overhead() * (len(leaves) + 1), ffi.NULL, True))
        for leaf, role in leaves.values():
            placeholder(self.base, ctx, leaf.shape, held_format(leaf, role))
        size = int(self.base.ggml_backend_alloc_ctx_tensors_from_buft_size(ctx, self.device.buffer_type))
        self.base.ggml_free(ctx)
        return size

    def _measured_weights(self, graph: Graph) -> Callable[[Any, Tensor], Any]:
        known = roles((graph,))

        def weight(ctx: Any, leaf: Tensor) -> Any:
            tensor = placeholder(self.base, ctx, leaf.shape, held_format(leaf, known[leaf.attrs["key"]][1]))
            tensor.data = ffi.cast("void *", ELSEWHERE)
            return tensor

        return weight

    def load(self, graphs: tuple[Graph, ...], source: WeightSource, progress: Progress | None = None) -> GgmlWeights:
        return GgmlWeights(self.device, self.limit, graphs, source, progress)

    def compile(
        self, graph: Graph, weights: GgmlWeights | Sequence[GgmlWeights], options: CompileOptions
    ) -> GgmlProgram:
        return GgmlProgram(self, graph, loaded_sets(weights), options)

    def close(self) -> None:
        pass


class Build:
    """A ggml graph built from a recorded one, with no memory yet: contexts for static tensors and for nodes."""

    def __init__(
        self, device: Device, graph: Graph, options: CompileOptions, weight: Callable[[Any, Tensor], Any]
    ) -> None:
        self.device, self.base = device, device.lib.base
        room, overhead = node_bound(graph, options), self.base.ggml_tensor_overhead()
        self.static = self.base.ggml_init((overhead * len(graph.nodes), ffi.NULL, True))
        graph_bytes = self.base.ggml_graph_overhead_custom(room, False)
        self.ctx = self.base.ggml_init((overhead * room + graph_bytes, ffi.NULL, True))
        self.graph = self.base.ggml_new_graph_custom(self.ctx, room, False)
        self.inputs: dict[str, Any] = {}
        self.lowering = Lowering(device, self.ctx, options, self._static_leaf)
        try:
            self.outputs = self._lower(graph, weight)
        except BaseException:
            self.close()
            raise

    def _lower(self, graph: Graph, weight: Callable[[Any, Tensor], Any]) -> dict[str, Any]:
        """The graph's outputs, by name."""
        values: dict[int, Any] = {}
        for node in graph.nodes:
            if node.op == "input":
                values[node.serial] = self.inputs[node.name] = self._static_leaf(node)
            elif node.op == "weight":
                values[node.serial] = weight(self.ctx, node)
            else:
                value = self.lowering.lower(node, [values[source.serial] for source in node.inputs])
                self._check_shape(node, value)
                values[node.serial] = value
                self.base.ggml_build_forward_expand(self.graph, value)  # in recorded order, which keeps the peak low
        return {name: self._output(values[node.serial]) for name, node in graph.outputs.items()}

    @property
    def constants(self) -> list[tuple[Any, np.ndarray]]:
        return self.lowering.constants

    def _static_leaf(self, node: Tensor) -> Any:
        """Inputs and constants live in memory of their own: ggml works in place, and would overwrite them."""
        tensor = self.base.ggml_new_tensor_4d(self.static, DTYPES[node.dtype], *dimensions(node.shape))
        tensor.data = ffi.cast("void *", ELSEWHERE)
        return tensor

    def _output(self, value: Any) -> Any:
        """Kept to the end of the run; ggml sees to it that so is the memory it is a view of."""
        output = self.lowering.solid(value)
        self.base.ggml_set_output(output)
        self.base.ggml_build_forward_expand(self.graph, output)
        return output

    def _check_shape(self, node: Tensor, value: Any) -> None:
        assert list(value.ne) == dimensions(node.shape), f"{node} was lowered to {list(value.ne)}"

    def static_bytes(self) -> int:
        for tensor in self._static_tensors():
            tensor.data = ffi.NULL
        return int(self.base.ggml_backend_alloc_ctx_tensors_from_buft_size(self.static, self.device.buffer_type))

    def _static_tensors(self) -> list[Any]:
        return [*self.inputs.values(), *(tensor for tensor, _ in self.constants)]

    def close(self) -> None:
        self.base.ggml_free(self.ctx)
        self.base.ggml_free(self.static)


class GgmlProgram:
    """One graph, built and allocated once and run for every step. `seconds` is the time of the last run."""

    def __init__(
        self, executor: GgmlExecutor, graph: Graph, weights: Sequence[GgmlWeights], options: CompileOptions
    ) -> None:
        tensors = joined(graph, [loaded.tensors for loaded in weights])
        self.executor, self.base, self.device = executor, executor.base, executor.device
        self.recorded = graph
        self.seconds = 0.0
        self.memory = executor.measure(graph, options)
        self._stream: Any = ffi.NULL  # one for each program: lavapipe corrupts its heap when a stream outlives buffers
        self._static_buffer: Any = ffi.NULL
        self._allocator: Any = ffi.NULL
        executor.limit.take(self.memory.compute, "the compute buffer")
        self._taken = self.memory.compute
        self._build: Build | None = None
        try:
            self._build = Build(self.device, graph, options, lambda ctx, leaf: tensors[leaf.attrs["key"]])
            self._check_supported(self._build)
            self._stream = executor.open_stream()
            self._allocate(self._build)
        except BaseException:
            self.close()
            raise

    def _check_supported(self, build: Build) -> None:
        """Vulkan skips an operation it does not know and reports success, so each is asked for before the first run."""
        if not self.device.is_vulkan:
            return
        for i in range(self.base.ggml_graph_n_nodes(build.graph)):
            node = self.base.ggml_graph_node(build.graph, i)
            if not self.base.ggml_backend_dev_supports_op(self.device.handle, node):
                op = text(self.base.ggml_op_desc(node))
                raise UnsupportedOp(
                    f"{self.device.name} cannot compute {op} of shape {list(node.ne)} "
                    f"({self.base.ggml_nbytes(node) / 2**20:.0f} MiB); use smaller tiles or another device for it"
                )

    def _allocate(self, build: Build) -> None:
        static_bytes = build.static_bytes()
        self._static_buffer = self.base.ggml_backend_alloc_ctx_tensors_from_buft(build.static, self.device.buffer_type)
        if self._static_buffer == ffi.NULL:
            self._refused(static_bytes)
        for tensor, array in build.constants:
            self.base.ggml_backend_tensor_set(tensor, ffi.from_buffer(array), 0, array.nbytes)
        self._allocator = self.base.ggml_gallocr_new(self.device.buffer_type)
        if not self.base.ggml_gallocr_alloc_graph(self._allocator, build.graph):
            self._refused(self.memory.compute)

    def _refused(self, nbytes: int) -> None:
        free, total = self.device.memory()
        raise OutOfDeviceMemory(
            f"{self.device.name} refused a compute buffer of {nbytes / GIB:.2f} GiB "
            f"({free / GIB:.2f} GiB of {total / GIB:.2f} GiB free)"
        )

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert self._build is not None, "the program is closed"
        for name, array in check_inputs(self.recorded, inputs).items():
            self.base.ggml_backend_tensor_set(self._build.inputs[name], ffi.from_buffer(array), 0, array.nbytes)
        started = time.perf_counter()
        status = self.base.ggml_backend_graph_compute(self._stream, self._build.graph)
        self.seconds = time.perf_counter() - started
        if status == NO_MEMORY:
            raise OutOfDeviceMemory(f"{self.device.name} had no memory left to compute with")
        if status != 0:
            raise DeviceLost(f"{self.device.name}: computing failed ({STATUS.get(status, status)})")
        results = {}
        for name, tensor in self._build.outputs.items():
            result = np.empty(self.recorded.outputs[name].shape, np.float32)
            self.base.ggml_backend_tensor_get(tensor, ffi.from_buffer(result), 0, result.nbytes)
            results[name] = result
        return results

    def close(self) -> None:
        if self._stream != ffi.NULL:
            self.base.ggml_backend_free(self._stream)
        if self._allocator != ffi.NULL:
            self.base.ggml_gallocr_free(self._allocator)
        if self._static_buffer != ffi.NULL:
            self.base.ggml_backend_buffer_free(self._static_buffer)
        if self._build is not None:
            self._build.close()
        self.executor.limit.give_back(self._taken)
        self._stream = self._allocator = self._static_buffer = ffi.NULL
        self._build, self._taken = None, 0
