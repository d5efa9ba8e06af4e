"""A worker that times graphs: `python -m relight.tuning.child`. It answers what every worker answers, and `time`."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from relight.executors.base import CompileOptions, Program
from relight.workers.child import Answer, Child
from relight.workers.parent import pipes
from relight.workers.protocol import Message

SPREAD = 0.5


class TimingChild(Child):
    clock = staticmethod(time.perf_counter)
    """What runs are timed by."""

    def on_time(self, call: Message) -> Answer:
        """Runs of a component at `sizes` under `options`: at least two beyond the first, until `budget_s` are spent or
        `runs` are done. Its weights stay loaded, its program does not."""
        v = call.values
        component = self.components[v["component"]]
        component.place.release()
        component.load(v["sizes"])
        graph = component.graph(v["sizes"])
        started = time.perf_counter()
        program = component.place.executor.compile(graph, component.loaded(), CompileOptions(**v["options"]))
        compiled = time.perf_counter() - started
        try:
            inputs = {name: values(node.shape, node.dtype) for name, node in graph.inputs.items()}
            taken = timings(program, inputs, v["runs"], v["budget_s"], self.clock)
            memory = program.memory
        finally:
            program.close()
        answer = {"compile_s": compiled, "first_s": taken[0], "seconds": taken[1:] or taken}
        return answer | {"weights": component.weights.nbytes if component.weights else 0, "compute": memory.compute}, {}


def values(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Numbers in a network's usual range; indices of 0."""
    if dtype == "i32":
        return np.zeros(shape, np.int32)
    return np.random.default_rng(0).standard_normal(shape, np.float32) * np.float32(SPREAD)


def timings(
    program: Program,
    inputs: dict[str, np.ndarray],
    runs: int,
    budget_s: float,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Seconds of each run, the one that builds pipelines first."""
    taken: list[float] = []
    begun = time.perf_counter()
    while len(taken) < runs + 1:
        started = clock()
        program.run(inputs)
        taken.append(clock() - started)
        if len(taken) > 2 and time.perf_counter() - begun > budget_s:
            break
    return taken


def main(child: type[TimingChild] = TimingChild) -> None:
    child(*pipes()).serve()


if __name__ == "__main__":
    main()
