"""Ways of making a picture larger between two passes, by our names and A1111's."""

from __future__ import annotations

from relight.images.latent_upscale import A1111, METHODS
from relight.images.resize import FILTERS

BY_MODEL = "model"
LATENT = "latent"
UPSCALERS = (LATENT, *(f"{LATENT}-{method}" for method in METHODS), *FILTERS, BY_MODEL, *A1111)


def latent_method(upscaler: str) -> str | None:
    """The way of resizing latents that a name stands for; None for those of pixels."""
    if upscaler == LATENT:
        return "bilinear"
    if upscaler in A1111:
        return A1111[upscaler]
    return upscaler.removeprefix(f"{LATENT}-") if upscaler.startswith(f"{LATENT}-") else None
