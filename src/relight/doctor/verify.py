"""Does the card compute rightly? One small picture by the processor, again by the card, and stage by stage.

The model is the one that ships with relight. With one seed both must come to the same picture but for rounding: what
differs by more is wrong. A wrong card is asked again with one feature of its driver switched off at a time.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from relight.doctor.finding import Finding, Remedy, duration, fail, ok, variable, warn
from relight.errors import RelightError
from relight.jobs.events import Event, Warned

PROMPT, SEED, STEPS = "a red apple", 1, 4
SAME_DB = 38.0
"""Right devices differ from the processor by rounding: 53 dB and more on an H100, with its features and held to those
of a Polaris card, 49 dB on lavapipe (64x64, two steps). One wrong block of 8x8 pixels makes 32 dB, a green apple for a
red one 11. Another seed is no measure: the model comes to nearly the same picture from any noise."""
STAGES = {"text": ("te", "modulation"), "denoise": ("diffusion",), "decode": ("vae",)}
SUSPECTS = {
    "GGML_VK_DISABLE_INTEGER_DOT_PRODUCT": "wrong integer dot products, known of AMD's own driver before RDNA 3",
    "GGML_VK_DISABLE_F16": "wrong 16-bit arithmetic, such as radv_enable_float16_gfx8 switches on",
    "GGML_VK_DISABLE_COOPMAT": "wrong matrix cores or their driver",
    "GGML_VK_DISABLE_FUSION": "a fault in joined operations of the engine",
    "GGML_VK_DISABLE_HOST_VISIBLE_VIDMEM": "a fault in the window onto video memory (BAR)",
}
"""By the variable that switches it off, what is wrong when the picture is right without it."""
NO_CURE = "an overclocked, undervolted or failing card, memory above all; a driver's fault; or heat"


@dataclass(frozen=True)
class Outcome:
    """A picture [h w 3] with the warnings on its way, or the error that came instead."""

    image: np.ndarray | None = None
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Of one stage on the card, or `all` of them: dB of likeness, infinite for equal pictures."""

    stage: str
    outcome: Outcome
    psnr: float = field(default=-math.inf)

    @property
    def is_right(self) -> bool:
        return self.psnr >= SAME_DB and not self.outcome.warnings


Draw = Callable[[str], Outcome]


def draw(backend: str, *, check_results: bool = True) -> Outcome:
    """The picture with its components where `backend` says."""
    from relight import demo
    from relight.jobs import models
    from relight.jobs.engine import EngineSettings
    from relight.jobs.pipeline import Pipeline
    from relight.jobs.request import GenerateRequest
    from relight.planner.profiles import pretended

    warnings: list[str] = []

    def tell(event: Event) -> None:
        if isinstance(event, Warned):
            warnings.append(event.message)

    request = GenerateRequest(prompt=PROMPT, width=demo.SIZE, height=demo.SIZE, steps=STEPS, seed=SEED)
    settings = EngineSettings(backend=backend, profile=pretended(os.environ), check_results=check_results)
    try:
        with Pipeline(models.files_in(demo.EMBEDDED), settings) as pipeline:
            result = pipeline.generate(request, tell)
    except RelightError as error:
        return Outcome(error=str(error), warnings=tuple(warnings))
    return Outcome(result.pictures[0].image, result.report["seconds"]["total"], tuple(warnings))


def verify(device: str, draw: Draw = draw) -> Iterator[Finding]:
    """Findings as they come: the whole picture, its stages, and what heals it where it is wrong."""
    right = draw("cpu")
    if right.image is None:
        yield fail(
            "verify",
            f"the processor makes no picture: {right.error}",
            "there is nothing to compare the card with; the lines on instructions and memory may say why",
            Remedy("install relight's packages again", "./relight setup", "nothing to undo"),
        )
        return
    whole = compare("all", right.image, draw(device))
    yield judged(whole, device, right.seconds)
    stages = [compare(stage, right.image, draw(backend_of(stage, device))) for stage in STAGES]
    for each in stages:
        yield judged(each, device)
    if not (whole.is_right and all(each.is_right for each in stages)):
        yield suspected(right.image, device, draw)


def backend_of(stage: str, device: str) -> str:
    """One stage on the card, the others on the processor."""
    return ",".join(["cpu", *(f"{component}={device}" for component in STAGES[stage])])


def compare(stage: str, right: np.ndarray, outcome: Outcome) -> Comparison:
    return (
        Comparison(stage, outcome) if outcome.image is None else Comparison(stage, outcome, psnr(right, outcome.image))
    )


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """dB between two pictures [h w 3] uint8 of one size; infinite where they are equal."""
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def judged(comparison: Comparison, device: str, cpu_seconds: float = 0.0) -> Finding:
    stage, outcome = comparison.stage, comparison.outcome
    what = "the whole picture" if stage == "all" else f"the {stage} stage"
    numbers = {
        "stage": stage,
        "psnr_db": comparison.psnr if math.isfinite(comparison.psnr) else None,
        "equal": comparison.psnr == math.inf,
        "seconds": outcome.seconds,
    }
    if comparison.is_right:
        alike = "equal to" if comparison.psnr == math.inf else f"{comparison.psnr:.1f} dB from"
        times = f" ({duration(outcome.seconds)}, the processor {duration(cpu_seconds)})" if cpu_seconds else ""
        return ok("verify", f"{what} on {device} is {alike} the processor's{times}", **numbers)
    why = "pictures made with it are wrong, or will be; the stage that differs tells where"
    around = Remedy(
        "meanwhile, compute that on the processor",
        f"relight generate ... --backend {_around(stage)}",
        "leave --backend out",
    )
    if outcome.image is None:
        return fail("verify", f"{what} on {device} failed: {outcome.error}", why, around, **numbers)
    if comparison.psnr >= SAME_DB:
        said = "; ".join(outcome.warnings)
        return warn("verify", f"{what} on {device} came out right in the end: {said}", why, around, **numbers)
    return fail(
        "verify",
        f"{what} on {device} is wrong: {comparison.psnr:.1f} dB from the processor's, and {SAME_DB:.0f} are expected",
        why,
        around,
        **numbers,
    )


def _around(stage: str) -> str:
    return "cpu" if stage == "all" else ",".join(f"{component}=cpu" for component in STAGES[stage])


def suspected(right: np.ndarray, device: str, draw: Draw) -> Finding:
    """Draw again with one suspect off at a time; the first that heals the picture is named."""
    for name, cause in SUSPECTS.items():
        if name in os.environ:
            continue
        with switched(name):
            again = compare("all", right, draw(device))
        if again.is_right:
            return fail(
                "verify",
                f"with {name}=1 the picture is right: {cause}",
                "the cause is known, and what helps too",
                variable(name, "1", "switch it off for relight"),
            )
    return fail(
        "verify",
        f"no feature of the driver is to blame ({', '.join(SUSPECTS)} tried): {NO_CURE}",
        "wrong numbers from a card come from its memory more often than not, above all after years of mining",
        Remedy(
            "test the card's memory for an hour",
            "memtest_vulkan (github.com/GpuZelenograd/memtest_vulkan)",
            "nothing to undo",
        ),
        Remedy("run it slower", "remove overclocking; a lower power limit and memory clock", "the old settings"),
        Remedy(
            "try another driver version",
            "update Mesa or the card's driver, or go back to the one before",
            "install the old version again",
        ),
    )


@contextmanager
def switched(name: str) -> Iterator[None]:
    """A variable set for the workers that are started meanwhile."""
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]
