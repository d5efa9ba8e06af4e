"""Whole checkpoints of Stable Diffusion 1.x and SDXL with random weights, under the published names and shapes, in F16.

Scales follow the inner sizes, and what is added to the stream of a network is smaller, so that activations stay near
one through all blocks. Four things are as in trained files, or suit the comparison with stable-diffusion.cpp:

- The noise that the UNet predicts is its input and a little of what all blocks make of it (`pass_on`), so that latents
  end near one, whatever the steps; relight refuses others as ruined.
- Text states have a mean, as trained ones do. Weighted prompts are scaled back to it, which is meaningless around zero.
- CLIP-G's projection is its own transpose. The file's matrix is [in out]; stable-diffusion.cpp takes it for [out in].
- Attention to the text is sharp enough for prompts to matter.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from random_weights import VAE_GAINS, deviation, source, symmetric
from relight.weights.write import TensorSource, write_safetensors
from sd_shapes import LATENT_CHANNELS, SdSizes, checkpoint_shapes, unet_shapes

GROUPS = 32
UNET = "model.diffusion_model."
PASSED = 1.1, 1.0, 1.0, 0.95
SHADE = 0.15, 0.0, 0.0, -0.1
"""Of each latent channel, the share that is passed on and a constant: what many steps of a random network leave is else
noise that is alike in all channels, which relight refuses as well."""
GAINS = VAE_GAINS | {
    "attn2.to_q": 1.5,
    "attn2.to_k": 1.5,
    "out_layers.3": 0.5,
    "attn1.to_out": 0.5,
    "attn2.to_out": 1.0,
    "ff.net.2": 0.5,
    "proj_out": 0.7,
    "out_proj": 0.3,
    "mlp.fc2": 0.3,
    "mlp.c_proj": 0.3,
    "diffusion_model.out.2": 0.12,  # of the noise; guidance of 7 makes some ten times as much of it
}
MEANS = {"final_layer_norm.bias": 0.2, "ln_final.bias": 0.2, "mlp.fc2.bias": 0.05, "mlp.c_proj.bias": 0.02}


def sd_checkpoint(path: Path, sizes: SdSizes) -> Path:
    """The file, written unless one of the same sizes is there already."""
    settings = json.dumps(asdict(sizes) | {"gains": GAINS})
    made_with = path.with_suffix(".json")
    if made_with.exists() and made_with.read_text() == settings:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    made_with.unlink(missing_ok=True)
    write_safetensors(path, sources(sizes))
    made_with.write_text(settings)
    return path


def sources(sizes: SdSizes) -> list[TensorSource]:
    made = {name: sd_source(name, shape) for name, shape in checkpoint_shapes(sizes).items()}
    for name, array in passing_on(sizes).items():
        made[name] = TensorSource(name, array.shape, "F16", partial(array.astype, "<f2"))
    return list(made.values())


def sd_source(name: str, shape: tuple[int, ...]) -> TensorSource:
    if name.endswith("text_projection"):
        return symmetric(name, shape[0], "F16")
    mean = next((mean for ending, mean in MEANS.items() if name.endswith(ending)), 0.0)
    return source(name, shape, "F16", deviation(name, shape, GAINS), mean)


def passing_on(sizes: SdSizes) -> dict[str, np.ndarray]:
    """Those layers of the UNet through which its input reaches its output, beside everything else.

    The first convolution copies each latent channel. The skip of the last block brings the copies to the groups of the
    last norm, one group for each, half of its channels negated; nothing else writes there. Its values are then those of
    the input but for their scale, silu(x) - silu(-x) is x, and the last convolution adds them up so.
    """
    first, last = sizes.channels[0], f"output_blocks.{3 * len(sizes.channels) - 1}"
    group = first // GROUPS
    signs = np.where(np.arange(LATENT_CHANNELS * group) % 2, -1.0, 1.0)
    channel = np.arange(LATENT_CHANNELS * group) // group
    rows = np.arange(len(signs))
    shapes = unet_shapes(sizes)

    def layer(path: str, clear: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Weight and bias; what the latents' groups get of it is zero."""
        weight, bias = (_array(sd_source(UNET + name, shapes[name])) for name in (f"{path}.weight", f"{path}.bias"))
        if clear:
            weight[rows], bias[rows] = 0, 0
        layers[path] = weight, bias
        return weight, bias

    layers: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    weight, bias = layer("input_blocks.0.0", clear=False)
    weight[:LATENT_CHANNELS], bias[:LATENT_CHANNELS] = 0, 0
    weight[range(LATENT_CHANNELS), range(LATENT_CHANNELS), 1, 1] = 1
    weight, _ = layer(f"{last}.0.skip_connection")
    weight[rows, weight.shape[1] - first + channel] = signs[:, None, None]
    layer(f"{last}.0.out_layers.3")
    if f"{last}.1.proj_out.weight" in shapes:
        layer(f"{last}.1.proj_out")
    weight, _ = layer("out.0")
    weight[rows] = 1
    weight, bias = layer("out.2", clear=False)
    weight[:, rows], bias[:] = 0, SHADE
    weight[channel, rows, 1, 1] = np.array(PASSED)[channel] * 2 * signs / group
    return {
        f"{UNET}{path}.{leaf}": array
        for path, both in layers.items()
        for leaf, array in zip(("weight", "bias"), both, strict=True)
    }


def _array(tensor: TensorSource) -> np.ndarray:
    produced = tensor.produce()
    raw = produced.tobytes() if isinstance(produced, np.ndarray) else b"".join(produced)
    return np.frombuffer(raw, "<f2").reshape(tensor.shape).astype(np.float32)
