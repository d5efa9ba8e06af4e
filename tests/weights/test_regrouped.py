"""city96's GGUF of Stable Diffusion: matrices and kernels quantised in rows of 256, their true shape beside them."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

import checkpoints as made
from golden.weights import unet_weights
from relight.errors import ModelFileError
from relight.weights.checkpoint import Checkpoint, open_component
from relight.weights.identify import identify
from relight.weights.quants import read_float32
from relight.weights.write import TensorSource, write_gguf


def city96(path: Path, tensors: made.Arrays) -> Path:
    """Tensors that are a whole number of 256 values, the last axis being none, in rows of 256 as Q8_0."""
    sources: list[TensorSource] = []
    metadata: dict[str, Any] = {"general.architecture": "sdxl"}
    for name, array in tensors.items():
        if array.ndim > 1 and array.size % 256 == 0 and array.shape[-1] % 256:
            metadata[f"comfy.gguf.orig_shape.{name}"] = np.array(array.shape, np.int32)
            rows = quants.quantize(array.reshape(-1, 256), GGMLQuantizationType.Q8_0)
            sources.append(TensorSource(name, (array.size // 256, 256), "Q8_0", rows.tobytes))
        else:
            sources += made.sources({name: array}, "F16")
    write_gguf(path, sources, metadata)
    return path


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> tuple[made.Arrays, Checkpoint]:
    tensors = unet_weights("sdxl")
    path = city96(tmp_path_factory.mktemp("gguf") / "sdxl-Q8_0.gguf", tensors)
    return tensors, open_component("unet", path)


def test_every_tensor_has_its_true_shape_again(unet: tuple[made.Arrays, Checkpoint]) -> None:
    tensors, checkpoint = unet
    assert {name: checkpoint.shape(name) for name in checkpoint} == {name: t.shape for name, t in tensors.items()}
    assert identify(checkpoint.paths[0]).components[0].missing == ()


def test_what_has_blocks_across_rows_is_made_f16(unet: tuple[made.Arrays, Checkpoint]) -> None:
    tensors, checkpoint = unet
    name = "input_blocks.1.0.in_layers.2.weight"
    kernel = checkpoint[name]
    assert (kernel.format, kernel.nbytes, kernel.parts[0].nbytes) == ("F16", 2 * tensors[name].size, kernel.nbytes)
    step = np.abs(tensors[name]).max() / 127
    np.testing.assert_allclose(read_float32(kernel), tensors[name], atol=step)
    np.testing.assert_allclose(read_float32(kernel, slice(3, 5)), tensors[name][3:5], atol=step)


def test_what_is_made_is_kept_only_while_it_is_held(unet: tuple[made.Arrays, Checkpoint]) -> None:
    parts = unet[1]["input_blocks.1.0.in_layers.2.weight"].parts
    held = parts[0]
    assert parts[0] is held
    gone, copy = weakref.ref(held), np.array(held)
    del held
    assert gone() is None
    np.testing.assert_array_equal(parts[0], copy)


def test_another_count_of_values_is_refused(tmp_path: Path) -> None:
    sources = made.sources({"input_blocks.1.0.in_layers.2.weight": np.ones((9, 256), np.float32)}, "Q8_0")
    claim = {"comfy.gguf.orig_shape.input_blocks.1.0.in_layers.2.weight": np.array([16, 16, 3, 4], np.int32)}
    write_gguf(tmp_path / "x.gguf", sources, claim)
    with pytest.raises(ModelFileError, match=r"of shape \[9, 256\] claims to be \[16, 16, 3, 4\]"):
        identify(tmp_path / "x.gguf")
