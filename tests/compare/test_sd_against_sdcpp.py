"""Whole pictures of Stable Diffusion 1.5 against stable-diffusion.cpp, from the same file, prompts, noise and levels.

The UNet is a fifth as wide as the real one, text encoder and autoencoder are of real size. At real widths, and for
SDXL, `benchmarks/sd_vs_sdcpp.py` does the same.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sd_cases
from comparison import psnr
from sd_files import sd_checkpoint
from sd_shapes import PRESETS
from side import Side

LEAST_PSNR_DB = 40.0
"""50 dB and more were measured: its group norms have another epsilon, its GELU is an approximation."""

SIDE, STEPS = 128, 3
CASES = ("cfg7", "dpmpp_2m", "euler_ancestral", "weights", "both-long", "clip-skip")
PATIENT = {"OMP_WAIT_POLICY": "passive"}  # threads that spin at barriers starve each other on a busy machine


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """490 MB, gone after the tests."""
    folder = tmp_path_factory.mktemp("sd")
    model = sd_checkpoint(folder / "sd.safetensors", PRESETS["sd15-narrow"])
    yield {"model": str(model), "threads": min(2, os.cpu_count() or 1), "folder": str(folder)}
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def sdcpp(settings: dict[str, Any]) -> Iterator[Side]:
    theirs = settings | {"backend": "cpu", "conv_direct": True}
    side = Side("sdcpp_side.py", theirs, Path(settings["folder"], "sdcpp.log"), PATIENT)
    yield side
    side.close()


@pytest.fixture(scope="module")
def relight(settings: dict[str, Any]) -> Iterator[Side]:
    """In float32, which stable-diffusion.cpp computes in: guidance of 7 makes bfloat16's rounding show."""
    side = Side("relight_side.py", settings | {"backend": "ggml-cpu"}, Path(settings["folder"], "relight.log"), PATIENT)
    yield side
    side.close()


@pytest.fixture(scope="module")
def ours(relight: Side, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """relight's picture of a case, made once."""
    folder = tmp_path_factory.mktemp("ours")
    return functools.cache(lambda case: picture(relight, case, folder))


def picture(side: Side, case: str, folder: Path) -> Path:
    path = folder / f"{side.name}-{case}.png"
    side.ask(sd_cases.request(case, "sd1", SIDE, SIDE, STEPS) | {"save": str(path)})
    return path


@pytest.mark.parametrize("case", CASES)
def test_picture_equals_that_of_stable_diffusion_cpp(
    case: str, ours: Callable[[str], Path], sdcpp: Side, tmp_path: Path
) -> None:
    decibels = psnr(ours(case), picture(sdcpp, case, tmp_path))
    assert decibels is None or decibels >= LEAST_PSNR_DB


def test_every_case_gives_another_picture(ours: Callable[[str], Path]) -> None:
    """What the comparison can tell apart: the weights are random, yet all that is asked for matters."""
    alike = {pair: psnr(ours(pair[0]), ours(pair[1])) for pair in itertools.combinations(CASES, 2)}
    assert max(decibels or np.inf for decibels in alike.values()) < LEAST_PSNR_DB - 8, alike
