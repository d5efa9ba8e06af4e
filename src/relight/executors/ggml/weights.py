"""Weights on a ggml device: in the file's own format where the device computes with it, used in place on the CPU."""

from __future__ import annotations

import mmap
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from relight.errors import ModelFileError, OutOfDeviceMemory
from relight.executors.base import Progress, WeightSource
from relight.executors.ggml.api import USAGE_WEIGHTS, ffi
from relight.executors.ggml.devices import Device
from relight.executors.ggml.lowering import dimensions
from relight.executors.leaves import held_format, held_pieces, leaf_nbytes, wanted
from relight.executors.limit import MemoryLimit
from relight.graph import Graph, Tensor
from relight.weights.formats import FORMATS
from relight.weights.stored import Made, StoredTensor

CPU_ALIGNMENT = 32
UPLOAD_THREADS = 8


class GgmlWeights:
    """What the graphs use of one source on one device, by leaf key. `nbytes` counts what the device holds for them."""

    def __init__(
        self,
        device: Device,
        limit: MemoryLimit,
        graphs: tuple[Graph, ...],
        source: WeightSource,
        progress: Progress | None = None,
    ) -> None:
        self.device, self.base, self.limit = device, device.lib.base, limit
        self.nbytes = 0
        self.tensors: dict[object, Any] = {}
        self._buffers: list[Any] = []
        self._kept: list[Any] = []  # memory that ggml uses in place
        leaves = wanted(graphs, source)
        overhead = self.base.ggml_tensor_overhead() * (len(leaves) + 1)
        self._contexts = [self.base.ggml_init((overhead, ffi.NULL, True)) for _ in range(2)]
        try:
            uploads = self._place(leaves, source)
            self._allocate(self._contexts[1])
            self._upload(uploads, progress)
        except BaseException:
            self.close()
            raise

    def _place(
        self, leaves: dict[object, tuple[Tensor, str]], source: WeightSource
    ) -> list[tuple[Tensor, StoredTensor, str]]:
        """A tensor for each leaf; those that cannot be used where they lie are left to be copied."""
        mapped, copied = self._contexts
        uploads = []
        for key, (leaf, role) in leaves.items():
            stored, form = source[leaf.name], held_format(leaf, role)
            in_place = usable_in_place(self.device, leaf, stored, form)
            self.tensors[key] = placeholder(self.base, mapped if in_place else copied, leaf.shape, form)
            if in_place:
                self._use_in_place(self.tensors[key], stored)
            else:
                uploads.append((leaf, stored, form))
        return uploads

    def _use_in_place(self, tensor: Any, stored: StoredTensor) -> None:
        address = stored.parts[0].ctypes.data
        start = address // CPU_ALIGNMENT * CPU_ALIGNMENT  # of a buffer; tensors in it need not be aligned
        size = address - start + stored.nbytes
        buffer = self.base.ggml_backend_cpu_buffer_from_ptr(ffi.cast("void *", start), size)
        self.base.ggml_backend_tensor_alloc(buffer, tensor, ffi.cast("void *", address))
        self._buffers.append(buffer)
        self._kept.append(stored.parts[0])

    def _allocate(self, ctx: Any) -> None:
        buffer_type = self.device.buffer_type
        size = int(self.base.ggml_backend_alloc_ctx_tensors_from_buft_size(ctx, buffer_type))
        if size == 0:
            return
        self.limit.take(size, "weights")
        self.nbytes = size
        buffer = self.base.ggml_backend_alloc_ctx_tensors_from_buft(ctx, buffer_type)
        if buffer == ffi.NULL:
            free, total = self.device.memory()
            raise OutOfDeviceMemory(
                f"{self.device.name} refused {size / 2**30:.2f} GiB for weights ({free / 2**30:.2f} GiB of "
                f"{total / 2**30:.2f} GiB free); use a smaller quantisation or move a component to the cpu"
            )
        self.base.ggml_backend_buffer_set_usage(buffer, USAGE_WEIGHTS)
        self._buffers.append(buffer)

    def _upload(self, uploads: list[tuple[Tensor, StoredTensor, str]], progress: Progress | None) -> None:
        """Several leaves at a time: reading the file's pages takes longer than giving them to the device."""
        report = Tally(sum(leaf_nbytes(leaf, form) for leaf, _, form in uploads), progress)
        with ThreadPoolExecutor(UPLOAD_THREADS) as threads:
            tasks = [threads.submit(self._upload_leaf, *upload, report) for upload in uploads]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise

    def _upload_leaf(self, leaf: Tensor, stored: StoredTensor, form: str, report: Tally) -> None:
        tensor, offset = self.tensors[leaf.attrs["key"]], 0
        for piece in held_pieces(leaf, stored, form):
            whole = piece if piece.flags.owndata or not self.device.is_vulkan else piece.copy()  # reads the pages here
            self.base.ggml_backend_tensor_set(tensor, ffi.from_buffer(whole), offset, whole.nbytes)
            offset += whole.nbytes
            report.add(whole.nbytes)
        if offset != self.base.ggml_nbytes(tensor):
            raise ModelFileError(f"{leaf.name}: {offset} bytes in the file, {self.base.ggml_nbytes(tensor)} needed")
        forget(stored)

    def close(self) -> None:
        for buffer in self._buffers:
            self.base.ggml_backend_buffer_free(buffer)
        for ctx in self._contexts:
            self.base.ggml_free(ctx)
        self.limit.give_back(self.nbytes)
        self._buffers, self._contexts, self._kept, self.nbytes = [], [], [], 0
        self.tensors.clear()


class Tally:
    """Adds up what several threads have loaded."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self.progress, self.done = total, progress, 0
        self.lock = threading.Lock()

    def add(self, nbytes: int) -> None:
        with self.lock:
            self.done += nbytes
            if self.progress:
                self.progress(self.done, self.total)


def placeholder(base: Any, ctx: Any, shape: tuple[int, ...], form: str) -> Any:
    number = FORMATS[form].ggml_type
    assert number is not None, form
    return base.ggml_new_tensor_4d(ctx, number, *dimensions(shape))


def usable_in_place(device: Device, leaf: Tensor, stored: StoredTensor, form: str) -> bool:
    whole = leaf.attrs["rows"] is None and leaf.attrs["columns"] is None
    in_file = len(stored.parts) == 1 and not isinstance(stored.parts, Made)
    return not device.is_vulkan and whole and in_file and stored.format == form and stored.scale == 1.0


def forget(stored: StoredTensor) -> None:
    """The pages just read need not stay in this process; the file's cache keeps them while memory is to spare."""
    if not hasattr(mmap, "MADV_DONTNEED") or isinstance(stored.parts, Made):
        return
    for part in stored.parts:
        owner = part
        while isinstance(owner, np.ndarray) and owner.base is not None:
            owner = owner.base
        if isinstance(owner, memoryview):
            owner = owner.obj
        if isinstance(owner, mmap.mmap):
            first = part.ctypes.data - np.frombuffer(owner, np.uint8, 1).ctypes.data
            start = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
            length = (first + part.nbytes - start) // mmap.PAGESIZE * mmap.PAGESIZE
            if length > 0:
                owner.madvise(mmap.MADV_DONTNEED, start, length)
