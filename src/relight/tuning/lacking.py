"""Whether a model was ever warmed up on this machine as it is now; a new driver or engine has no measurements."""

from __future__ import annotations

from contextlib import closing

from relight.jobs.engine import EngineSettings
from relight.jobs.request import ModelFiles
from relight.tuning.tuned import here, signature
from relight.weights.checkpoint import open_component


def lacks(files: ModelFiles, engine: EngineSettings, *, with_gpu: bool) -> bool:
    """Whether its networks were never all timed here with these settings, its backbone on the card where there is one.
    False where measurements are not kept."""
    if engine.tuning is None:
        return False
    found = here(engine.tuning, engine.profile, engine.threads, with_gpu=with_gpu)
    if found is None:
        return True
    tables = [table for table in (found.cpu, found.gpu) if table is not None]
    known = {each.signature for table in tables for each in table.timed}
    on_card = {each.signature for each in found.gpu.timed} if found.gpu is not None else known
    names = {name: network(files, name) for name in files.family.components}
    return not set(names.values()) <= known or names["diffusion"] not in on_card


def network(files: ModelFiles, component: str) -> str:
    with closing(open_component(files.kind(component), files.of(component))) as stored:
        return signature(component, stored)
