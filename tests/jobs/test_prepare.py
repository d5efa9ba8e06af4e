"""A pipeline that was prepared: its first picture asks of the workers what the second does, and loads nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tiny_sd
from relight.jobs.engine import EngineSettings
from relight.jobs.pipeline import Pipeline
from relight.jobs.request import GenerateRequest, ModelFiles
from relight.workers.process import Worker

pytestmark = pytest.mark.timeout(60)
REQUEST = GenerateRequest(prompt="a cat", width=64, height=64, steps=2, seed=1, text_tokens=16)
ALONE = EngineSettings(backend="ggml-cpu", threads=1, check_results=False)


class Calls:
    """What workers are asked and tell, picture by picture."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.told: list[str] = []
        call = Worker.call

        def kept(worker: Worker, method: str, values: Any = None, arrays: Any = None, on_event: Any = None, *more: Any):  # type: ignore[no-untyped-def]
            def listen(event: dict[str, Any]) -> None:
                self.told.append(event["stage"])
                if on_event is not None:
                    on_event(event)

            self.asked.append((method, (values or {}).get("component")))
            return call(worker, method, values, arrays, listen, *more)

        monkeypatch.setattr(Worker, "call", kept)

    def taken(self) -> tuple[list[tuple[str, Any]], set[str]]:
        found = self.asked, set(self.told)
        self.asked, self.told = [], []
        return found


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    yield Calls(monkeypatch)


@pytest.mark.parametrize("family", ["flux", "sd1"])
def test_the_first_picture_finds_what_the_second_does(
    family: str, tiny_files: ModelFiles, tmp_path: Path, calls: Calls
) -> None:
    files = tiny_files if family == "flux" else tiny_sd.sd1(tmp_path / "sd1.safetensors")
    with Pipeline(files, ALONE) as pipeline:
        pipeline.prepare(REQUEST)
        asked, told = calls.taken()
        networks = {*files.family.components}
        assert {name for method, name in asked if method == "load"} == networks and "run" not in dict(asked)
        assert {f"load {name}" for name in networks} <= told
        first, second = ((pipeline.generate(REQUEST), calls.taken())[1] for _ in range(2))
    assert first == second and ("run", "diffusion") in first[0]
    assert not any(stage.startswith("load") for stage in first[1]) and "open" not in dict(first[0])


def test_what_is_known_of_a_prompt_keeps_no_encoder_from_being_ready(
    tiny_files: ModelFiles, tmp_path: Path, calls: Calls
) -> None:
    settings = EngineSettings(backend="ggml-cpu", threads=1, check_results=False, conditioning_folder=tmp_path)
    for _ in range(2):
        with Pipeline(tiny_files, settings) as pipeline:
            calls.taken()
            pipeline.prepare(REQUEST)
            assert ("load", "t5xxl") in calls.taken()[0]
            pipeline.generate(REQUEST)
