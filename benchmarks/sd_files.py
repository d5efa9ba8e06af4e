"""Whole checkpoints of Stable Diffusion 1.x and SDXL with random weights, under the published names and shapes, in F16.

Scales follow the inner sizes, and what is added to the stream of a network is smaller, so that activations stay near
one through all blocks. Three things are made to suit the comparison with stable-diffusion.cpp:

- Text states have a mean, as trained ones do. Weighted prompts are scaled back to it, which is meaningless around zero.
- CLIP-G's projection is its own transpose. The file's matrix is [in out]; stable-diffusion.cpp takes it for [out in].
- Attention to the text is sharp enough for prompts to matter.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from math import sqrt
from pathlib import Path

from random_weights import inner_size, source, symmetric
from relight.weights.write import TensorSource, write_safetensors
from sd_shapes import SdSizes, checkpoint_shapes

GAINS = {
    "attn2.to_q": 3.0,
    "attn2.to_k": 3.0,
    "out_layers.3": 0.5,
    "attn1.to_out": 0.5,
    "attn2.to_out": 2.0,
    "ff.net.2": 0.5,
    "proj_out": 0.7,
    "out_proj": 0.5,
    "mlp.fc2": 0.5,
    "mlp.c_proj": 0.5,
    "diffusion_model.out.2": 1.6,  # so that the noise that is predicted has about the deviation of noise
    "decoder.conv_out": 0.6,  # so that few pixels leave the range of the picture
}
MEANS = {"final_layer_norm.bias": 0.2, "ln_final.bias": 0.2, "mlp.fc2.bias": 0.05, "mlp.c_proj.bias": 0.02}


def sd_checkpoint(path: Path, sizes: SdSizes) -> Path:
    """The file, written unless one of the same sizes is there already."""
    settings = json.dumps(asdict(sizes))
    made_with = path.with_suffix(".json")
    if made_with.exists() and made_with.read_text() == settings:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    made_with.unlink(missing_ok=True)
    write_safetensors(path, [sd_source(name, shape) for name, shape in checkpoint_shapes(sizes).items()])
    made_with.write_text(settings)
    return path


def sd_source(name: str, shape: tuple[int, ...]) -> TensorSource:
    if name.endswith("text_projection"):
        return symmetric(name, shape[0], "F16")
    mean = next((mean for ending, mean in MEANS.items() if name.endswith(ending)), 0.0)
    return source(name, shape, "F16", deviation(name, shape) if len(shape) > 1 else 0.0, mean)


def deviation(name: str, shape: tuple[int, ...]) -> float:
    """Standard deviation of a matrix's values: 1 / sqrt(inner size), times a gain where the network wants another."""
    if name.endswith("token_embedding.weight"):
        return 1.0
    if name.endswith(("position_embedding.weight", "positional_embedding")):
        return 0.5
    gain = next((gain for part, gain in GAINS.items() if part in name), 1.0)
    return gain / sqrt(inner_size(shape))
