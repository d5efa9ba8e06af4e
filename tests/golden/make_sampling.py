"""Make the golden noise and sigmas: `python tests/golden/make_sampling.py`.

Noise comes from torch's CPU generator, sigmas from diffusers' scheduler as its FLUX pipeline calls it. Needs torch and
diffusers, which nothing else here does. Made with torch 2.13 (with AVX2) and diffusers 0.42.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

SAMPLING = Path(__file__).parent.parent / "sampling"
SEEDS = [0, 42, 2**32 + 5, 2**63 - 1]
SHAPES = [(1,), (5,), (15,), (16,), (17,), (31,), (33,), (100,), (1000,), (16, 64, 64)]
KEPT = 40  # of a draw: its first 20 numbers and its last 20
STEPS = [1, 2, 3, 4, 5, 8, 20, 28, 50]
TOKENS = [16, 256, 1024, 4096, 6144]


def main() -> None:
    save("torch_cpu", {f"{seed}/{'x'.join(map(str, shape))}": draws(seed, shape) for seed in SEEDS for shape in SHAPES})
    save("mixed_draws", {"0": mixed()})
    save("schnell", {f"{steps}": schnell(steps) for steps in STEPS})
    save("dev", {f"{steps}/{tokens}": dev(steps, tokens) for steps in STEPS for tokens in TOKENS})


def save(name: str, arrays: dict[str, np.ndarray]) -> None:
    np.savez_compressed(SAMPLING / f"{name}.npz", **arrays)
    print(name, len(arrays), sum(a.size for a in arrays.values()))


def draws(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Two draws, one after the other, their ends alone where they are long."""
    generator = torch.Generator().manual_seed(seed)
    both = [torch.randn(shape, generator=generator).numpy().reshape(-1) for _ in range(2)]
    return np.stack([np.concatenate([x[: KEPT // 2], x[-KEPT // 2 :]]) if x.size > KEPT else x for x in both])


def mixed() -> np.ndarray:
    """3, 20, 2 and 1 numbers: one that waits for its turn is kept over a draw of whole groups."""
    generator = torch.Generator().manual_seed(7)
    return np.concatenate([torch.randn(size, generator=generator).numpy() for size in (3, 20, 2, 1)])


def schnell(steps: int) -> np.ndarray:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps))
    return scheduler.sigmas.numpy()


def dev(steps: int, tokens: int) -> np.ndarray:
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256
    )
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=calculate_shift(tokens))
    return scheduler.sigmas.numpy()


if __name__ == "__main__":
    main()
