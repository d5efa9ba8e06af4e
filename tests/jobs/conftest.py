"""Tiny models that stay open between tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import making
import tiny_flux
import tiny_sd
from making import ALONE
from relight.jobs.pipeline import Pipeline


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return making.shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(scope="session")
def sd1(shelf: Path) -> Iterator[Pipeline]:
    with Pipeline(making.sd1_files(shelf), ALONE) as pipeline:
        yield pipeline


@pytest.fixture(scope="session")
def inpainting(shelf: Path) -> Iterator[Pipeline]:
    """A checkpoint of nine channels."""
    with Pipeline(making.sd1_files(shelf, "sd15-inpainting"), ALONE) as pipeline:
        yield pipeline


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with Pipeline(tiny_sd.sdxl(tmp_path_factory.mktemp("sdxl") / "sdxl.safetensors"), ALONE) as pipeline:
        yield pipeline


@pytest.fixture(scope="session")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with Pipeline(tiny_flux.write(tmp_path_factory.mktemp("flux")), ALONE) as pipeline:
        yield pipeline
