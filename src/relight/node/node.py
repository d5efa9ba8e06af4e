"""The node: the gateway's questions answered by the ledger, the line of pictures, the language model and the card."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from relight.errors import JobNotFound, ModelStopped, RequestError
from relight.gateway import node as gateway
from relight.images.write import encoded
from relight.jobs.asked import pictures_named, request_of
from relight.jobs.engine import EngineSettings
from relight.jobs.events import Event, Previewed
from relight.ledger import Job, Ledger, NewJob
from relight.llm.asks import ChatAsk, CompletionAsk, EmbedAsk, LoadSettings
from relight.llm.client import Answer, Llm
from relight.node import asks, views
from relight.node.arrivals import Arrivals
from relight.node.card import Card
from relight.node.forecast import machine_of
from relight.node.health import Health
from relight.node.hub import Hub
from relight.node.making import KIND
from relight.node.metrics import metrics
from relight.node.pictures import PictureLine
from relight.node.pins import Pins, bring
from relight.node.prompts import Prompts
from relight.node.registry import EMBEDDED, Registry
from relight.node.shelf import PipelineShelf
from relight.node.spoken import spoken
from relight.node.talk import NAME, Talk
from relight.node.unsaid import unsaid
from relight.node.warming import Candidate, Warming, warm_command
from relight.tuning.lacking import lacks

TIDY_S = 30.0
FINISHED: tuple[gateway.JobState, ...] = ("finished",)
QUEUED: tuple[gateway.JobState, ...] = ("queued",)
LEARNT = 64
"""Pictures of the time before the start from which the pace is known."""
CLERKS, EMBEDDINGS = 4, 8
"""Threads that ask the ledger, and that wait for embeddings."""


class RelightNode:
    """`card` is the GPU that pictures and conversations share; None where there is none. `idle_s`: seconds after which
    an unused model leaves it, 0 for never. `usual`: what requests for pictures leave open, of all models but the one
    that ships."""

    def __init__(
        self,
        ledger: Ledger,
        registry: Registry,
        engine: EngineSettings,
        language: LoadSettings,
        *,
        card: Card | None = None,
        idle_s: float = 600.0,
        health: Health | None = None,
        pins: Pins | None = None,
        warm: bool = False,
        usual: Mapping[str, Any] | None = None,
    ) -> None:
        self.pins, self.usual = pins or Pins(), usual or {}
        self.ledger, self.registry, self.card, self.idle_s = ledger, registry, card, idle_s
        self.shelf = PipelineShelf(registry.files, engine)
        self.talk = Talk(language, card, engine.environment(), hang_s=engine.hang_s)
        self.prompts = Prompts()
        self.health_checks = health or Health(engine, None)
        if card is not None:
            card.join(KIND, self.shelf, pinned=self.pins.image is not None)
            card.join(NAME, self.talk, pinned=self.pins.chat is not None)
            if self.pins.image_bytes:
                card.take(KIND, self.pins.image_bytes)
        self.lives, self.pace, self.hub = views.Lives(), views.Pace(), Hub[gateway.JobEvent]()
        self.line = PictureLine(ledger, self.shelf, card=card, tell=self._told)
        if card is not None:
            self.talk.pictures, self.talk.machine = self.line, lambda: machine_of(engine)[0]
        self.warming = Warming(self._cold, self._idle, card, renew=self._renew) if warm else None
        self._clerks = ThreadPoolExecutor(CLERKS, "ledger")
        self.arrivals = Arrivals(self._accept)
        self._embedding = ThreadPoolExecutor(EMBEDDINGS, "embedding")
        self._stopping = threading.Event()
        self._unwatch = ledger.watch(None, self._changed)
        self._tidy = threading.Thread(target=self._tidy_up, name="tidy", daemon=True)

    def start(self) -> None:
        for job in reversed(self.ledger.jobs(states=FINISHED, limit=LEARNT)):
            self._learn(job)
        self.line.start()
        self._tidy.start()
        if any(entry.kind == "chat" for entry in self.registry.entries().values()):
            threading.Thread(target=self.talk.get_ready, name="language model", daemon=True).start()
        if self.pins != Pins():
            stay = partial(bring, self.pins, self.shelf, self.talk, self.registry)
            threading.Thread(target=stay, name="pinned", daemon=True).start()
        if self.warming is not None:
            self.warming.start()

    def drain(self) -> None:
        self._stopping.set()
        self.line.drain()

    def stop(self, drain_s: float) -> None:
        """What runs may end within `drain_s`; the rest goes on from its checkpoints next time."""
        self.drain()
        if self.warming is not None:
            self.warming.stop()
        self.line.stop(drain_s)
        self._unwatch()
        self.shelf.leave(wholly=True)
        self.talk.close()
        self.health_checks.close()
        self.arrivals.close()
        for pool in (self._clerks, self._embedding):
            pool.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------------------------------------------------ models

    def models(self) -> Sequence[gateway.ModelCard]:
        loaded, stopped = {self.shelf.model, self.talk.model}, self.line.breaker.stopped()
        return [
            gateway.ModelCard(
                id=entry.name,
                kind=entry.kind,
                created=entry.created,
                capabilities=frozenset({"edits"} if entry.kind == "image" else {"tools", "embeddings"}),
                loaded=entry.name in loaded,
                stopped_s=stopped.get(entry.name),
            )
            for entry in self.registry.entries().values()
        ]

    async def unload(self, model: str) -> bool:
        return await asyncio.to_thread(self._unload, model)

    def _unload(self, model: str) -> bool:
        for name, tenant in ((KIND, self.shelf), (NAME, self.talk)):
            if tenant.model == model:
                return self.card.send_away(name) if self.card is not None else tenant.leave(wholly=True)
        return True

    # -------------------------------------------------------------------------------------------------------- jobs

    async def _quickly[**P, T](self, ask: Callable[P, T], *of: P.args, **named: P.kwargs) -> T:
        """Ask the ledger in a thread that never waits for a model or a device."""
        return await asyncio.get_running_loop().run_in_executor(self._clerks, partial(ask, *of, **named))

    async def submit_image(
        self, model: str, ask: gateway.ImageAsk, *, owner: str, key: str | None, join: bool, priority: int = 0
    ) -> gateway.JobView:
        make = partial(self._asked_for, model, ask, owner, key, join, priority)
        if ask.inputs:  # to unpack and to write pictures takes a while, in which the others are not to wait
            return await self._quickly(lambda: self._view(self.ledger.submit(make(), join=join)))
        return await self.arrivals.submit(make, join)

    def _accept(self, asks: Sequence[tuple[NewJob, bool]]) -> list[gateway.JobView | Exception]:
        outcomes = self.ledger.submit_all(asks)
        seen = iter(self._views([job for job in outcomes if isinstance(job, Job)]))
        return [next(seen) if isinstance(outcome, Job) else outcome for outcome in outcomes]

    def _asked_for(
        self, model: str, ask: gateway.ImageAsk, owner: str, key: str | None, join: bool, priority: int
    ) -> NewJob:
        self._came()
        self.registry.entry(model, "image")
        self.pins.check(model, "image")
        lacking = [name for name in pictures_named(ask.request) if name not in ask.inputs]
        if lacking:
            raise RequestError(f"no picture {lacking[0]!r} came with the request")
        chosen = unsaid(self.usual, ask.request) if model != EMBEDDED else {}
        if not ask.request.get("controls"):
            request_of(dict(ask.request) | chosen, ask.inputs)  # what is wrong is told at once, not by a failed job
        if ask.request.get("seed") is None:
            chosen["seed"] = random.randrange(2**32)
        new = NewJob(
            kind=KIND,
            model=model,
            request=dict(ask.request),
            chosen=chosen,
            inputs=dict(ask.inputs),
            owner=owner,
            priority=priority,
            key=key,
        )
        new = replace(new, predicted_seconds=self.pace.apart(views.kind_of(new)))
        self._check_stopped(new, join)
        return new

    def _check_stopped(self, new: NewJob, join: bool) -> None:
        """Raises ModelStopped; not for a job that is there already, whose client asks again."""
        try:
            self.line.breaker.check(new.model)
        except ModelStopped:
            if self.ledger.same(new, join=join) is None:
                raise

    async def job(self, job_id: str) -> gateway.JobView:
        return await self._quickly(lambda: self._view(self.ledger.get(job_id)))

    async def jobs(
        self, *, owner: str | None, states: Sequence[gateway.JobState] | None, limit: int, before: str | None
    ) -> Sequence[gateway.JobView]:
        def found() -> list[gateway.JobView]:
            return self._views(self.ledger.jobs(owner=owner, states=states, limit=limit, before=before))

        return await self._quickly(found)

    async def cancel(self, job_id: str) -> gateway.JobView:
        def cancelled() -> gateway.JobView:
            job = self.ledger.cancel(job_id)
            self.line.cancel(job_id)
            return self._view(job)

        return await self._quickly(cancelled)

    async def result(self, job_id: str, index: int) -> tuple[bytes, str]:
        return await self._quickly(self.ledger.result, job_id, index)

    async def events(self, job_id: str) -> AsyncGenerator[gateway.JobEvent]:
        listening = self.hub.listen(job_id, lambda event: event.ended)
        following = asyncio.ensure_future(anext(listening))
        await asyncio.sleep(0)  # so that it listens before the job is looked at
        try:
            first = await self._quickly(lambda: self._event(self.ledger.get(job_id), with_preview=True))
            yield first
            while not first.ended:
                try:
                    event = await following
                except StopAsyncIteration:
                    return
                following = asyncio.ensure_future(anext(listening))
                yield event
                if event.ended:
                    return
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await listening.aclose()

    def _told(self, job_id: str, event: Event) -> None:
        """From the threads that make pictures."""
        try:
            job = self.ledger.get(job_id)
        except JobNotFound:
            return
        if job.ended:
            return  # a step that was on its way when the job was cancelled
        preview = encoded(event.image, format="png") if isinstance(event, Previewed) else None
        live = self.lives.tell(job_id, event, preview)
        seen = views.view(job, live, None, views.seconds_left(job, live, 0.0, self.pace))
        self.hub.publish(job_id, views.event(seen, live, with_preview=preview is not None))

    def _changed(self, job: Job) -> None:
        """From the ledger, after each change."""
        if job.state == "finished":
            self._learn(job)
            if self.pace.wrong(job):
                self.ledger.predict(lambda waiting: self.pace.apart(views.kind_of(waiting)))
        live = self.lives.changed(job.id)
        if self.hub.heard(job.id):
            self.hub.publish(job.id, views.event(self._view(job), live, with_preview=False))
        if job.ended:
            self.lives.forget(job.id)

    def _learn(self, job: Job) -> None:
        if job.started and job.finished:
            seconds = (job.finished - job.started).total_seconds()
            self.pace.took(views.kind_of(job), seconds, job.finished.timestamp())

    def _event(self, job: Job, *, with_preview: bool) -> gateway.JobEvent:
        return views.event(self._view(job), self.lives.get(job.id), with_preview=with_preview)

    def _view(self, job: Job) -> gateway.JobView:
        return self._seen(job, self.ledger.position(job.id) if job.state == "queued" else None)

    def _views(self, jobs: Sequence[Job]) -> list[gateway.JobView]:
        positions = self.ledger.positions() if any(job.state == "queued" for job in jobs) else {}
        return [self._seen(job, positions.get(job.id)) for job in jobs]

    def _seen(self, job: Job, position: int | None) -> gateway.JobView:
        live = self.lives.get(job.id)
        ahead = (position or 0) * self.pace.apart(None) + self.line.breaker.stopped().get(job.model, 0.0)
        return views.view(job, live, position, views.seconds_left(job, live, ahead, self.pace))

    # ------------------------------------------------------------------------------------------------------- words

    def chat(self, ask: gateway.ChatAsk) -> AsyncGenerator[gateway.ChatPiece]:
        return self._talk(ask.model, partial(asks.chat, ask))

    def complete(self, ask: gateway.CompletionAsk) -> AsyncGenerator[gateway.ChatPiece]:
        return self._talk(ask.model, partial(asks.completion, ask))

    async def _talk(
        self, model: str, asked: Callable[[], ChatAsk | CompletionAsk]
    ) -> AsyncGenerator[gateway.ChatPiece]:
        self._came()
        wanted, path = asked(), self.registry.chat_file(model)
        self.pins.check(model, "chat")

        def use() -> AbstractContextManager[Llm]:
            return self.talk.use(model, path, wanted.limits.max_tokens, self.prompts.unread(model, wanted))

        def begin(llm: Llm) -> Answer:
            answer = llm.chat(wanted) if isinstance(wanted, ChatAsk) else llm.complete(wanted)
            self.prompts.read(model, wanted)
            return answer

        async with aclosing(spoken(use, begin)) as pieces:
            async for piece in pieces:
                if piece.usage is not None:
                    self.line.tally.answered(model, piece.usage)
                yield asks.piece(piece)

    async def embed(self, ask: gateway.EmbeddingAsk) -> gateway.Embeddings:
        self._came()
        path = self.registry.chat_file(ask.model)
        self.pins.check(ask.model, "chat")

        def embed() -> gateway.Embeddings:
            with self.talk.use(ask.model, path) as llm:
                vectors, tokens = llm.embed(EmbedAsk(texts=ask.inputs, dimensions=ask.dimensions))
            return gateway.Embeddings([[float(x) for x in row] for row in vectors], tokens)

        return await asyncio.get_running_loop().run_in_executor(self._embedding, embed)

    # ------------------------------------------------------------------------------------------------- the machine

    async def plan(self, ask: gateway.PlanAsk) -> Mapping[str, Any]:
        from relight.node.forecast import forecast

        return await asyncio.to_thread(forecast, self.registry, self.shelf.settings, ask, self.talk.context)

    async def devices(self) -> Sequence[Mapping[str, Any]]:
        held = self.card.held() if self.card is not None else {}
        found = await asyncio.to_thread(self.health_checks.devices)
        main = self.health_checks.device or next((d["name"] for d in found if d["type"] == "cpu"), None)
        return [
            {
                "name": device["name"],
                "kind": device["type"],
                "description": device["description"],
                "total_bytes": device["memory_total"],
                "free_bytes": device["memory_free"],
                "held_bytes": held if device["type"] == "gpu" else {},
                "warming": self.warming.model if self.warming is not None and device["name"] == main else None,
            }
            for device in found
        ]

    async def health(self) -> gateway.Health:
        return gateway.Health(tuple(await asyncio.to_thread(self.health_checks.run)))

    def ready(self) -> gateway.Ready:
        if self._stopping.is_set():
            return gateway.Ready(False, "the node is stopping")
        return gateway.Ready(True)

    def metrics(self) -> Sequence[gateway.Metric]:
        return metrics(self.ledger, self.line, self.talk, self.shelf, self.card)

    def _came(self) -> None:
        if self.warming is not None:
            self.warming.came()

    def _idle(self) -> bool:
        return not (self.line.busy or self.talk.busy or self.ledger.jobs(states=QUEUED, limit=1))

    def _renew(self, model: str) -> None:
        """What is open computes as before it was timed: the next request opens it anew, or this, where it stays."""
        if self.shelf.model == model and self.shelf.leave(wholly=True) and self.pins.image == model:
            bring(Pins(model), self.shelf, self.talk, self.registry)

    def _cold(self) -> Iterator[Candidate]:
        """Models of pictures that are pinned or were asked for lately, and were never timed here; at the size that was
        asked for last."""
        stays = self.pins.image
        wanted = {stays: size_of(vars(self.registry.usual(stays)))} if stays is not None else {}
        wanted |= {
            job.model: size_of({**job.chosen, **job.request}) for job in reversed(self.ledger.jobs(limit=LEARNT))
        }
        warmed = self.warming.warmed if self.warming is not None else []
        engine, device, there = self.shelf.settings, self.health_checks.device, self.registry.entries()
        for name, size in wanted.items():
            if name in warmed or name not in there or not (where := self.registry.where(name)):
                continue
            if lacks(self.registry.files(name), engine, with_gpu=self.card is not None):
                yield Candidate(name, partial(warm_command, where, size, engine, device))

    def _tidy_up(self) -> None:
        """What is idle leaves the card, attempts that are silent are lost, old jobs go."""
        swept = time.monotonic()
        while not self._stopping.wait(min(TIDY_S, self.idle_s or TIDY_S)):
            self.ledger.expire()
            if self.card is not None and self.idle_s:
                self.card.leave_if_idle(self.idle_s)
            if time.monotonic() - swept > 600:
                self.ledger.sweep()
                swept = time.monotonic()


def size_of(request: Mapping[str, Any]) -> str | None:
    width, height = request.get("width"), request.get("height")
    return f"{width}x{height}" if width and height else None
