"""The worker's main: answers calls until its parent goes. Run as `python -m relight.workers.child`."""

from __future__ import annotations

import logging
import os
import queue
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil

from relight.errors import ConfigError, ExecutorError, JobCancelled
from relight.executors.base import CompileOptions, Executor
from relight.graph import Graph, input_tensor
from relight.planner.profiles import submission_environment
from relight.workers.components import NETWORKS
from relight.workers.components.base import Component, Opening
from relight.workers.components.place import Place
from relight.workers.parent import failure, listen, pipes
from relight.workers.protocol import Message, send
from relight.workers.ram import available_ram
from relight.workers.shared import Both

log = logging.getLogger("relight.workers.child")

BF16_BYTES = 2.5  # a weight, with what a run needs besides

LOAD_REPORTS = 200
CHECKED = 64
"""Rows and columns of the sum by which a device is checked."""
Answer = tuple[dict[str, Any], dict[str, np.ndarray]]


class Child:
    """Calls run one at a time on the main thread; another thread reads the pipe, so that a cancel is seen at once.
    Arrays of a call in shared memory are used where they lie, and are gone with the next call."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO, shared: Both | None = None) -> None:
        self.incoming, self.outgoing = incoming, outgoing
        self.shared = shared
        self.calls: queue.Queue[Message] = queue.Queue()
        self.cancelled: set[int] = set()  # numbers of calls that nobody wants any more, the next ones among them
        self.current = 0
        self.places: dict[str, Place] = {}
        self.components: dict[str, Component] = {}

    def serve(self) -> None:
        listen(self.incoming, self.calls.put, self.cancel, self.shared and self.shared.incoming)
        send(self.outgoing, Message("ready"))
        while True:
            call = self.calls.get()
            self.current = call.call
            try:
                values, arrays = getattr(self, "on_" + call.values["method"])(call)
                answer = Message("result", call.call, values, arrays)
            except Exception as error:
                log.debug("call failed", exc_info=True)
                answer = failure(call.call, error)
            self.cancelled.discard(call.call)
            send(self.outgoing, answer, self.shared and self.shared.outgoing)

    def cancel(self, number: int) -> None:
        """The call stops at its next report, also where it has not begun; nothing for one that has ended."""
        if number >= self.current:
            self.cancelled.add(number)

    def progress(self, stage: str, reports: int | None = None) -> Callable[..., None]:
        """A callback that tells the parent how far the call is, `reports` times at most where that is given. It raises
        JobCancelled when the parent wants no more."""
        last = -1

        def report(done: int, total: int, seconds: float = 0.0, arrays: Mapping[str, np.ndarray] | None = None) -> None:
            nonlocal last
            if self.current in self.cancelled:
                raise JobCancelled(f"stopped at {done} of {total} ({stage})")
            if reports is None or done == total or done * reports // total != last:
                last = done * (reports or 0) // total
                values = {"stage": stage, "done": done, "total": total, "seconds": seconds}
                send(self.outgoing, Message("event", self.current, values, dict(arrays or {})))

        return report

    def place(self, executor: str) -> Place:
        if executor not in self.places:
            raise ConfigError(f"executor {executor} was not opened in this worker")
        return self.places[executor]

    def on_devices(self, call: Message) -> Answer:
        """Every device ggml sees, with what is known of it."""
        from relight.executors.ggml.devices import list_devices
        from relight.executors.ggml.library import load

        found = []
        devices = list_devices()
        for name, value in submission_environment(device.description for device in devices).items():
            os.environ.setdefault(name, value)
        for device in devices:
            free, total = device.memory()
            found.append(
                {
                    "name": device.name,
                    "description": device.description,
                    "type": "gpu" if not device.is_software else "software" if device.is_vulkan else "cpu",
                    "memory_total": total,
                    "memory_free": free,
                    "max_buffer_bytes": device.max_buffer_bytes if device.is_vulkan else None,
                    "alignment": device.alignment,
                    "features": device.features,
                }
            )
        lib = load()
        return {"devices": found, "ggml": lib.version, "log": list(lib.lines)[-20:]}, {}

    def on_check(self, call: Message) -> Answer:
        """A small sum on an executor, compared with NumPy's. Raises ExecutorError where the device computes wrongly."""
        name = call.values["executor"]
        if name not in self.places:
            self.places[name] = Place(make_executor(name, 1, None))
        check_device(self.places[name].executor)
        return {}, {}

    def on_open_executor(self, call: Message) -> Answer:
        """Make an executor ready: `executor`, `threads`, `limit_bytes`, `keep_programs`."""
        name = call.values["executor"]
        executor = make_executor(name, call.values.get("threads"), call.values.get("limit_bytes"))
        self.places[name] = Place(executor)
        return {}, {}

    def on_text_executor(self, call: Message) -> Answer:
        """The faster CPU executor for a text encoder of `parameters` weights."""
        return {"executor": text_executor(call.values["parameters"])}, {}

    def on_keep_programs(self, call: Message) -> Answer:
        self.place(call.values["executor"]).keep_programs = call.values["keep"]
        return {}, {}

    def on_open(self, call: Message) -> Answer:
        """Open a component's files on an executor; nothing is loaded yet. A component already open is closed first."""
        v = call.values
        name = v["component"]
        if name in self.components:
            self.components.pop(name).close()
        extras = {extra: tuple(map(Path, paths)) for extra, paths in v.get("extras", {}).items()}
        paths, options = tuple(map(Path, v["paths"])), CompileOptions(**v["options"])
        opening = Opening(name, v["kind"], paths, options, extras)
        self.components[name] = NETWORKS[v["network"]](opening, self.place(v["executor"]))
        return {"file_bytes": self.components[name].checkpoint.nbytes}, {}

    def on_adapt(self, call: Message) -> Answer:
        """Put a LoRA set beside a component's weights; the answer names what fits nothing in it."""
        v = call.values
        return {"unmatched": self.components[v["component"]].adapt([tuple(lora) for lora in v["loras"]])}, {}

    def on_measure(self, call: Message) -> Answer:
        memory = self.components[call.values["component"]].measure(call.values["sizes"])
        return {"weights": memory.weights, "compute": memory.compute}, {}

    def on_load(self, call: Message) -> Answer:
        """Bring a component's weights to its device."""
        name = call.values["component"]
        self.components[name].load(call.values["sizes"], self.progress(f"load {name}", LOAD_REPORTS))
        return {}, {}

    def on_compile(self, call: Message) -> Answer:
        """Compile for these sizes: afterwards a run has nothing left to prepare."""
        self.components[call.values["component"]].program(call.values["sizes"])
        return {}, {}

    def on_close(self, call: Message) -> Answer:
        component = self.components.pop(call.values["component"], None)
        if component:
            component.close()
        return {}, {}

    def on_run(self, call: Message) -> Answer:
        """What a component is for: arrays in, arrays out. The answer tells its bytes, those of its device, and the peak
        there since the last such answer."""
        v = call.values
        component = self.components[v["component"]]
        started = time.perf_counter()
        arrays = component.run(v["sizes"], call.arrays, v, self.progress(component.stage))
        answer = {"component": component.report(), "device": used(component.place.executor)}
        return answer | {"seconds": time.perf_counter() - started}, arrays


def make_executor(name: str, threads: int | None, limit_bytes: int | None) -> Executor:
    if name == "openvino":
        from relight.executors.openvino import OpenvinoExecutor

        return OpenvinoExecutor(threads=threads)
    if name == "reference":
        from relight.executors.reference import ReferenceExecutor

        return ReferenceExecutor()
    from relight.executors.ggml import GgmlExecutor

    # Linux grants any allocation and ends the process when it is used: RAM has to be counted.
    return GgmlExecutor(name, threads=threads, limit_bytes=available_ram() if limit_bytes is None else limit_bytes)


def check_device(executor: Executor) -> None:
    x, y = (input_tensor(name, (CHECKED, CHECKED)) for name in "xy")
    graph = Graph({"z": (x + y) * x})
    program = executor.compile(graph, executor.load((graph,), {}), CompileOptions())
    rng = np.random.default_rng()
    inputs = {name: rng.integers(-8, 8, (CHECKED, CHECKED)).astype(np.float32) for name in "xy"}
    try:
        found = program.run(inputs)["z"]
    finally:
        program.close()
    if not np.array_equal(found, (inputs["x"] + inputs["y"]) * inputs["x"]):
        raise ExecutorError(f"{executor.name} computes wrongly: a sum of whole numbers came out otherwise")


def text_executor(parameters: int) -> str:
    """OpenVINO where the CPU multiplies in bfloat16 and memory holds the weights in it: four times as fast as ggml
    there. Elsewhere ggml, which computes from the mapped file as it is and is as fast in float32."""
    if not np._core._multiarray_umath.__cpu_features__.get("AVX512F", False):  # type: ignore[attr-defined]
        return "ggml-cpu"  # without asking OpenVINO, which takes a while to load
    from relight.executors.openvino.device import cpu_has_bf16

    room = psutil.virtual_memory().available > BF16_BYTES * parameters
    return "openvino" if room and cpu_has_bf16() else "ggml-cpu"


def used(executor: Executor) -> dict[str, int]:
    limit = getattr(executor, "limit", None)
    if limit is None:
        return {}
    free, total = executor.device.memory()  # type: ignore[attr-defined]
    peak, limit.peak = limit.peak, limit.used
    return {"used_bytes": limit.used, "peak_bytes": peak, "free_bytes": free, "total_bytes": total}


def main() -> None:
    Child(*pipes(), Both.inherited()).serve()


if __name__ == "__main__":
    main()
