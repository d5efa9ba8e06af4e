"""Files made smaller: every layout in, GGUF out, little memory, all or nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import checkpoints as made
import tiny_sd
from golden.weights import unet_weights
from relight.errors import ModelFileError, RequestError, StoreError
from relight.store.quantize import quantize_file
from relight.store.rules import Rule
from relight.weights.checkpoint import open_component
from relight.weights.container import open_container
from relight.weights.folder import find_components
from relight.weights.quants import read_float32
from relight.weights.write import TensorSource, write_gguf, write_safetensors

pytest.importorskip("cyllama", reason="ggml's libraries are missing")

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def flux() -> made.Arrays:
    return {name: array / 16 for name, array in made.arrays("diffusion", double=2, single=2).items()}


def run(source: Path, out: Path, wanted: str = "Q4_K", *rules: str, **settings: Any) -> Any:
    return quantize_file(source, out, wanted, [Rule.parse(rule) for rule in rules], threads=2, **settings)


def values(path: Path, kind: str = "diffusion") -> dict[str, np.ndarray]:
    checkpoint = open_component(kind, path)
    return {name: read_float32(tensor) for name, tensor in checkpoint.items()}


def worst(actual: dict[str, np.ndarray], right: made.Arrays) -> float:
    """Largest error of any tensor, as a part of that tensor's own deviation."""
    assert actual.keys() == right.keys()
    return max(float(np.sqrt(np.mean((actual[name] - array) ** 2)) / array.std()) for name, array in right.items())


LAYOUTS = {
    "black-forest-labs": lambda folder, flux: made.safetensors(folder / "flux.safetensors", flux, "F16"),
    "prefixed": lambda folder, flux: made.safetensors(
        folder / "flux.safetensors", made.prefixed("model.diffusion_model.", flux), "F16"
    ),
    "diffusers": lambda folder, flux: made.sharded(folder, made.diffusers_flux(flux)),
    "leejet": lambda folder, flux: made.leejet(folder / "flux.gguf", flux, "F16"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flux_comes_out_under_the_original_names(layout: str, flux: made.Arrays, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    result = run(LAYOUTS[layout](tmp_path / "in" if layout == "diffusers" else tmp_path, flux), out, "Q4_K")
    container = open_container(out)
    assert container.entries.keys() == flux.keys()
    assert container.metadata["general.architecture"] == "flux" and container.metadata["general.file_type"] == 14
    formats = {name: entry.format for name, entry in container.entries.items()}
    assert formats["double_blocks.0.img_attn.qkv.weight"] == "Q4_K"
    assert formats["img_in.weight"] == "F16" and formats["img_in.bias"] == "F32"
    assert result.written_bytes == out.stat().st_size and sum(result.formats.values()) == len(flux)
    assert worst(values(out), flux) < 0.09


@pytest.mark.parametrize(("wanted", "error"), [("Q8_0", 0.007), ("Q6_K", 0.02), ("Q5_K", 0.045), ("Q2_K", 0.4)])
def test_more_bits_are_nearer(wanted: str, error: float, flux: made.Arrays, tmp_path: Path) -> None:
    source = made.safetensors(tmp_path / "flux.safetensors", flux)
    run(source, tmp_path / "out.gguf", wanted)
    assert error / 4 < worst(values(tmp_path / "out.gguf"), flux) < error


def test_rules_change_some_tensors(flux: made.Arrays, tmp_path: Path) -> None:
    source = made.safetensors(tmp_path / "flux.safetensors", flux)
    run(source, tmp_path / "out.gguf", "Q4_K", "single_blocks=Q8_0", "double_blocks.0=F16")
    formats = {name: entry.format for name, entry in open_container(tmp_path / "out.gguf").entries.items()}
    assert formats["single_blocks.1.linear1.weight"] == "Q8_0"
    assert formats["double_blocks.0.img_mlp.0.weight"] == "F16"
    assert formats["double_blocks.1.img_mlp.0.weight"] == "Q4_K"


def test_threads_change_nothing(flux: made.Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relight.store.quantize.CHUNK_ELEMENTS", 10_000)
    source = made.safetensors(tmp_path / "flux.safetensors", flux)
    for threads in (1, 3):
        quantize_file(source, tmp_path / f"{threads}.gguf", "Q4_K", threads=threads)
    assert (tmp_path / "1.gguf").read_bytes() == (tmp_path / "3.gguf").read_bytes()


def test_progress_adds_up(flux: made.Arrays, tmp_path: Path) -> None:
    source = made.safetensors(tmp_path / "flux.safetensors", flux, "F16")
    totals: list[int] = []
    counts: list[int] = []
    result = run(source, tmp_path / "out.gguf", started=totals.append, advance=counts.append)
    assert totals == [result.read_bytes] == [sum(counts)] == [sum(2 * array.size for array in flux.values())]


def test_the_scale_of_an_fp8_matrix_is_applied(flux: made.Arrays, tmp_path: Path) -> None:
    name = "double_blocks.0.img_mlp.0.weight"
    codes = np.random.default_rng(0).integers(8, 120, flux[name].shape, np.uint8)
    sources = made.sources({n: a for n, a in flux.items() if n != name})
    sources += [
        TensorSource(name, codes.shape, "F8_E4M3", lambda: codes),
        TensorSource(name.replace("weight", "scale_weight"), (), "F32", lambda: np.float32(0.25).tobytes()),
    ]
    write_safetensors(tmp_path / "fp8.safetensors", sources)
    run(tmp_path / "fp8.safetensors", tmp_path / "out.gguf", "Q8_0")
    right, actual = values(tmp_path / "fp8.safetensors")[name], values(tmp_path / "out.gguf")[name]
    assert np.abs(actual - right).max() < 0.01 * np.abs(right).max()


def test_t5_keeps_its_names_and_its_tokenizer(tmp_path: Path) -> None:
    source = made.llama_cpp_t5(tmp_path / "t5.gguf", made.arrays("t5xxl", hidden=256, mlp=512), "F16")
    run(source, tmp_path / "out.gguf")
    before, after = open_container(source), open_container(tmp_path / "out.gguf")
    assert after.entries.keys() == before.entries.keys()
    assert after.entries["enc.blk.0.attn_q.weight"].format == "Q4_K"
    assert after.entries["enc.blk.0.attn_rel_b.weight"].format == "F16"
    tokenizer = [key for key in before.metadata if key.startswith("tokenizer.")]
    assert tokenizer and all(np.array_equal(after.metadata[key], before.metadata[key]) for key in tokenizer)
    assert after.metadata["general.architecture"] == "t5encoder"
    open_component("t5xxl", tmp_path / "out.gguf")


@pytest.mark.parametrize("kind", ["clip_l", "vae"])
def test_small_components_stay_whole(kind: str, tmp_path: Path) -> None:
    arrays = made.arrays(kind)
    source = made.safetensors(tmp_path / "in.safetensors", arrays)
    run(source, tmp_path / "out.gguf", "Q8_0")
    assert values(tmp_path / "out.gguf", kind).keys() == arrays.keys()
    assert worst(values(tmp_path / "out.gguf", kind), arrays) < 0.01


def test_an_all_in_one_file_keeps_each_network_under_its_prefix(flux: made.Arrays, tmp_path: Path) -> None:
    prefixes = {"diffusion": "model.diffusion_model.", "vae": "vae.", "clip_l": "text_encoders.clip_l.transformer."}
    parts = {"diffusion": flux, "vae": made.arrays("vae"), "clip_l": made.arrays("clip_l")}
    arrays = {k: v for kind, prefix in prefixes.items() for k, v in made.prefixed(prefix, parts[kind]).items()}
    run(made.safetensors(tmp_path / "all.safetensors", arrays), tmp_path / "out.gguf", "Q8_0")
    for kind, right in parts.items():
        assert worst(values(tmp_path / "out.gguf", kind), right) < 0.01


def test_an_sdxl_checkpoint_stays_one_under_its_own_names(tmp_path: Path) -> None:
    """OpenCLIP's fused matrices and turned projection included: other programs read them so."""
    tiny_sd.sdxl(tmp_path / "sdxl.safetensors")
    run(tmp_path / "sdxl.safetensors", tmp_path / "out.gguf", "Q8_0")
    before, after = (open_container(tmp_path / name) for name in ("sdxl.safetensors", "out.gguf"))
    assert set(after.entries) == set(before.entries)
    assert after.metadata["general.architecture"] == "sdxl"
    unet, clip = "model.diffusion_model.", "conditioner.embedders.1.model."
    formats = {
        f"{unet}input_blocks.5.1.transformer_blocks.0.attn2.to_k.weight": "Q8_0",
        f"{unet}input_blocks.1.0.in_layers.2.weight": "F16",
        f"{unet}time_embed.0.weight": "F16",
        f"{clip}transformer.resblocks.0.attn.in_proj_weight": "Q8_0",
        f"{clip}transformer.resblocks.0.attn.in_proj_bias": "F32",
        f"{clip}text_projection": "F16",
        "first_stage_model.decoder.mid.attn_1.q.weight": "F16",
    }
    assert {name: after.entries[name].format for name in formats} == formats
    found = find_components(tmp_path / "out.gguf")
    assert (found.family, found.missing) == ("sdxl", {})
    for kind in found.kinds:
        right = {name: read_float32(t) for name, t in open_component(kind, tmp_path / "sdxl.safetensors").items()}
        assert worst(values(tmp_path / "out.gguf", kind), right) < 0.01


def test_a_unet_alone_is_written_as_other_programs_read_it(tmp_path: Path) -> None:
    arrays = unet_weights("sd1")
    path = made.safetensors(tmp_path / "sd.safetensors", made.prefixed("model.diffusion_model.", arrays))
    run(path, tmp_path / "out.gguf")
    container = open_container(tmp_path / "out.gguf")
    assert list(container.entries) == list(arrays)
    assert container.metadata["general.architecture"] == "sd1"


def test_what_is_there_is_replaced_only_when_told(flux: made.Arrays, tmp_path: Path) -> None:
    source, out = made.safetensors(tmp_path / "flux.safetensors", flux), tmp_path / "out.gguf"
    out.write_bytes(b"mine")
    with pytest.raises(RequestError, match="--force"):
        run(source, out)
    assert out.read_bytes() == b"mine"
    run(source, out, force=True)
    assert out.read_bytes()[:4] == b"GGUF"


@pytest.mark.parametrize("name", ["out.safetensors", "absent/out.gguf"])
def test_a_place_that_cannot_be_is_refused(name: str, flux: made.Arrays, tmp_path: Path) -> None:
    with pytest.raises(RequestError):
        run(made.safetensors(tmp_path / "flux.safetensors", flux), tmp_path / name)


def test_values_that_are_no_numbers_stop_it_and_leave_nothing(flux: made.Arrays, tmp_path: Path) -> None:
    name = "single_blocks.1.linear2.weight"
    broken = flux[name].copy()
    broken[5, 5] = np.nan
    source = made.safetensors(tmp_path / "flux.safetensors", flux | {name: broken})
    with pytest.raises(ModelFileError, match=name):
        run(source, tmp_path / "out.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["flux.safetensors"]


def test_too_little_room_is_said_before_anything_is_written(
    flux: made.Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = made.safetensors(tmp_path / "flux.safetensors", flux)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 1000))
    with pytest.raises(StoreError, match=r"needed.*1\.0 kB are free"):
        run(source, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_language_models_are_refused_by_name(tmp_path: Path) -> None:
    source = tmp_path / "llm.gguf"
    write_gguf(source, [TensorSource("blk.0.attn_q.weight", (8, 8), "F32", lambda: np.zeros((8, 8), np.float32))])
    with pytest.raises(ModelFileError, match="language model"):
        run(source, tmp_path / "out.gguf")


MEASURE = """
import resource, sys
from pathlib import Path
from relight.store.quantize import quantize_file
quantize_file(Path(sys.argv[1]), Path(sys.argv[2]), "Q4_K", threads=1)  # what imports and ggml take
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
quantize_file(Path(sys.argv[3]), Path(sys.argv[4]), "Q8_0", threads=2)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from Linux")
def test_memory_does_not_grow_with_the_file(flux: made.Arrays, tmp_path: Path) -> None:
    """40 FLUX-sized matrices in BF16, 500 MB: a process that kept what it read would hold them all."""
    small = made.safetensors(tmp_path / "small.safetensors", flux, "F16")
    piece = np.full(1 << 20, 0x3C00, np.uint16).view(np.uint8)
    shape = (2048, 3072)
    sources = [TensorSource(f"blocks.{i}.weight", shape, "BF16", lambda: iter([piece] * 6)) for i in range(40)]
    large = tmp_path / "large.safetensors"
    write_safetensors(large, sources)
    assert large.stat().st_size > 500_000_000
    out = subprocess.run(
        [sys.executable, "-c", MEASURE, small, tmp_path / "a.gguf", large, tmp_path / "b.gguf"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert int(out.stdout) < 150_000  # KiB: a few chunks, and one tensor's pages
