"""Make the golden files of TAESD and the upscalers: `PYTHONPATH=tests python tests/golden/make_small_nets.py`.

Needs torch, diffusers and spandrel, which nothing else here does. Made with torch 2.13, diffusers 0.42 and
spandrel 0.4.2.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from spandrel.architectures.Compact import CompactArch
from spandrel.architectures.ESRGAN import ESRGANArch

from golden import small_nets as s
from golden.weights import random_weights

HERE = Path(__file__).parent


def main() -> None:
    torch.set_grad_enabled(False)
    save("taesd_4", **taesd(4))
    save("taesd_16", **taesd(16))
    for name, (unshuffle, doublings) in s.RRDB_KINDS.items():
        save(name, **upscaled(ESRGANArch(), random_weights(s.rrdb_shapes(unshuffle, doublings))))
    for name, scale in s.COMPACT_KINDS.items():
        save(name, **upscaled(CompactArch(), s.compact_weights(scale)))


def save(name: str, **arrays: np.ndarray) -> None:
    np.savez_compressed(HERE / f"{name}.npz", **arrays)
    print(name, {key: (value.shape, float(np.abs(value).max())) for key, value in arrays.items()})


def taesd(latent_channels: int) -> dict[str, np.ndarray]:
    """Decoder on latents of 5 x 6, some of them past 3 where they are held; encoder on a picture of 48 x 40 pixels."""
    model = AutoencoderTiny(
        encoder_block_out_channels=(s.TAESD_CHANNELS,) * 4,
        decoder_block_out_channels=(s.TAESD_CHANNELS,) * 4,
        latent_channels=latent_channels,
    )
    arrays = random_weights(s.taesd_shapes(latent_channels))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()}, strict=True)
    model.eval()
    random = np.random.RandomState(21)
    latents = 2 * random.standard_normal((2, latent_channels, 5, 6)).astype(np.float32)
    image = random.uniform(-1, 1, (1, 3, 48, 40)).astype(np.float32)
    return {
        "latents": latents,
        "decoded": model.decode(torch.from_numpy(latents)).sample.numpy(),
        "image": image,
        "encoded": model.encode(torch.from_numpy(image)).latents.numpy(),
    }


def upscaled(architecture: ESRGANArch | CompactArch, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A picture of 12 x 20 pixels, which every unshuffling divides. spandrel renames what is in the new spelling."""
    network = architecture.load({name: torch.from_numpy(array) for name, array in arrays.items()})
    network.model.eval()
    image = np.random.RandomState(22).uniform(0, 1, (1, 3, 12, 20)).astype(np.float32)
    out = network.model(torch.from_numpy(image)).numpy()
    assert out.shape[2] == network.scale * 12
    return {"image": image, "upscaled": out}


if __name__ == "__main__":
    main()
