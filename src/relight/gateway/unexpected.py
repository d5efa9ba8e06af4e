"""The last catch: what went wrong by our own fault is told in the log, without what anybody asked for."""

from __future__ import annotations

import logging
import traceback

from relight.gateway.problem import Problem

log = logging.getLogger(__name__)


def unexpected(error: BaseException) -> Problem:
    """The answer to an error that nobody foresaw. Its text may quote a prompt: above debug only its place is logged."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("unexpected %s at\n%s", type(error).__name__, frames)
    log.debug("unexpected error", exc_info=error)
    return Problem(500, "something went wrong here; the server's log has the place", code="internal_error")
