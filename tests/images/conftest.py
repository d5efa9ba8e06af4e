"""Small FLUX.1 files, and both programs kept warm in processes of their own."""

from __future__ import annotations

import lzma
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from flux_files import flux_files
from flux_shapes import PRESETS
from side import Side

TOKENIZER = Path(__file__).parent.parent / "models/t5_tokenizer.json.xz"
THREADS = min(2, os.cpu_count() or 1)
PATIENT = {"OMP_WAIT_POLICY": "passive"}  # threads that spin at barriers starve each other on a busy machine


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Real CLIP-L and autoencoder, a backbone of 512 and a T5 of two layers: 480 MB, gone after the tests."""
    folder = tmp_path_factory.mktemp("flux")
    files = flux_files(folder, PRESETS["small"], vae_format="F16")
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_bytes(lzma.decompress(TOKENIZER.read_bytes()))
    paths = {component: str(path) for component, path in asdict(files).items()}
    yield {"files": paths, "tokenizer": str(tokenizer), "threads": THREADS, "folder": str(folder)}
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def sdcpp(settings: dict[str, Any]) -> Iterator[Side]:
    sdcpp = settings | {"backend": "cpu", "conv_direct": True}
    side = Side("sdcpp_side.py", sdcpp, Path(settings["folder"], "sdcpp.log"), PATIENT)
    yield side
    side.close()


@pytest.fixture(scope="session", params=["cpu", "ggml-cpu"])
def relight(request: pytest.FixtureRequest, settings: dict[str, Any]) -> Iterator[Side]:
    ours = settings | {"backend": request.param}
    side = Side("relight_side.py", ours, Path(settings["folder"], "relight.log"), PATIENT)
    yield side
    side.close()
