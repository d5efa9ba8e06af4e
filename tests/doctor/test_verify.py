"""Card against processor, on pictures that are right, wrong, late or missing."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest

from relight import demo
from relight.doctor import verify as verifying
from relight.doctor.finding import Level
from relight.doctor.verify import NO_CURE, Outcome, backend_of, draw, psnr, verify
from relight.jobs import models
from relight.jobs.request import ModelFiles

OK, WARN, FAIL = Level
PICTURE = np.random.default_rng(7).integers(0, 256, (32, 32, 3), dtype=np.uint8)
ALMOST = np.clip(PICTURE.astype(int) + 1, 0, 255).astype(np.uint8)
WRONG = np.random.default_rng(8).integers(0, 256, (32, 32, 3), dtype=np.uint8)


class FakeEngine:
    """Draws `picture` wherever a device of `wrong` stages takes part, unless `cure` is set; else what is right."""

    def __init__(self, picture: Outcome, components: set[str], cure: str | None = None) -> None:
        self.picture, self.components, self.cure = picture, components, cure
        self.drawn: list[str] = []

    def __call__(self, backend: str) -> Outcome:
        self.drawn.append(backend)
        on_card = {name for name in self.components if f"{name}=vulkan0" in backend or backend == "vulkan0"}
        return self.picture if on_card and not (self.cure and self.cure in os.environ) else Outcome(ALMOST, 1.5)


def levels(engine: FakeEngine) -> list[Level]:
    return [finding.level for finding in verify("vulkan0", engine)]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in verifying.SUSPECTS:
        monkeypatch.delenv(name, raising=False)


def test_psnr_of_known_pictures() -> None:
    black, grey = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert psnr(black, grey) == 0 and psnr(grey, grey) == math.inf
    assert psnr(black, np.full((4, 4, 3), 1, np.uint8)) == pytest.approx(20 * math.log10(255))


def test_a_right_card_is_compared_as_a_whole_and_stage_by_stage() -> None:
    engine = FakeEngine(Outcome(WRONG), set())
    found = list(verify("vulkan0", engine))
    assert [each.level for each in found] == [OK] * 4
    assert [each.numbers["stage"] for each in found] == ["all", "text", "denoise", "decode"]
    assert engine.drawn == [
        "cpu",
        "vulkan0",
        *(backend_of(stage, "vulkan0") for stage in ("text", "denoise", "decode")),
    ]


@pytest.mark.parametrize(("component", "stage"), [("te", "text"), ("diffusion", "denoise"), ("vae", "decode")])
def test_a_wrong_stage_is_named(component: str, stage: str) -> None:
    found = list(verify("vulkan0", FakeEngine(Outcome(WRONG), {component})))
    wrong = [each.numbers.get("stage") for each in found if each.level is FAIL]
    assert wrong == ["all", stage, None] and NO_CURE in found[-1].seen
    of_stage = next(each for each in found if each.numbers.get("stage") == stage)
    assert f"{component}=cpu" in of_stage.remedies[0].do and of_stage.numbers["psnr_db"] < 15


def test_the_feature_whose_absence_heals_the_picture_is_named() -> None:
    cure = "GGML_VK_DISABLE_F16"
    found = list(verify("vulkan0", FakeEngine(Outcome(WRONG), {"diffusion"}, cure)))
    assert found[-1].level is FAIL and found[-1].remedies[0].do == f"export {cure}=1"
    assert cure not in os.environ


def test_a_card_that_raises_is_a_failure_with_its_words() -> None:
    lost = Outcome(error="worker vulkan0 ended during run (SIGABRT)")
    found = list(verify("vulkan0", FakeEngine(lost, {"vae"})))
    assert found[0].level is FAIL and "SIGABRT" in found[0].seen and found[0].numbers["psnr_db"] is None


def test_a_picture_that_was_saved_on_the_way_is_a_warning() -> None:
    saved = Outcome(ALMOST, 1.0, ("decoded on the CPU",))
    assert levels(FakeEngine(saved, {"vae"}))[:4] == [WARN, OK, OK, WARN]


def test_without_a_picture_by_the_processor_nothing_is_compared() -> None:
    (found,) = verify("vulkan0", lambda backend: Outcome(error="no library ggml-cpu"))
    assert found.level is FAIL and "no library ggml-cpu" in found.seen


def test_drawing_goes_through_the_pipeline(tiny_files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "files_in", lambda folder: tiny_files)
    monkeypatch.setattr(demo, "SIZE", 64)
    first, again = draw("cpu", check_results=False), draw("cpu", check_results=False)
    assert first.image is not None and again.image is not None and first.image.shape == (64, 64, 3)
    assert psnr(first.image, again.image) == math.inf
    assert "no device vulkan99" in (draw("vulkan99").error or "")
