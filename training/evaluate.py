"""Does the picture show what was asked for? By the nearest training picture, and by the colour that is seen.

Features do not come from the trained networks, so these cannot flatter themselves: the picture at 32x32 in RGB, with
how strong its edges are in each of eight directions in a grid of 8x8. Both carry the same weight. Pictures of one
emoji set differ from each other by far more than a good copy differs from its original in these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from captions import Phrasing
from colours import shown
from PIL import Image, ImageDraw
from torch import Tensor

ALIKE = 0.06  # of the mean distance between pictures: closer ones are the same picture under two names


@torch.no_grad()
def features(pictures: Tensor) -> Tensor:
    """[B 3 128 128] in 0..1 -> [B 3584], each half of unit mean square over a typical picture."""
    small = F.interpolate(pictures, size=(32, 32), mode="area")
    grey = F.interpolate(pictures, size=(64, 64), mode="area").mean(1, keepdim=True)
    dx, dy = F.pad(grey[..., 1:] - grey[..., :-1], (0, 1)), F.pad(grey[..., 1:, :] - grey[..., :-1, :], (0, 0, 0, 1))
    strength, angle = (dx**2 + dy**2).sqrt(), torch.atan2(dy, dx)
    place = ((angle / (2 * torch.pi) + 0.5) * 8).long() % 8
    histogram = torch.zeros(len(pictures), 8, 64, 64, device=pictures.device).scatter_(1, place, strength)
    cells = F.avg_pool2d(histogram, 8)
    return torch.cat([small.flatten(1) / 3072**0.5, cells.flatten(1) * (12 / 512**0.5)], 1)


@dataclass
class Judge:
    """Features of every training picture, and whose they are. `alike` are concepts with the same picture."""

    known: Tensor
    owner: Tensor
    alike: dict[int, set[int]]

    @classmethod
    def of(cls, pictures: Tensor, owner: Tensor) -> Judge:
        known = features(pictures).double()  # in TF32 a picture is not even its own neighbour
        distance = torch.cdist(known, known)
        limit = ALIKE * float(distance.mean())
        alike: dict[int, set[int]] = {concept: {concept} for concept in owner.tolist()}
        for a, b in (distance < limit).nonzero().tolist():
            alike.setdefault(int(owner[a]), set()).add(int(owner[b]))
        return cls(known, owner, alike)

    def concepts(self, pictures: Tensor) -> list[int]:
        """Whose picture is nearest, for each."""
        return self.owner[torch.cdist(features(pictures).double(), self.known).argmin(1)].tolist()

    def right(self, pictures: Tensor, phrasings: Sequence[Phrasing]) -> list[bool]:
        found = self.concepts(pictures)
        return [concept in self.alike[p.concept] for concept, p in zip(found, phrasings, strict=True)]


def colours_right(pictures: Tensor, phrasings: Sequence[Phrasing], concepts: Sequence[dict[str, Any]]) -> list[bool]:
    seen = [shown(as_bytes(picture)) for picture in pictures]
    return [word == concepts[p.concept]["colour"] for word, p in zip(seen, phrasings, strict=True)]


def as_bytes(picture: Tensor) -> np.ndarray:
    """[3 H W] in 0..1 -> [H W 3] uint8."""
    return (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def sheet(pictures: Tensor, titles: Sequence[str], columns: int = 10) -> Image.Image:
    """A contact sheet with each picture's wording under it."""
    size, line = pictures.shape[-1], 14
    rows = -(-len(titles) // columns)
    page = Image.new("RGB", (columns * (size + 4), rows * (size + line + 4)), "white")
    write = ImageDraw.Draw(page)
    for place, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        x, y = place % columns * (size + 4), place // columns * (size + line + 4)
        page.paste(Image.fromarray(as_bytes(picture)), (x, y))
        write.text((x + 2, y + size), title[:24], fill="black")
    return page
