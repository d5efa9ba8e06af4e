"""ControlNet of Stable Diffusion 1.x, 2.x and SDXL: a copy of the UNet's first half that also sees a hint picture.

Names of weights are those of lllyasviel/ControlNet without `control_model.`. It is recorded into the UNet's graph, so
that what it adds to the decoder's inputs stays on the device. In shape comments: B batch, C channels, h and w height
and width of the latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from relight.errors import ModelFileError
from relight.graph import Graph, Tensor, Weights, input_tensor, ops
from relight.models import unet
from relight.models.unet import Residuals, UnetConfig

HINT_SCALE = 8  # pixels of the hint along an axis for each of the latent's
HINT_STRIDES = {4: 2, 8: 2, 12: 2}  # of input_hint_block's convolutions, by number; 1 for the others


class Control(NamedTuple):
    """A ControlNet's weights and sizes."""

    w: Weights
    cfg: UnetConfig


def record(
    w: Weights,
    cfg: UnetConfig,
    controls: Sequence[Control],
    latent_height: int,
    latent_width: int,
    text_tokens: int,
    batch: int = 1,
) -> Graph:
    """One step of a UNet with ControlNets: inputs and output of `unet.record`, and for each ControlNet i `hint_i`
    [1 3 8h 8w] (0 to 1, the same for the whole batch) and `strength_i` [1], which multiplies what it adds.
    """
    inputs = unet.record_inputs(cfg, latent_height, latent_width, text_tokens, batch)
    residuals = []
    for i, control in enumerate(controls):
        hint = input_tensor(f"hint_{i}", (1, 3, HINT_SCALE * latent_height, HINT_SCALE * latent_width))
        residuals.append(controlnet(*control, inputs, hint, input_tensor(f"strength_{i}", (1,))))
    return Graph({"noise": unet.unet(w, cfg, inputs, residuals)})


def controlnet(w: Weights, cfg: UnetConfig, inputs: unet.Inputs, hint: Tensor, strength: Tensor) -> Residuals:
    """What is added to the UNet's skips and middle. Raises ModelFileError for outputs that do not match the blocks."""
    steering = unet.steer(w, cfg, inputs)
    latents = inputs.latents.narrow(1, 0, cfg.in_channels)  # an inpainting UNet's other channels are not for it
    skips = unet.encoder(w, cfg, latents, steering, hint_features(w / "input_hint_block", hint))
    middle = unet.block(w / "middle_block", cfg, skips[-1], steering)
    if (w / "zero_convs").count() != len(skips):
        raise ModelFileError(f"ControlNet of {len(skips)} blocks and {(w / 'zero_convs').count()} outputs")
    return Residuals(
        [ops.conv2d(skip, w / "zero_convs" / i / 0) * strength for i, skip in enumerate(skips)],
        ops.conv2d(middle, w / "middle_block_out" / 0) * strength,
    )


def hint_features(w: Weights, hint: Tensor) -> Tensor:
    """The hint at the size and with the channels of the first block, [1 C h w]."""
    last = w.count() - 1
    x = hint
    for i in range(0, last, 2):
        x = ops.silu(ops.conv2d(x, w / i, stride=HINT_STRIDES.get(i, 1), padding=1))
    return ops.conv2d(x, w / last, padding=1)
