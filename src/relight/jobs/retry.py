"""One request on a pipeline of its own, again in a safer way where the device fails or its memory runs out."""

from __future__ import annotations

from relight.errors import RelightError
from relight.jobs.engine import EngineSettings
from relight.jobs.events import Checkpointed, Event, Listener, Warned
from relight.jobs.pipeline import Pipeline, Result
from relight.jobs.request import GenerateRequest, ModelFiles
from relight.jobs.rungs import RUNGS, following, may_help


def generate(files: ModelFiles, settings: EngineSettings, request: GenerateRequest, tell: Listener) -> Result:
    """All pictures of a request. After a failure everything on the device is given back, and the request goes on from
    its last step in the next safer way; on the CPU only where the user left open where to compute. Raises
    RelightError: the last failure, with what was tried."""
    request = request.with_seed()
    kept: dict[str, Checkpointed] = {}

    def on_event(event: Event) -> None:
        if isinstance(event, Checkpointed):
            kept[event.part] = event
        else:
            tell(event)

    rung, tried = RUNGS[0], []
    while True:
        try:
            with Pipeline(files, rung.settings(settings)) as pipeline:
                asked = rung.request(request)
                return pipeline.generate(asked, on_event, resume=dict(kept), checkpoints=True)
        except RelightError as error:
            if not may_help(error, rung):
                raise
            tried.append(rung.words)
            safer = following(rung)
            if safer is None or (safer.cpu and settings.backend is not None):
                raise type(error)(f"{error} (tried {', then '.join(tried)})") from error
            tell(Warned(f"{error}; trying {safer.words}"))
            rung = safer
