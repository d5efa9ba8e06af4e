"""Operations a submission: which are tried on which card, which is kept, and that the next worker is given it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from relight.executors.base import CompileOptions
from relight.jobs.engine import EngineSettings
from relight.jobs.request import GenerateRequest, ModelFiles
from relight.planner import machine, rates
from relight.planner.machine import Gpu, Machine, this_cpu
from relight.planner.networks import Networks
from relight.planner.profiles import PROFILES, Profile
from relight.tuning import tables
from relight.tuning.bench import Bench
from relight.tuning.identity import of_gpu
from relight.tuning.submissions import quickest
from relight.tuning.tables import Table, Timed
from relight.tuning.tuned import SUBMIT_VARIABLE, Tuned, signature
from relight.tuning.warm import Warmup

REQUEST = GenerateRequest(prompt="", width=64, height=64, steps=2, seed=1)
MODERN = Gpu("vulkan0", "a modern card", 8 << 30, 8 << 30, 0, None, rates.of_card(PROFILES["gtx1070-8g"]))
OLD = machine.of_profile(PROFILES["rx580-8g"])
SPEED = {None: 1.0, "16": 1.2, "32": 1.0, "64": 0.8, "100": 0.8}


class ScriptedBench(Bench):
    """Knows how long a run takes by the submissions of its environment; keeps what was tried."""

    tried: list[str]
    run_s: float

    def time(
        self,
        component: str,
        signature: str,
        executor: str,
        sizes: Mapping[str, int],
        options: CompileOptions,
        **bounds: Any,
    ) -> Timed:
        submit = self.environment.get(SUBMIT_VARIABLE)
        if submit is not None and component == "diffusion":
            self.tried.append(submit)
        return Timed(component, signature, executor, dict(sizes), options, self.run_s * SPEED[submit])


@pytest.fixture(autouse=True)
def bench(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedBench]:
    monkeypatch.delenv(SUBMIT_VARIABLE, raising=False)
    ScriptedBench.tried, ScriptedBench.run_s = [], 0.01
    return ScriptedBench


def warm(files: ModelFiles, where: Path, gpu: Gpu, profile: Profile | None = None) -> Table:
    here = Machine(this_cpu(), gpu)
    Warmup(here, profile, where=where, bench=ScriptedBench).warm(files, REQUEST)
    return tables.load(of_gpu(gpu.description, profile.name if profile else ""), where)


def network(files: ModelFiles) -> str:
    with Networks(files) as networks:
        return signature("diffusion", networks.component("diffusion").checkpoint)


def test_the_smallest_of_the_quickest_is_kept_and_given_to_the_next_worker(files: ModelFiles, tmp_path: Path) -> None:
    table = warm(files, tmp_path, MODERN)
    assert ScriptedBench.tried == ["16", "32", "64", "100"] and table.submit == {network(files): 64}
    tuned = Tuned(Table(table.identity), table, lambda component: network(files))
    assert EngineSettings().environment(tuned.environment)[SUBMIT_VARIABLE] == "64"
    assert EngineSettings(nodes_per_submit=8).environment(tuned.environment)[SUBMIT_VARIABLE] == "8"


def test_it_is_not_timed_again_nor_where_the_user_has_said_it(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm(files, tmp_path, MODERN)
    warm(files, tmp_path, MODERN)
    assert len(ScriptedBench.tried) == 4
    monkeypatch.setenv(SUBMIT_VARIABLE, "50")
    assert warm(files, tmp_path / "other", MODERN).submit == {} and len(ScriptedBench.tried) == 4


@pytest.mark.parametrize(("run_s", "tried"), [(0.001, 4), (30.0, 1)])
def test_an_old_card_gets_no_submission_that_its_driver_may_take_for_a_hang(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_s: float, tried: int
) -> None:
    monkeypatch.setattr(ScriptedBench, "run_s", run_s)
    monkeypatch.setitem(SPEED, "16", 1.0)  # the profile's own
    profile = PROFILES["rx580-8g"]
    table = warm(files, tmp_path, OLD, profile)
    sizes = dict.fromkeys(ScriptedBench.tried)
    assert len(sizes) == tried and "16" in sizes
    assert table.submit == {network(files): 64 if tried > 1 else 16}


def test_what_is_within_the_noise_does_not_count() -> None:
    assert quickest({16: 1.005, 32: 1.0, 64: 0.9999}) == 16 and quickest({16: 1.02, 32: 1.0}) == 32
