"""What this machine's tables say to a pipeline and to a plan: winners, and seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from relight.executors.base import CompileOptions
from relight.planner.machine import this_cpu
from relight.planner.profiles import Profile
from relight.tuning import tables
from relight.tuning.identity import Identity, of_cpu, of_gpu, probed
from relight.tuning.tables import Table, Timed
from relight.weights.checkpoint import Checkpoint

CPU_EXECUTORS = ("ggml-cpu", "openvino")
SUBMIT_VARIABLE = "GGML_VK_MAX_NODES_PER_SUBMIT"
REAL = ("discrete", "integrated", "virtual")


def signature(name: str, stored: Checkpoint) -> str:
    """Of a component by names, shapes and formats of its tensors: two files with the same take the same time."""
    described = ";".join(f"{each}{stored.shape(each)}{stored.format(each)}" for each in sorted(stored))
    return hashlib.sha256(f"{name}|{described}".encode()).hexdigest()[:24]


@dataclass(eq=False)
class Tuned:
    """`cpu` and `gpu` are tables of this very machine; `network` gives the signature of a component's file."""

    cpu: Table
    gpu: Table | None = None
    network: Callable[[str], str | None] = lambda component: None

    def table(self, executor: str) -> Table | None:
        return self.gpu if executor.startswith("vulkan") else self.cpu

    def of(self, component: str, executor: str) -> Sequence[Timed]:
        """Measurements of a component, as planner.estimate asks for them."""
        table, network = self.table(executor), self.network(component)
        return list(table.of(network, executor)) if table is not None and network is not None else ()

    def options(self, component: str, executor: str, base: CompileOptions) -> CompileOptions:
        """The quickest way to compute a component there, where it was timed; else `base`."""
        table, network = self.table(executor), self.network(component)
        found = table.winner(network, executor, base) if table is not None and network is not None else None
        return found or base

    def cpu_executor(self, component: str) -> str | None:
        """The quicker of the CPU's, where both were timed at one size."""
        network = self.network(component)
        if network is None:
            return None
        best: dict[str, dict[str, float]] = {}
        for executor in CPU_EXECUTORS:
            for each in self.cpu.of(network, executor):
                at = best.setdefault(repr(sorted(each.sizes.items())), {})
                at[executor] = min(each.seconds, at.get(executor, each.seconds))
        both = [at for at in best.values() if len(at) == len(CPU_EXECUTORS)]
        if not both:
            return None
        return min(CPU_EXECUTORS, key=lambda executor: sum(at[executor] / min(at.values()) for at in both))

    @property
    def threads(self) -> int | None:
        return self.cpu.threads

    @property
    def environment(self) -> dict[str, str]:
        """Of the GPU's worker, where the user has not set it. What suits one model's backbone lasts too long for
        another's."""
        network = self.network("diffusion") if self.gpu is not None else None
        if self.gpu is None or network is None or network not in self.gpu.submit:
            return {}
        return {SUBMIT_VARIABLE: str(self.gpu.submit[network])}


def here(
    where: Path,
    profile: Profile | None = None,
    threads: int | None = None,
    network: Callable[[str], str | None] = lambda component: None,
    *,
    with_gpu: bool = True,
) -> Tuned | None:
    """The tables of this machine; None where it was never warmed up, which is found without asking any driver."""
    if not tables.exists(where):
        return None
    gpu = None
    if with_gpu:
        found = sorted(probed(), key=lambda each: each.get("type") not in REAL)
        gpu = gpu_identity((str(each["name"]) for each in found), profile)
    cpu = this_cpu(threads)
    on_gpu = tables.load(gpu, where) if gpu is not None else None
    return Tuned(tables.load(of_cpu(cpu.name, cpu.cores), where), on_gpu, network)


def gpu_identity(names: Iterable[str], profile: Profile | None) -> Identity | None:
    """Of the first device, as the pretended card where there is one."""
    name = next(iter(names), None)
    return None if name is None else of_gpu(name, profile.name if profile else "")
