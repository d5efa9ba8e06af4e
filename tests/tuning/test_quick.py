"""A warm-up of what is planned alone, where the user sends it; and one without OpenVINO."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from relight.errors import ConfigError
from relight.jobs.checks import Checked
from relight.jobs.request import GenerateRequest, ModelFiles
from relight.planner.choices import Chooser
from relight.planner.estimate import Estimator, NoTimings
from relight.planner.machine import Machine, this_cpu
from relight.planner.networks import Networks
from relight.planner.workload import workload
from relight.tuning import identity, tables
from relight.tuning.identity import of_cpu
from relight.tuning.warm import Task, Warmup

MACHINE = Machine(this_cpu())
REQUEST = GenerateRequest(prompt="", width=64, height=64, steps=2, seed=1)


@pytest.fixture
def networks(files: ModelFiles) -> Iterator[Networks]:
    with Networks(files) as opened:
        yield opened


def tasks(warmup: Warmup, networks: Networks) -> list[Task]:
    work = workload(Checked(networks.files), REQUEST)
    chooser = Chooser(work, Estimator(networks, warmup.machine, NoTimings()), warmup._wanted(work))
    return list(warmup.tasks(chooser, chooser.choose()))


def test_a_quick_warm_up_times_each_component_once_where_it_is_sent(files: ModelFiles, tmp_path: Path) -> None:
    quick = Warmup(MACHINE, where=tmp_path, runs=1, quick=True, backend="te=reference,vae=ggml-cpu")
    assert quick.warm(files, REQUEST).failures == ()
    timed = tables.load(of_cpu(MACHINE.cpu.name, MACHINE.cpu.cores), tmp_path).timed
    found = [(each.component, each.executor, tables.ways(each.options)) for each in timed]
    auto = ("auto", "auto", "auto")
    assert found == [("clip_l", "reference", auto), ("diffusion", "ggml-cpu", auto), ("vae", "ggml-cpu", auto)]


def test_what_is_sent_somewhere_is_timed_there_alone(networks: Networks) -> None:
    found = tasks(Warmup(MACHINE, backend="vae=openvino"), networks)
    assert {task.executor for task in found if task.component == "vae"} == {"openvino"}
    assert {task.sizes["batch"] for task in found if task.component == "diffusion"} == {1, 2}
    assert [task.planned for task in tasks(Warmup(MACHINE, quick=True), networks)] == [True] * 3


def test_a_backend_that_is_not_here_is_told(files: ModelFiles, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no Vulkan GPU was found"):
        Warmup(MACHINE, where=tmp_path, backend="diffusion=gpu").warm(files, REQUEST)


@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_timed_on_openvino_where_it_is_not_installed(
    networks: Networks, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    for module in ("relight.tuning.warm", "relight.planner.estimate"):
        monkeypatch.setattr(f"{module}.ON_OPENVINO", {"vae": 1})
    machine = Machine(replace(MACHINE.cpu, openvino=there))
    found = tasks(Warmup(machine), networks)
    assert ("openvino" in {task.executor for task in found if task.component == "vae"}) == there


def test_an_engine_of_a_package_that_is_not_installed_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "PACKAGES", ("cyllama-vulkan", "no-such-package"))
    assert identity.engine({}).startswith("cyllama-vulkan ") and "no-such-package of no package" in identity.engine({})
