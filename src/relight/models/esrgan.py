"""Upscalers of the ESRGAN family: RRDBNet (ESRGAN, Real-ESRGAN x1, x2, x4) and the small SRVGGNetCompact.

Names of weights are those of BasicSR. In shape comments: C channels, H and W height and width of the picture, s scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from relight.errors import ModelFileError
from relight.graph import Graph, Tensor, Weights, input_tensor, ops

SLOPE = 0.2
RESIDUAL = 0.2
IMAGE_CHANNELS = 3


@dataclass(frozen=True, kw_only=True)
class EsrganConfig:
    """`scale`: pixels out along an axis for each pixel in. `blocks`: residual blocks of RRDBNet, or convolutions of
    the compact network. `unshuffle`: pixels along an axis that RRDBNet folds into channels first, by which the sizes of
    the picture must divide."""

    scale: int = 4
    blocks: int = 23
    unshuffle: int = 1
    compact: bool = False

    @classmethod
    def from_weights(cls, w: Weights) -> EsrganConfig:
        """Sizes from names and shapes. Raises WeightMissing, or ModelFileError for a network of other sizes."""
        if "body.0.weight" in w:
            return cls._compact(w)
        unshuffle = factor_of(w.shape("conv_first.weight")[1], "takes")
        factor_of(w.shape("conv_last.weight")[0], "gives", largest=1)
        enlarged = 2 ** enlargements(w)
        if enlarged % unshuffle:
            raise ModelFileError(
                f"an upscaler that folds {unshuffle} pixels and unfolds {enlarged} makes no whole scale"
            )
        return cls(scale=enlarged // unshuffle, blocks=(w / "body").count(), unshuffle=unshuffle)

    @classmethod
    def _compact(cls, w: Weights) -> EsrganConfig:
        factor_of(w.shape("body.0.weight")[1], "takes", largest=1)
        last = (w / "body").count() - 1
        return cls(scale=factor_of(w.shape(f"body.{last}.weight")[0], "gives"), blocks=last // 2 + 1, compact=True)


def factor_of(channels: int, verb: str, largest: int = 8) -> int:
    """f, where the channels are f x f pixels of three. Raises ModelFileError where they are not."""
    factor = math.isqrt(channels // IMAGE_CHANNELS)
    if channels != IMAGE_CHANNELS * factor**2 or not 1 <= factor <= largest:
        raise ModelFileError(f"an upscaler that {verb} {channels} channels: only networks for RGB pictures are known")
    return factor


def enlargements(w: Weights) -> int:
    """How many times RRDBNet doubles: conv_up1, conv_up2 and so on."""
    count = 0
    while f"conv_up{count + 1}.weight" in w:
        count += 1
    return count


def record(w: Weights, cfg: EsrganConfig, height: int, width: int) -> Graph:
    """Input `image` [1 3 H W], 0 to 1; output `upscaled` [1 3 sH sW], about 0 to 1, not clipped. Raises ValueError
    unless the sizes are multiples of `cfg.unshuffle`."""
    if height % cfg.unshuffle or width % cfg.unshuffle:
        raise ValueError(f"a picture of {width}x{height} pixels: this upscaler takes multiples of {cfg.unshuffle}")
    image = input_tensor("image", (1, IMAGE_CHANNELS, height, width))
    return Graph({"upscaled": compact(w / "body", cfg, image) if cfg.compact else rrdb_net(w, cfg, image)})


def rrdb_net(w: Weights, cfg: EsrganConfig, image: Tensor) -> Tensor:
    """Residual blocks at the picture's own size, then doublings."""
    first = x = ops.conv2d(pixel_unshuffle(image, cfg.unshuffle), w / "conv_first", padding=1)
    for i in range(cfg.blocks):
        x = residual_in_residual(w / "body" / i, x)
    x = first + ops.conv2d(x, w / "conv_body", padding=1)
    for i in range(1, enlargements(w) + 1):
        x = conv_leaky(w / f"conv_up{i}", ops.upsample_nearest(x))
    return ops.conv2d(conv_leaky(w / "conv_hr", x), w / "conv_last", padding=1)


def residual_in_residual(w: Weights, x: Tensor) -> Tensor:
    h = x
    for part in ("rdb1", "rdb2", "rdb3"):
        h = dense_block(w / part, h)
    return h * RESIDUAL + x


def dense_block(w: Weights, x: Tensor) -> Tensor:
    """Each convolution sees the results of all before it."""
    seen = x
    for part in ("conv1", "conv2", "conv3", "conv4"):
        seen = ops.concat([seen, conv_leaky(w / part, seen)], axis=1)
    return ops.conv2d(seen, w / "conv5", padding=1) * RESIDUAL + x


def conv_leaky(w: Weights, x: Tensor) -> Tensor:
    return ops.leaky_relu(ops.conv2d(x, w, padding=1), SLOPE)


def compact(w: Weights, cfg: EsrganConfig, image: Tensor) -> Tensor:
    """All convolutions at the picture's own size; what they make is added to its nearest pixels."""
    x, last = image, 2 * (cfg.blocks - 1)
    for i in range(0, last, 2):
        x = ops.prelu(ops.conv2d(x, w / i, padding=1), (w / (i + 1))["weight"])
    x = pixel_shuffle(ops.conv2d(x, w / last, padding=1), cfg.scale)
    return x + (ops.upsample_nearest(image, cfg.scale) if cfg.scale > 1 else image)


def pixel_shuffle(x: Tensor, factor: int) -> Tensor:
    """[1 C*f*f H W] to [1 C fH fW]: channel (c, i, j) is the pixel in row i and column j of each square of f."""
    _, channels, height, width = x.shape
    squares = channels // factor**2
    columns = x.reshape(squares * factor, factor, height * width).permute(0, 2, 1)  # [C*i, H*W, j]
    rows = columns.reshape(squares, factor, height, width * factor).permute(0, 2, 1, 3)  # [C, H, i, W*j]
    return rows.reshape(1, squares, height * factor, width * factor)


def pixel_unshuffle(x: Tensor, factor: int) -> Tensor:
    """The inverse of `pixel_shuffle`: [1 C fH fW] to [1 C*f*f H W]."""
    if factor == 1:
        return x
    _, channels, height, width = (n // d for n, d in zip(x.shape, (1, 1, factor, factor), strict=True))
    rows = x.reshape(channels, height, factor, width * factor).permute(0, 2, 1, 3)  # [C, i, H, W*j]
    columns = rows.reshape(channels * factor, height * width, factor).permute(0, 2, 1)  # [C*i, j, H*W]
    return columns.reshape(1, channels * factor**2, height, width)
