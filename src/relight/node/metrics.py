"""What `/metrics` says of the node: jobs, the card, what works, and what died."""

from __future__ import annotations

from collections.abc import Sequence

from relight.gateway.node import Metric
from relight.ledger import Ledger
from relight.node.card import Card
from relight.node.making import KIND
from relight.node.pictures import PictureLine
from relight.node.shelf import PipelineShelf
from relight.node.talk import NAME, Talk


def metrics(ledger: Ledger, line: PictureLine, talk: Talk, shelf: PipelineShelf, card: Card | None) -> Sequence[Metric]:
    usage, breaker = ledger.usage(), line.breaker
    held = card.held() if card is not None else {}
    return [
        Metric("jobs", "gauge", "Jobs by state", [({"state": s}, n) for s, n in usage.jobs.items()]),
        Metric("ledger_bytes", "gauge", "Files of jobs on the disk", [({}, usage.file_bytes + usage.database_bytes)]),
        Metric("card_held_bytes", "gauge", "Of the card", [({"by": n}, b) for n, b in held.items()]),
        Metric("worker_deaths", "counter", "Under pictures", [({"model": m}, n) for m, n in breaker.deaths().items()]),
        Metric(
            "model_stopped_seconds",
            "gauge",
            "Until a model whose workers died again and again is tried again",
            [({"model": model}, seconds) for model, seconds in breaker.stopped().items()],
        ),
        Metric("busy", "gauge", "1 at work", [({"by": KIND}, line.busy), ({"by": NAME}, talk.busy)]),
        Metric("llm_restarts", "counter", "Of the language model's process", [({}, talk.llm.restarts)]),
        Metric(
            "prompt_cache",
            "counter",
            "Encoders' answers that were on the disk, and that were not",
            [({"found": word}, n) for word, n in zip(("yes", "no"), shelf.prompts(), strict=True)],
        ),
        *line.tally.metrics(),
    ]
