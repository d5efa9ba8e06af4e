"""Make the golden upscaled latents: `python tests/golden/make_latent_upscale.py`. Needs torch; made with torch 2.13."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

PLACE = Path(__file__).parent.parent / "images/latent_upscale.npz"
SOURCE = (2, 9, 13)
SIZES = [(18, 26), (13, 20), (9, 13), (5, 4), (1, 1), (27, 13)]
METHODS = ["nearest", "nearest-exact", "bilinear", "bilinear-antialiased", "bicubic", "bicubic-antialiased", "area"]


def main() -> None:
    latents = torch.randn(SOURCE, generator=torch.Generator().manual_seed(0))
    arrays = {f"{method}/{h}x{w}": resized(latents, (h, w), method) for method in METHODS for h, w in SIZES}
    np.savez_compressed(PLACE, latents=latents.numpy(), **arrays)
    print(len(arrays), PLACE.stat().st_size)


def resized(latents: torch.Tensor, size: tuple[int, int], method: str) -> np.ndarray:
    mode, antialiased, _ = method.partition("-antialiased")
    smooth = {"antialias": bool(antialiased)} if mode in ("bilinear", "bicubic") else {}
    return torch.nn.functional.interpolate(latents[None], size=size, mode=mode, **smooth)[0].numpy()


if __name__ == "__main__":
    main()
