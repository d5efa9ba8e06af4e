"""Warm-up of a tiny model on this CPU: what is timed, kept, and used by the next pipeline and plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from relight.executors.base import CompileOptions
from relight.jobs.engine import EngineSettings
from relight.jobs.fleet import Fleet
from relight.jobs.request import GenerateRequest, ModelFiles
from relight.planner.estimate import Estimator
from relight.planner.machine import Machine, this_cpu
from relight.planner.networks import Networks
from relight.tuning import tables
from relight.tuning.bench import Bench
from relight.tuning.identity import of_cpu
from relight.tuning.tables import Table, Timed
from relight.tuning.tuned import Tuned, here, signature
from relight.tuning.warm import Warmup, alternatives, needs

MACHINE = Machine(this_cpu())
REQUEST = GenerateRequest(prompt="", width=64, height=64, steps=2, seed=1)


@pytest.fixture(scope="module")
def warmed(files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("tuning")
    found = Warmup(MACHINE, where=where, runs=1).warm(files, REQUEST)
    assert found.timed > 0 and found.failures == () and 0 < found.after <= found.before * 1.001
    return where


def table(where: Path) -> Table:
    return tables.load(of_cpu(MACHINE.cpu.name, MACHINE.cpu.cores), where)


def test_every_component_is_timed_in_each_way_that_gives_the_same_picture(warmed: Path) -> None:
    ways = {(each.component, tables.ways(each.options)[:2]) for each in table(warmed).timed}
    assert {name for name, _ in ways} == {"clip_l", "diffusion", "vae"}
    assert ("clip_l", ("flash", "auto")) in ways and ("clip_l", ("auto", "im2col")) not in ways
    assert any(convolution == "im2col" for name, (_, convolution) in ways if name == "vae")
    assert {each.sizes["batch"] for each in table(warmed).timed if each.component == "diffusion"} == {1, 2}
    assert all(0 < each.seconds for each in table(warmed).timed)


def test_what_is_known_is_not_timed_again_unless_asked(files: ModelFiles, warmed: Path) -> None:
    said: list[str] = []
    assert Warmup(MACHINE, where=warmed, tell=said.append).warm(files, REQUEST).timed == 0
    assert said and not any("first" in line for line in said)


def test_a_plan_then_says_measured_and_scales_to_other_sizes(files: ModelFiles, warmed: Path) -> None:
    with Networks(files) as networks:
        names = {name: signature(name, networks.component(name).checkpoint) for name in ("clip_l", "diffusion", "vae")}
        estimator = Estimator(networks, MACHINE, Tuned(table(warmed), None, names.get))
        sizes = next(e.sizes for e in table(warmed).timed if e.component == "diffusion" and e.sizes["batch"] == 2)
        known = estimator.run("diffusion", "ggml-cpu", sizes, CompileOptions())
        exact = [
            e.seconds for e in table(warmed).of(names["diffusion"], "ggml-cpu", CompileOptions()) if e.sizes == sizes
        ]
        assert known.source == "measured" and known.value == pytest.approx(exact[0])
        larger = estimator.run("diffusion", "ggml-cpu", {**sizes, "latent_height": 16}, CompileOptions())
        assert larger.source == "scaled" and larger.value > known.value
        assert not needs(Tuned(table(warmed), None, names.get), names)
        assert needs(Tuned(table(warmed), None, names.get), names | {"vae": "another"})


def test_workers_compute_in_the_way_that_won(files: ModelFiles, tmp_path: Path) -> None:
    mine = of_cpu(MACHINE.cpu.name, MACHINE.cpu.cores)
    with Networks(files) as networks:
        network = signature("vae", networks.component("vae").checkpoint)
    slow, quick = CompileOptions(), CompileOptions(convolution="im2col")
    timed = [Timed("vae", network, "ggml-cpu", {"tile": 8}, way, s) for way, s in ((slow, 2.0), (quick, 1.0))]
    tables.save(Table(mine, timed, threads=1), tmp_path)
    fleet = Fleet(files, EngineSettings(tuning=tmp_path))
    try:
        assert fleet.tuned is not None and fleet.tuned.threads == 1
        fleet.open("vae", "ggml-cpu")
        assert fleet._options["vae", "cpu"].convolution == "im2col"
        fleet.open("vae", "ggml-cpu", convolution="direct")
        assert fleet._options["vae", "cpu"].convolution == "direct"
    finally:
        fleet.close()


def test_without_a_folder_of_tables_nothing_is_looked_up(files: ModelFiles, tmp_path: Path) -> None:
    assert Fleet(files, EngineSettings()).tuned is None
    assert here(tmp_path) is None


def test_a_gpu_is_not_sent_head_sizes_its_flash_kernels_are_not_made_for(files: ModelFiles) -> None:
    with Networks(files) as networks:
        graph = networks.graph("clip_l", {"hidden": 1})
        on_gpu = list(alternatives(graph, "vulkan0", bf16=False))
        on_cpu = list(alternatives(graph, "ggml-cpu", bf16=False))
    assert on_gpu == [{}]  # a causal mask: in chunks by itself
    assert on_cpu == [{}, {"attention": "flash"}]


def test_a_way_that_cannot_be_computed_is_told_and_does_not_end_the_rest(files: ModelFiles) -> None:
    with Bench(files, {}, {"ggml-cpu": 1000}) as bench:
        assert bench.time("clip_l", "x", "ggml-cpu", {"hidden": 1}, CompileOptions()) is None
        assert "clip_l on ggml-cpu" in bench.failures[0]
        sizes = {"latent_height": 8, "latent_width": 8, "text_tokens": 77}
        assert bench.time("diffusion", "x", "ggml-cpu", sizes, CompileOptions()) is None and len(bench.failures) == 2
