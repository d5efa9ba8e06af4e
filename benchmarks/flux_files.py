"""FLUX.1 checkpoint files of any size with random weights, under the published names, shapes and formats.

Scales follow the inner sizes, so activations stay near one in all blocks.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path

from flux_shapes import FluxSizes, Shapes, clip_shapes, flux_shapes, t5_shapes, vae_shapes
from random_weights import VAE_GAINS, deviation, source
from relight.weights.write import TensorSource, write_gguf, write_safetensors

GAINS = VAE_GAINS | {"SelfAttention.q": 1 / sqrt(64)}  # T5 does not divide its scores by the root of the head size
NEVER_QUANTISED = ("img_in", "txt_in", "time_in", "vector_in", "guidance_in", "final_layer")


@dataclass(frozen=True)
class FluxFiles:
    diffusion: Path
    clip_l: Path
    t5xxl: Path
    vae: Path

    @property
    def nbytes(self) -> int:
        return sum(path.stat().st_size for path in (self.diffusion, self.clip_l, self.t5xxl, self.vae))


def flux_files(folder: Path, sizes: FluxSizes, diffusion_format: str = "Q4_K", vae_format: str = "F32") -> FluxFiles:
    """The four files in `folder`, written unless files made with the same settings are there already."""
    files = FluxFiles(
        folder / f"flux1-{'dev' if sizes.guidance else 'schnell'}-{diffusion_format}.gguf",
        folder / "clip_l.safetensors",
        folder / "t5xxl_fp16.safetensors",
        folder / "ae.safetensors",
    )
    settings = json.dumps(asdict(sizes) | {"diffusion_format": diffusion_format, "vae_format": vae_format})
    made_with = folder / "made_with.json"
    if made_with.exists() and made_with.read_text() == settings:
        return files
    folder.mkdir(parents=True, exist_ok=True)
    made_with.unlink(missing_ok=True)
    with ThreadPoolExecutor(4) as pool:
        writing = [
            pool.submit(write_city96, files.diffusion, flux_shapes(sizes), diffusion_format),
            pool.submit(write_safetensors, files.clip_l, _sources(clip_shapes(), "F16")),
            pool.submit(write_safetensors, files.t5xxl, _sources(t5_shapes(sizes), "F16")),
            pool.submit(write_safetensors, files.vae, _sources(vae_shapes(sizes.vae_channels), vae_format)),
        ]
        for file in writing:
            file.result()
    made_with.write_text(settings)
    return files


def write_city96(path: Path, shapes: Shapes, format_name: str) -> int:
    """As ComfyUI-GGUF writes them: inputs and outputs in F16, vectors in F32, the rest in one format."""

    def chosen(name: str, shape: tuple[int, ...]) -> str:
        if len(shape) == 1:
            return "F32"
        return "F16" if name.startswith(NEVER_QUANTISED) else format_name

    sources = [_source(name, shape, chosen(name, shape)) for name, shape in shapes.items()]
    return write_gguf(path, sources, {"general.architecture": "flux", "general.quantization_version": 2})


def _sources(shapes: Shapes, format_name: str) -> list[TensorSource]:
    return [_source(name, shape, format_name) for name, shape in shapes.items()]


def _source(name: str, shape: tuple[int, ...], format_name: str) -> TensorSource:
    return source(name, shape, format_name, deviation(name, shape, GAINS))
