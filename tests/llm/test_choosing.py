"""Samplers beside one another: the first alone, each with its own outcome, in the order they were asked."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from relight.llm.choosing import WORTH_THREADS, Choosing


@dataclass
class Sampler:
    """Gives the row as its token once all those beside it have begun."""

    together: threading.Barrier | None = None
    error: Exception | None = None
    threads: list[int] = field(default_factory=list)

    def sample(self, context: Any, row: int) -> int:
        self.threads.append(threading.get_ident())
        if self.together:
            self.together.wait(10)
        if self.error:
            raise self.error
        return row


def test_all_but_the_first_run_beside_one_another() -> None:
    barrier = threading.Barrier(3)
    samplers = [Sampler(), *(Sampler(barrier) for _ in range(3))]
    choosing = Choosing(WORTH_THREADS, 4)
    assert choosing.choose(None, [(sampler, row) for row, sampler in enumerate(samplers)]) == [0, 1, 2, 3]
    choosing.close()
    assert len({sampler.threads[0] for sampler in samplers[1:]}) == 3


def test_a_small_vocabulary_takes_no_threads() -> None:
    samplers = [Sampler() for _ in range(3)]
    assert Choosing(WORTH_THREADS - 1, 4).choose(None, [(sampler, 7) for sampler in samplers]) == [7, 7, 7]
    assert {sampler.threads[0] for sampler in samplers} == {threading.get_ident()}


def test_what_goes_wrong_with_one_is_its_own() -> None:
    wrong = RuntimeError("no logits")
    choosing = Choosing(WORTH_THREADS, 2)
    assert choosing.choose(None, [(Sampler(), 0), (Sampler(), 1), (Sampler(error=wrong), 2)]) == [0, 1, wrong]
    choosing.close()
