"""Warm-up: builds every pipeline a model's shapes need, times the ways to compute them, and keeps the winners.

It runs on workers of its own, off the path of any request: for `relight warm`, which a server starts while nobody asks
for anything, and before a picture where the settings want it (`needs` says whether there is anything to do).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from relight.executors.base import CompileOptions
from relight.executors.choices import UNKNOWN_CORES, uses_flash
from relight.graph import Graph
from relight.jobs.checks import Checked
from relight.jobs.cpu import ON_OPENVINO, UNET_WORTH
from relight.jobs.request import GenerateRequest, ModelFiles
from relight.planner import backends
from relight.planner.choices import Chooser, Outcome
from relight.planner.estimate import Estimator
from relight.planner.machine import Machine
from relight.planner.networks import Networks
from relight.planner.placement import LARGEST_TILE_BUFFER
from relight.planner.profiles import GCN, Profile
from relight.planner.workload import Workload, workload
from relight.tuning import pipelines, submissions, tables
from relight.tuning.bench import RUNS, Bench
from relight.tuning.identity import of_cpu, of_gpu
from relight.tuning.tables import Table, Timed
from relight.tuning.tuned import SUBMIT_VARIABLE, Tuned, signature

LONGEST_RUN_S = 60.0
"""Estimated seconds of one run, above which an alternative to what is planned is not timed."""
WORTH_THREADS = 0.95
FEW_TILES = 2
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    component: str
    executor: str
    sizes: Mapping[str, int]
    planned: bool


@dataclass(frozen=True)
class Warmed:
    """`before` and `after`: seconds of a picture by the default way and by the winners, both measured where timed;
    `first_s` what building the pipelines took, `failures` what could not be computed and why."""

    model: str
    before: float
    after: float
    first_s: float
    timed: int
    failures: tuple[str, ...]
    changes: tuple[str, ...] = ()


@dataclass(eq=False)
class Warmup:
    """One machine. `where` is the folder of the tables; `runs` of each way at most, besides the first; alternatives
    estimated at more than `longest_run_s` a run are left out; `again` times what is known, too; `submitting`: also how
    many operations a submission should have. `quick`: no alternatives at all, only what is planned. `backend` as
    `--backend` takes it: what is sent somewhere is timed there alone."""

    machine: Machine
    profile: Profile | None = None
    threads: int | None = None
    where: Path | None = None
    tell: Tell = lambda line: None
    again: bool = False
    longest_run_s: float = LONGEST_RUN_S
    runs: int = RUNS
    submitting: bool = True
    quick: bool = False
    backend: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    bench: type[Bench] = Bench

    def tables(self) -> Tuned:
        cpu, gpu = self.machine.cpu, self.machine.gpu
        pretended = self.profile.name if self.profile else ""
        return Tuned(
            tables.load(of_cpu(cpu.name, cpu.cores), self.where),
            tables.load(of_gpu(gpu.description, pretended), self.where) if gpu is not None else None,
        )

    def warm(self, files: ModelFiles, request: GenerateRequest) -> Warmed:
        """Everything a picture of this request needs on this machine. Raises DoesNotFit."""
        checked = Checked(files)
        tuned = self.tables()
        with Networks(files, self.machine.gpu.cores if self.machine.gpu else UNKNOWN_CORES) as networks:
            work = workload(checked, request)
            signatures = {name: signature(name, networks.component(name).checkpoint) for name in work.names}
            tuned.network = signatures.get
            chooser = Chooser(work, Estimator(networks, self.machine, tuned), self._wanted(work))
            planned = chooser.choose()
            with self._bench(files) as bench:
                timed = self._time(chooser, planned, tuned, bench)
                failures = tuple(bench.failures)
            if not self.quick:
                self._time_submissions(files, chooser, tuned)
                self._time_threads(files, chooser, tuned)
            default = chooser.outcome(planned.placement.device, dict.fromkeys(work.names, CompileOptions()))
            best = chooser.choose()
        self._save(tuned)
        first = sum(max(0.0, each.first_s - each.seconds) for each in timed)
        value = chooser.value
        return Warmed(
            files.name, value(default.course), value(best.course), first, len(timed), failures, changes(default, best)
        )

    def _wanted(self, work: Workload) -> dict[str, str]:
        gpu = self.machine.gpu
        said = backends.on_gpu(backends.parse(self.backend), gpu.name if gpu else None)
        return {name: said[name] for name in work.names}

    def _bench(self, files: ModelFiles, more: Mapping[str, str] | None = None, threads: int | None = None) -> Bench:
        profile = self.profile.environment if self.profile else {}
        environment = {**pipelines.environment(), **profile, **self.environment, **(more or {})}
        gpu = self.machine.gpu
        return self.bench(files, environment, {gpu.name: gpu.budget} if gpu else {}, threads or self.threads)

    def _time(self, chooser: Chooser, planned: Outcome, tuned: Tuned, bench: Bench) -> list[Timed]:
        tasks = list(self.tasks(chooser, planned))
        found: list[Timed] = []
        for number, task in enumerate(tasks, 1):
            self.tell(f"{number} of {len(tasks)}: {task.component} on {task.executor}{described(task.sizes)}")
            found += self._ways(chooser, task, tuned, bench)
            self._save(tuned)  # what was measured outlasts whatever ends this
        return found

    def _ways(self, chooser: Chooser, task: Task, tuned: Tuned, bench: Bench) -> list[Timed]:
        """One after another, each over the best before it."""
        graph = chooser.estimator.networks.graph(task.component, task.sizes)
        table, network = tuned.table(task.executor), tuned.network(task.component)
        assert table is not None and network is not None
        seen: list[Timed] = []
        new: list[Timed] = []
        ways = alternatives(graph, task.executor, bf16=self.machine.cpu.bf16)
        for way in islice(ways, 1) if self.quick else ways:
            best = min(seen, key=lambda each: each.seconds).options if seen else CompileOptions()
            options = replace(best, **way)  # type: ignore[arg-type]
            timed = None if self.again else next(_exact(table, network, task, options), None)
            if timed is None:
                timed = bench.time(task.component, network, task.executor, task.sizes, options, runs=self.runs)
                if timed is None:
                    continue
                table.add([timed])
                new.append(timed)
                self.tell(f"    {words(options)}: {timed.seconds:.4f} s (first {timed.first_s:.2f} s)")
            seen.append(timed)
        return new

    def tasks(self, chooser: Chooser, planned: Outcome) -> Iterator[Task]:
        """What is planned, then the other executors and pieces that fit and are not hopeless."""
        work = chooser.work
        for name in work.names:
            part = planned.course.parts[name]
            for executor in dict.fromkeys([part.executor, *self._executors(name, chooser)]):
                for sizes in pieces(name, work, planned, executor):
                    mine = executor == part.executor and sizes == work.sizes_in(name, planned.placement)
                    if mine or (not self.quick and self._worth_timing(name, executor, sizes, chooser)):
                        yield Task(name, executor, sizes, mine)

    def _executors(self, name: str, chooser: Chooser) -> list[str]:
        """That a component may be on, by what the user said."""
        gpu, wanted = self.machine.gpu, chooser.wanted[name]
        networks = chooser.estimator.networks
        found = [gpu.name, "ggml-cpu"] if gpu is not None and wanted == "auto" else ["ggml-cpu"]
        least = ON_OPENVINO.get(name, UNET_WORTH if networks.files.kind(name) == "unet" else None)
        if least is not None and networks.parameters(name) >= least and self.machine.cpu.openvino:
            found.append("openvino")
        return found if wanted in ("auto", "cpu") else []

    def _worth_timing(self, name: str, executor: str, sizes: Mapping[str, int], chooser: Chooser) -> bool:
        run = chooser.estimator.run(name, executor, sizes, CompileOptions()).value
        return run < self.longest_run_s and self._fits(name, executor, sizes, chooser)

    def _fits(self, name: str, executor: str, sizes: Mapping[str, int], chooser: Chooser) -> bool:
        gpu, networks = self.machine.gpu, chooser.estimator.networks
        use = networks.measure(name, executor, sizes, CompileOptions())
        if gpu is None or executor != gpu.name:
            return use.total < self.machine.cpu.available // 2
        largest = networks.largest(name, sizes, CompileOptions())
        sensible = name != "vae" or use.compute <= LARGEST_TILE_BUFFER
        return sensible and use.total <= gpu.budget and (gpu.max_allocation is None or largest <= gpu.max_allocation)

    def _time_submissions(self, files: ModelFiles, chooser: Chooser, tuned: Tuned) -> None:
        """The most operations a submission that no driver takes for a hang, if more are quicker."""
        gpu, table, network = self.machine.gpu, tuned.gpu, tuned.network("diffusion")
        if gpu is None or table is None or network is None or not self.submitting or SUBMIT_VARIABLE in os.environ:
            return
        base = max(table.of(network, gpu.name), key=lambda each: each.seconds, default=None)
        if base is None or (network in table.submit and not self.again):
            return
        options = tuned.options("diffusion", gpu.name, CompileOptions())
        seconds: dict[int, float] = {}
        bounded = bool(GCN.search(gpu.description)) or self.profile is not None
        for submit in submissions.sizes(base, chooser.estimator, gpu.name) if bounded else submissions.SIZES:
            with self._bench(files, {SUBMIT_VARIABLE: str(submit)}) as bench:
                timed = bench.time("diffusion", network, gpu.name, base.sizes, options, runs=self.runs)
            if timed is not None:
                seconds[submit] = timed.seconds
                self.tell(f"submissions of {submit} operations: {timed.seconds:.4f} s")
        if seconds:
            table.submit[network] = submissions.quickest(seconds)

    def _time_threads(self, files: ModelFiles, chooser: Chooser, tuned: Tuned) -> None:
        """Physical cores against the threads of all of them, on the heaviest component of ggml's on the CPU."""
        logical = os.cpu_count() or 1
        cores = self.machine.cpu.cores
        known = [e for e in tuned.cpu.timed if e.executor == "ggml-cpu" and tuned.network(e.component) == e.signature]
        if self.threads or logical <= cores or not known or (tuned.cpu.threads and not self.again):
            return
        heaviest = max(known, key=lambda each: each.seconds)
        with self._bench(files, threads=logical) as bench:
            timed = bench.time(heaviest.component, heaviest.signature, "ggml-cpu", heaviest.sizes, heaviest.options)
        better = timed is not None and timed.seconds < WORTH_THREADS * heaviest.seconds
        tuned.cpu.threads = logical if better else cores
        self.tell(f"threads: {tuned.cpu.threads} of {logical}")

    def _save(self, tuned: Tuned) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for table in (tuned.cpu, tuned.gpu):
            if table is not None:
                table.made = now
                tables.save(table, self.where)


def needs(tuned: Tuned, names: Mapping[str, str]) -> bool:
    """Whether any of these components (name -> signature) was never timed here with this driver and engine."""
    known = {each.signature for table in (tuned.cpu, tuned.gpu) if table is not None for each in table.timed}
    return not set(names.values()) <= known


def pieces(name: str, work: Workload, planned: Outcome, executor: str) -> Iterator[dict[str, int]]:
    """The planned sizes first; for the backbone the other numbers of rows, for the decoder other tiles."""
    planned_sizes = work.sizes_in(name, planned.placement)
    yield planned_sizes
    if name == "diffusion":
        for rows in work.batches:
            if rows != planned.placement.batch:
                yield {**planned_sizes, "batch": rows}
    if name == "vae" and executor.startswith("vulkan"):
        smaller = [tile for tile in work.tiles if tile < planned.placement.tile]
        for tile in smaller[:FEW_TILES]:
            yield {**planned_sizes, "tile": tile}


def alternatives(graph: Graph, executor: str, *, bf16: bool) -> Iterator[dict[str, str]]:
    """Ways to compute a graph that give the same picture: changes to the options, the default first."""
    yield {}
    if executor == "openvino":
        if bf16:
            yield {"precision": "f32"}
        return
    gpu = executor.startswith("vulkan")
    attention = [node for node in graph.nodes if node.op == "attention"]
    flash = [node for node in attention if uses_flash(node, CompileOptions(), gpu=gpu)]
    if flash:
        yield {"attention": "chunked"}
    elif not gpu and attention:
        yield {"attention": "flash"}  # on a GPU its kernels are made for some head sizes alone
    if any(node.op == "conv2d" for node in graph.nodes):
        yield {"convolution": "im2col"}


def changes(default: Outcome, best: Outcome) -> tuple[str, ...]:
    """What the measurements changed, in words."""
    found = []
    for name, part in best.course.parts.items():
        before = default.course.parts[name]
        if part.executor != before.executor:
            found.append(f"{name} on {part.executor} instead of {before.executor}")
        if best.options[name] != default.options[name]:
            found.append(f"{name} with {words(best.options[name])}")
    if best.placement.batch != default.placement.batch:
        found.append(f"{best.placement.batch} rows a call instead of {default.placement.batch}")
    if best.placement.tile != default.placement.tile:
        found.append(f"tiles of {best.placement.tile} instead of {default.placement.tile}")
    return tuple(found)


def words(options: CompileOptions) -> str:
    said = [
        f"{name} {value}"
        for name, value in zip(("attention", "convolution", "precision"), tables.ways(options), strict=True)
        if value != "auto"
    ]
    return ", ".join(said) or "default"


def described(sizes: Mapping[str, int]) -> str:
    wide, high = sizes.get("latent_width"), sizes.get("latent_height")
    return (
        f" for {8 * wide}x{8 * high}, {sizes.get('batch', 1)} rows, tile {sizes.get('tile')}" if wide and high else ""
    )


def _exact(table: Table, network: str, task: Task, options: CompileOptions) -> Iterator[Timed]:
    return (each for each in table.of(network, task.executor, options) if dict(each.sizes) == dict(task.sizes))
