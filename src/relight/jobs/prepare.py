"""What a request needs, brought where it is needed before anybody asks for a picture."""

from __future__ import annotations

from functools import partial

from relight.jobs.decode import Decoding
from relight.jobs.run import Run
from relight.jobs.text import TextPlan, TextStage


def ready(run: Run, text: TextStage, plan: TextPlan, decoding: Decoding) -> None:
    """Weights and programs of a request's networks. Where a device holds one program at a time, that which is used
    first is the one that stays. Raises RelightError."""
    first, last = run.settled.passes[0], run.settled.passes[-1]
    sizes = {name: text.encoder_sizes(run, plan, name) for name in run.fleet.files.family.text}
    sizes |= {name: run.sizes(first) for name in ("modulation", "diffusion") if name in run.placement.device}
    run.submit(run.request.decode_with, partial(decoding.prepare, run, last))
    for name in reversed(sizes):
        run.submit(name, partial(run.load, name, sizes[name]))
    run.finish()
