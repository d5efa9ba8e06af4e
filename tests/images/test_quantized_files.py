"""Files that `relight quantize` wrote: stable-diffusion.cpp loads them and draws from them what relight does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from relight.store.quantize import quantize_file
from relight.store.rules import Rule
from side import Side

LEAST_PSNR_DB = 40.0
WANTED = {"prompt": "a cat", "width": 96, "height": 96, "seed": 42, "sigmas": [1.0, 0.75, 0.5, 0.25, 0.0]}
PATIENT = {"OMP_WAIT_POLICY": "passive"}


@pytest.fixture(scope="module")
def quantised(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """T5 from F16 to Q8_0, the transformer to Q8_0 with Q4_K in its single blocks, the autoencoder to GGUF."""
    folder, files = tmp_path_factory.mktemp("quantised"), dict(settings["files"])
    for component, rules in {"diffusion": [Rule.parse("single_blocks=Q4_K")], "t5xxl": [], "vae": []}.items():
        out = folder / f"{component}.gguf"
        quantize_file(Path(files[component]), out, "Q8_0", rules, threads=2)
        files[component] = str(out)
    yield settings | {"files": files, "folder": str(folder)}


def picture(script: str, settings: dict[str, Any], path: Path) -> np.ndarray:
    side = Side(script, settings, path.with_suffix(".log"), PATIENT)
    try:
        side.ask(WANTED | {"save": str(path)})
    finally:
        side.close()
    return np.asarray(Image.open(path).convert("RGB"), np.float64)


def test_both_programs_draw_the_same_picture(quantised: dict[str, Any], tmp_path: Path) -> None:
    theirs = picture("sdcpp_side.py", quantised | {"backend": "cpu", "conv_direct": True}, tmp_path / "sdcpp.png")
    ours = picture("relight_side.py", quantised | {"backend": "ggml-cpu"}, tmp_path / "relight.png")
    assert theirs.std() > 1
    assert 10 * np.log10(255**2 / ((ours - theirs) ** 2).mean()) >= LEAST_PSNR_DB
