"""Operations a GPU is given at a time: few, so that no driver takes it for hung, and no fewer than is quick."""

from __future__ import annotations

from collections.abc import Mapping

from relight.planner.cost import VIEWS
from relight.planner.estimate import Estimator
from relight.tuning.tables import Timed

SIZES = (16, 32, 64, 100)
LONGEST_S = 0.5
"""Drivers reset a device whose submission runs for two seconds."""
CLUSTERED = 3.0
"""Heavy operations stand together: so many times as long as the average may a submission take."""
ALIKE = 1.01
"""Times the best that is within the noise."""


def sizes(timed: Timed, estimator: Estimator, gpu: str) -> list[int]:
    """Those that stay short, for a picture of twice the width and height of the one that was timed, too."""
    larger = {**timed.sizes, **{side: 2 * timed.sizes[side] for side in ("latent_height", "latent_width")}}
    run = estimator.run("diffusion", gpu, larger, timed.options).value
    nodes = sum(node.op not in VIEWS for node in estimator.networks.graph("diffusion", larger).nodes)
    return [count for count in SIZES if count == SIZES[0] or CLUSTERED * count * run / nodes <= LONGEST_S]


def quickest(seconds: Mapping[int, float]) -> int:
    """Of run times by size the smallest that is as good as the best: the rest of the desktop waits less."""
    return min(size for size, taken in seconds.items() if taken <= ALIKE * min(seconds.values()))
