"""TAESD, the tiny autoencoder: latents to picture in an eighteenth of the VAE's arithmetic, and the way back.

Names of weights are diffusers' (`decoder.layers.N`, `encoder.layers.N`). One layout serves TAESD, TAESDXL (4 latent
channels) and TAEF1 (16). In shape comments: B batch, C channels, h and w height and width of the latents.
"""

from __future__ import annotations

from dataclasses import dataclass

from relight.graph import Graph, Tensor, Weights, input_tensor, ops

LATENT_RANGE = 3.0
"""Latents are softly held within plus and minus this before they are decoded."""


@dataclass(frozen=True, kw_only=True)
class TaesdConfig:
    """Blocks per level, in the order they run: the decoder's from the latents up, the encoder's from the picture down.

    `encoder_blocks` is empty where the file has a decoder alone.
    """

    latent_channels: int = 4
    decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
    encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)

    @classmethod
    def from_weights(cls, w: Weights) -> TaesdConfig:
        """Sizes from what layers there are. Raises WeightMissing where there is no decoder."""
        return cls(
            latent_channels=w.shape("decoder.layers.0.weight")[1],
            decoder_blocks=blocks_per_level(w / "decoder" / "layers"),
            encoder_blocks=blocks_per_level(w / "encoder" / "layers"),
        )

    @property
    def scale(self) -> int:
        """Pixels along an axis for each of the latent's: 8 in every published file."""
        return int(2 ** (len(self.decoder_blocks) - 1))


def blocks_per_level(w: Weights) -> tuple[int, ...]:
    """Every level begins with a convolution, and one more makes the result."""
    levels: list[int] = []
    for layer in range(w.count()):
        if "weight" in w / layer:
            levels.append(0)
        elif levels and "conv.0.weight" in w / layer:
            levels[-1] += 1
    return tuple(levels[:-1])


def record_decoder(w: Weights, cfg: TaesdConfig, height: int, width: int, batch: int = 1) -> Graph:
    """For latents of `height` x `width`: input `latents` [B C h w] as the diffusion network has them (not the VAE's:
    no scale or shift is undone); output `image` [B 3 8h 8w], about -1 to 1 as from the VAE."""
    latents = input_tensor("latents", (batch, cfg.latent_channels, height, width))
    return Graph({"image": decoder(w / "decoder" / "layers", cfg, latents)})


def record_encoder(w: Weights, cfg: TaesdConfig, height: int, width: int) -> Graph:
    """For a picture of `height` x `width` pixels: input `image` [1 3 height width], -1 to 1; output `latents`
    [1 C h w] as the diffusion network takes them. Raises ValueError unless the sizes are multiples of 8, and
    WeightMissing where the file has no encoder."""
    if height % cfg.scale or width % cfg.scale:
        raise ValueError(f"a picture of {width}x{height} pixels: TAESD takes multiples of {cfg.scale}")
    image = input_tensor("image", (1, 3, height, width))
    return Graph({"latents": encoder(w / "encoder" / "layers", cfg, image)})


def decoder(w: Weights, cfg: TaesdConfig, latents: Tensor) -> Tensor:
    """Layers are numbered with those that have no weights: the first activation, and each enlargement."""
    x = ops.tanh(latents * (1 / LATENT_RANGE)) * LATENT_RANGE
    x = ops.relu(ops.conv2d(x, w / 0, padding=1))
    layer = 2
    for level, count in enumerate(cfg.decoder_blocks):
        for i in range(layer, layer + count):
            x = block(w / i / "conv", x)
        layer += count
        if level < len(cfg.decoder_blocks) - 1:
            x = ops.upsample_nearest(x)
            layer += 1
        x = ops.conv2d(x, w / layer, padding=1)
        layer += 1
    return x * 2 + -1


def encoder(w: Weights, cfg: TaesdConfig, image: Tensor) -> Tensor:
    x, layer = image * 0.5 + 0.5, 0
    for level, count in enumerate(cfg.encoder_blocks):
        x = ops.conv2d(x, w / layer, padding=1, stride=2 if level else 1)
        layer += 1
        for i in range(layer, layer + count):
            x = block(w / i / "conv", x)
        layer += count
    return ops.conv2d(x, w / layer, padding=1)


def block(w: Weights, x: Tensor) -> Tensor:
    h = ops.relu(ops.conv2d(x, w / 0, padding=1))
    h = ops.relu(ops.conv2d(h, w / 2, padding=1))
    return ops.relu(ops.conv2d(h, w / 4, padding=1) + x)
