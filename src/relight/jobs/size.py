"""How large a picture becomes where the request leaves it open: as the picture it begins from or follows."""

from __future__ import annotations

import math

from relight.jobs.request import GenerateRequest
from relight.sampling.latents import nearest

MOST_AREA = 2.0
"""Of the model's usual area. It repeats things in much larger pictures, and an old card takes minutes over them."""


def size_of(request: GenerateRequest, family: str, side: int) -> tuple[int, int]:
    """Width and height in pixels. `side`: of the square that the model usually makes.

    What the request names, it gets. What it leaves open follows the proportions of its picture, as large as that is up
    to twice the usual area; with no picture it is `side`.
    """
    shape = followed(request)
    if shape is None or (request.width and request.height):
        return request.width or side, request.height or side
    height, width = shape
    if request.width or request.height:
        scale = request.width / width if request.width else (request.height or side) / height
    else:
        scale = min(1.0, math.sqrt(MOST_AREA * side * side / (width * height)))
    return (
        request.width or nearest(family, round(width * scale)),
        request.height or nearest(family, round(height * scale)),
    )


def followed(request: GenerateRequest) -> tuple[int, int] | None:
    """Height and width of the picture that the result looks like. A region of one that is painted at full size is put
    back into it, so it need not look like it."""
    if request.redraw is not None:
        return None if request.redraw.only_masked else (request.redraw.image.shape[0], request.redraw.image.shape[1])
    if request.controls:
        return request.controls[0].image.shape[0], request.controls[0].image.shape[1]
    return None
