"""ControlNet of Stable Diffusion 1.x, 2.x and SDXL: a copy of the UNet's first half that also sees a hint picture.

Names of weights are those of lllyasviel/ControlNet without `control_model.`. Its outputs are added to what the UNet's
decoder takes (`unet.record` with `control`). In shape comments: B batch, C channels, h and w height and width of the
latents.
"""

from __future__ import annotations

from relight.errors import ModelFileError
from relight.graph import Graph, Tensor, Weights, input_tensor, ops
from relight.models import unet
from relight.models.unet import UnetConfig

HINT_SCALE = 8  # pixels of the hint along an axis for each of the latent's
HINT_STRIDES = {4: 2, 8: 2, 12: 2}  # of input_hint_block's convolutions, by number; 1 for the others


def record(
    w: Weights, cfg: UnetConfig, latent_height: int, latent_width: int, text_tokens: int, batch: int = 1
) -> Graph:
    """The graph of one step: inputs `latents` [B 4 h w], `hint` [1 3 8h 8w] (0 to 1, the same for the whole batch),
    `timesteps` [B], `context` [B T D], where the network has one `label` [B label_dim], and `strength` [1], which
    multiplies every output; outputs `control_0` ... and `control_middle`.
    """
    latents = input_tensor("latents", (batch, cfg.in_channels, latent_height, latent_width))
    hint = input_tensor("hint", (1, 3, HINT_SCALE * latent_height, HINT_SCALE * latent_width))
    strength = input_tensor("strength", (1,))
    steering = unet.record_steering(w, cfg, text_tokens, batch)
    skips = unet.encoder(w, cfg, latents, steering, hint_features(w / "input_hint_block", hint))
    middle = unet.block(w / "middle_block", cfg, skips[-1], steering)
    if (w / "zero_convs").count() != len(skips):
        raise ModelFileError(f"ControlNet of {len(skips)} blocks and {(w / 'zero_convs').count()} outputs")
    controls = {f"control_{i}": ops.conv2d(skip, w / "zero_convs" / i / 0) for i, skip in enumerate(skips)}
    controls["control_middle"] = ops.conv2d(middle, w / "middle_block_out" / 0)
    return Graph({name: control * strength for name, control in controls.items()})


def hint_features(w: Weights, hint: Tensor) -> Tensor:
    """The hint at the size and with the channels of the first block, [1 C h w]."""
    last = w.count() - 1
    x = hint
    for i in range(0, last, 2):
        x = ops.silu(ops.conv2d(x, w / i, stride=HINT_STRIDES.get(i, 1), padding=1))
    return ops.conv2d(x, w / last, padding=1)
