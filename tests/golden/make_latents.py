"""Make the latents of pictures: `python tests/golden/make_latents.py FOLDER`, with a checkout of madebyollin/taesd.

Its FLUX.2 autoencoder encodes the drawings of tests/pictures.py, and decodes noise and half-denoised latents.
Stored in steps of 1/4. Made with its commit 5cccb12 and torch 2.13.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

TESTS = Path(__file__).parent.parent
sys.path[:0] = [sys.argv[1], str(TESTS)]

import taesd  # noqa: E402

import pictures  # noqa: E402

PLACE = TESTS / "images/pictures_latents.npz"
SIDE = 192
STEP = 1 / 4
LEFT_OUT = ("checkers 1", "checkers 2", "stripes 2")  # finer than a latent pixel: nothing is to be seen of them
EMOJI = 3  # of the 40
NOISY = "photograph"


def main() -> None:
    torch.set_grad_enabled(False)
    model = taesd.TAESD(*(f"{sys.argv[1]}/taef2_{part}.pth" for part in ("encoder", "decoder"))).float()
    wanted = {name: picture for name, picture in pictures.every(SIDE) if kept(name)}
    wanted |= {f"plain {level}": np.full((SIDE, SIDE, 3), level, np.uint8) for level in (0, 128, 255)}
    arrays = {name: encoded(model, picture) for name, picture in wanted.items()}
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(arrays[NOISY].shape) / STEP
    for share in (0.5, 1.0):
        mixed = np.rint((1 - share) * arrays[NOISY] + share * noise).clip(-127, 127).astype(np.int8)
        arrays[f"{NOISY}, {share:.0%} noise"] = mixed
        arrays[f"{NOISY}, {share:.0%} noise, decoded"] = decoded(model, mixed)
    np.savez_compressed(PLACE, **arrays)
    print(len(arrays), PLACE.stat().st_size)


def kept(name: str) -> bool:
    if name.startswith("emoji"):
        return int(name.split()[1]) < EMOJI
    return name not in LEFT_OUT


def encoded(model: taesd.TAESD, picture: np.ndarray) -> np.ndarray:
    pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 255
    return np.rint(model.encoder(pixels)[0].numpy() / STEP).clip(-127, 127).astype(np.int8)


def decoded(model: taesd.TAESD, latents: np.ndarray) -> np.ndarray:
    picture = model.decoder(torch.from_numpy(latents * np.float32(STEP))[None])[0].clamp(0, 1)
    return (picture * 255).round().byte().permute(1, 2, 0).numpy()


if __name__ == "__main__":
    main()
