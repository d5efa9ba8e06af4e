"""The networks of a model, each on one executor: what it needs, how it is loaded, how it is run."""

from __future__ import annotations

from relight.workers.components.base import Component
from relight.workers.components.flux import FluxBackbone, Modulation
from relight.workers.components.text import ClipText, T5Text
from relight.workers.components.unet import UnetBackbone
from relight.workers.components.upscaler import Upscaler
from relight.workers.components.vae import TinyDecoder, VaeDecoder, VaeEncoder

NETWORKS: dict[str, type[Component]] = {
    "clip": ClipText,
    "t5": T5Text,
    "modulation": Modulation,
    "flux": FluxBackbone,
    "unet": UnetBackbone,
    "vae": VaeDecoder,
    "vae_encoder": VaeEncoder,
    "taesd": TinyDecoder,
    "upscaler": Upscaler,
}
