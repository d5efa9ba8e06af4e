"""AutoencoderKL: latents to picture (decoder) and picture to latents (encoder).

Names of weights are those of CompVis/latent-diffusion, which black-forest-labs kept. In shape comments: B batch,
C channels, h and w height and width of the latents.
"""

from __future__ import annotations

from dataclasses import dataclass

from relight.errors import ModelFileError
from relight.graph import Graph, Tensor, Weights, input_tensor, ops

EPS = 1e-6
GROUPS = 32


@dataclass(frozen=True, kw_only=True)
class VaeConfig:
    """`channels` per level, full resolution first. `res_blocks` per level of the encoder; the decoder has one more."""

    channels: tuple[int, ...] = (128, 256, 512, 512)
    latent_channels: int = 16
    res_blocks: int = 2

    def __post_init__(self) -> None:
        if len(self.channels) < 2 or any(channels % GROUPS for channels in self.channels):
            raise ModelFileError(
                f"VAE with channels {self.channels}: needs two levels or more, of multiples of {GROUPS}"
            )

    @classmethod
    def from_weights(cls, w: Weights) -> VaeConfig:
        """Sizes from the shapes of the decoder's weights. Raises WeightMissing where one of them is not there."""
        levels = (w / "decoder" / "up").count()
        return cls(
            channels=tuple(w.shape(f"decoder.up.{i}.block.0.conv1.weight")[0] for i in range(levels)),
            latent_channels=w.shape("decoder.conv_in.weight")[1],
            res_blocks=(w / "decoder" / "up" / 0 / "block").count() - 1,
        )

    @property
    def scale(self) -> int:
        """Pixels along an axis for each of the latent's: 8 in every published file."""
        return int(2 ** (len(self.channels) - 1))


def record_decoder(w: Weights, cfg: VaeConfig, height: int, width: int, batch: int = 1) -> Graph:
    """For latents of `height` x `width`: input `latents` [B C h w] as the VAE made them (unscaled, unshifted);
    output `image` [B 3 8h 8w], about -1 to 1."""
    latents = input_tensor("latents", (batch, cfg.latent_channels, height, width))
    return Graph({"image": decoder(w, cfg, latents)})


def record_encoder(w: Weights, cfg: VaeConfig, height: int, width: int) -> Graph:
    """For a picture of `height` x `width` pixels: input `image` [1 3 height width], -1 to 1; output `moments`
    [1 2C h w], means and then log variances of the latents. Raises ValueError unless the sizes are multiples of 8."""
    if height % cfg.scale or width % cfg.scale:
        raise ValueError(f"a picture of {width}x{height} pixels: the VAE takes multiples of {cfg.scale}")
    return Graph({"moments": encoder(w, cfg, input_tensor("image", (1, 3, height, width)))})


def decoder(w: Weights, cfg: VaeConfig, latents: Tensor) -> Tensor:
    if "post_quant_conv.weight" in w:  # SD and SDXL have it, FLUX has not
        latents = ops.conv2d(latents, w / "post_quant_conv")
    w = w / "decoder"
    x = middle(w / "mid", ops.conv2d(latents, w / "conv_in", padding=1))
    for level in reversed(range(len(cfg.channels))):
        for i in range(cfg.res_blocks + 1):
            x = res_block(w / "up" / level / "block" / i, x)
        if level:
            x = ops.conv2d(ops.upsample_nearest(x), w / "up" / level / "upsample" / "conv", padding=1)
    return norm_silu_conv(w / "norm_out", w / "conv_out", x)


def encoder(w: Weights, cfg: VaeConfig, image: Tensor) -> Tensor:
    quant_conv = w / "quant_conv"
    w = w / "encoder"
    x = ops.conv2d(image, w / "conv_in", padding=1)
    for level in range(len(cfg.channels)):
        for i in range(cfg.res_blocks):
            x = res_block(w / "down" / level / "block" / i, x)
        if level < len(cfg.channels) - 1:
            x = ops.conv2d(ops.pad(x, bottom=1, right=1), w / "down" / level / "downsample" / "conv", stride=2)
    x = norm_silu_conv(w / "norm_out", w / "conv_out", middle(w / "mid", x))
    return ops.conv2d(x, quant_conv) if "weight" in quant_conv else x


def middle(w: Weights, x: Tensor) -> Tensor:
    x = res_block(w / "block_1", x)
    x = x + self_attention(w / "attn_1", x)
    return res_block(w / "block_2", x)


def res_block(w: Weights, x: Tensor) -> Tensor:
    h = norm_silu_conv(w / "norm1", w / "conv1", x)
    h = norm_silu_conv(w / "norm2", w / "conv2", h)
    if "nin_shortcut.weight" in w:
        x = ops.conv2d(x, w / "nin_shortcut")
    return x + h


def norm_silu_conv(norm: Weights, conv: Weights, x: Tensor) -> Tensor:
    return ops.conv2d(ops.silu(ops.group_norm(x, norm, groups=GROUPS, eps=EPS)), conv, padding=1)


def self_attention(w: Weights, x: Tensor) -> Tensor:
    """Every pixel attends to every other, in one head over all channels."""
    batch, channels, height, width = x.shape
    pixels = height * width
    normed = ops.group_norm(x, w / "norm", groups=GROUPS, eps=EPS)
    tokens = normed.reshape(batch, channels, pixels).permute(0, 2, 1)  # [B hw C]
    q, k, v = (ops.linear(tokens, w / name).reshape(batch, pixels, 1, channels) for name in ("q", "k", "v"))
    attended = ops.attention(q, k, v).reshape(batch, pixels, channels)
    return ops.linear(attended, w / "proj_out").permute(0, 2, 1).reshape(*x.shape)
