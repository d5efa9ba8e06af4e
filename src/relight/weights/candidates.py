"""The networks found in files, ranked: which of several makes the best model together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from relight.weights.identify import Component, Identity
from relight.weights.recognise import FAMILIES

IDEAL_BITS = {"diffusion": 4.5, "t5xxl": 8.5}
"""Bits a weight that the choice leans to, 16 elsewhere: FLUX.1 fits 8 GB at 4.5; T5 loses nothing at 8.5 and halves its
memory."""
BACKBONES = {"flux": "diffusion", "sd1": "unet", "sd2": "unet", "sdxl": "unet"}
SIZE_NUMBERS = 6 * 256
"""What SDXL's UNet is given beside the pooled text."""


@dataclass(frozen=True)
class Candidate:
    """One network of one file."""

    component: Component
    identity: Identity

    @property
    def kind(self) -> str:
        return self.component.kind

    def fits(self, backbone: Candidate | None) -> bool:
        """Whether its sizes are those the backbone needs (an SD autoencoder has 4 latent channels, FLUX's 16)."""
        if backbone is None or self.kind == backbone.kind:
            return True
        sizes, theirs = self.component.sizes, backbone.component.sizes
        if self.component.model not in ("", backbone.component.model):
            return False
        if self.kind == "vae":
            channels = theirs.get("out_channels", 0)
            return (4 if backbone.kind == "diffusion" else 1) * sizes.get("latent_channels", 0) == channels
        return sizes.get("hidden_size") == self._width(theirs)

    def _width(self, theirs: Mapping[str, int]) -> int | None:
        """Of the text that the backbone takes from this encoder."""
        if "text_dim" in theirs:
            return theirs.get("pooled_dim" if self.kind == "clip_l" else "text_dim")
        pooled = theirs.get("label_dim", 0) - SIZE_NUMBERS
        if pooled <= 0:
            return theirs.get("context_dim")
        return pooled if self.kind == "clip_g" else theirs.get("context_dim", 0) - pooled

    def rank(self, backbone: Candidate | None) -> tuple[object, ...]:
        """Lowest is best: whole, fitting, of the backbone's own checkpoint (Stable Diffusion) or alone in its file,
        quantised (FLUX), averaged weights, near the ideal bits, larger."""
        bits = self.component.bits_per_weight
        quantised = self.identity.container.startswith("GGUF") and bits < 15
        own = backbone is not None and backbone.kind == "unet" and self.identity.paths == backbone.identity.paths
        return (
            bool(self.component.missing),
            not self.fits(backbone),
            not own and len(self.identity.components) > 1 and self.kind != "unet",
            not own and backbone is not None and backbone.kind == "unet" and len(backbone.identity.components) > 1,
            self.kind == "diffusion" and not quantised,
            "non_ema" in self.identity.paths[0].name,
            abs(bits - IDEAL_BITS.get(self.kind, 16.0)),
            -self.component.bytes,
            len(self.identity.paths[0].parts),
            str(self.identity.paths[0]),
        )


def best_backbone(found: Mapping[str, Sequence[Candidate]]) -> tuple[str, Candidate | None]:
    """The family and its diffusion network that most of the other networks are there for; FLUX.1 where none is."""
    backbones = [candidate for kind in ("diffusion", "unet") for candidate in found.get(kind, ())]
    if not backbones:
        family = "sdxl" if found.get("clip_g") else "sd2" if found.get("clip_h") else "flux"
        return family, None
    best = min(
        backbones,
        key=lambda each: (bool(each.component.missing), _lacking(each, found), each.kind == "unet", each.rank(None)),
    )
    return best.component.model, best


def _lacking(backbone: Candidate, found: Mapping[str, Sequence[Candidate]]) -> int:
    """How many of its family's kinds have no whole candidate of the right sizes."""
    kinds = FAMILIES[backbone.component.model]
    return sum(
        not any(each.fits(backbone) and not each.component.missing for each in found.get(kind, ())) for kind in kinds
    )
