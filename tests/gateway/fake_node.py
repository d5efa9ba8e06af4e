"""A node in memory: models of each kind, jobs that take as many steps as asked, text that repeats what it was told."""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import json
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from PIL import Image

from relight.errors import JobNotFound, KeyConflict, QueueFull, RequestError
from relight.gateway.node import (
    ENDED,
    ChatAsk,
    ChatPiece,
    Check,
    CompletionAsk,
    EmbeddingAsk,
    Embeddings,
    Health,
    ImageAsk,
    JobError,
    JobEvent,
    JobState,
    JobView,
    Metric,
    ModelCard,
    PlanAsk,
    Ready,
    ResultView,
    Sampling,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)

MODELS = (
    ModelCard(id="painter", kind="image", created=1_700_000_000, capabilities=frozenset({"edits"}), loaded=True),
    ModelCard(id="talker", kind="chat", created=1_700_000_001, capabilities=frozenset({"tools"})),
    ModelCard(id="seer", kind="chat", created=1_700_000_002, capabilities=frozenset({"tools", "vision"})),
    ModelCard(id="measurer", kind="embedding", created=1_700_000_003, capabilities=frozenset({"embeddings"})),
)


def picture(width: int = 64, height: int = 64, kind: str = "PNG", colour: tuple[int, ...] = (200, 30, 30)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB" if len(colour) == 3 else "RGBA", (width, height), colour).save(out, kind)
    return out.getvalue()


@dataclass
class Running:
    """A job, what it was asked, and who is to be told of its changes."""

    view: JobView
    ask: ImageAsk
    identity: str
    events: list[JobEvent] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    task: asyncio.Task[None] | None = None


@dataclass
class FakeNode:
    """`step_s` is how long a step or a token takes; `hold`, once set, keeps everything from its second step."""

    step_s: float = 0.0
    steps: int = 4
    most_queued: int = 1000
    ready_now: Ready = Ready(True)
    health_now: Health = Health((Check("vulkan0", True, 0.01),))
    fails_with: Exception | None = None
    job_fails_with: JobError | None = None
    hold: asyncio.Event | None = None
    talking: int = 0
    watching: int = 0
    submitted: int = 0
    jobs_by_id: dict[str, Running] = field(default_factory=dict)
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    asked: list[Any] = field(default_factory=list)
    counter: itertools.count[int] = field(default_factory=itertools.count)

    def models(self) -> Sequence[ModelCard]:
        return MODELS

    # Pictures

    async def submit_image(
        self, model: str, ask: ImageAsk, *, owner: str, key: str | None, join: bool, priority: int = 0
    ) -> JobView:
        await asyncio.sleep(0)
        if self.fails_with:
            raise self.fails_with
        self.asked.append(ask)
        inputs = {name: hashlib.sha256(each).hexdigest() for name, each in ask.inputs.items()}
        identity = json.dumps([model, owner, ask.request, inputs], sort_keys=True)
        if key is not None and (owner, key) in self.keys:
            known = self.jobs_by_id[self.keys[owner, key]]
            if known.identity != identity:
                raise KeyConflict("Idempotency-Key: it was used for another request")
            return known.view
        if join:
            for each in self.jobs_by_id.values():
                if each.identity == identity and not each.view.ended:
                    return each.view
        if len(self.running()) >= self.most_queued:
            raise QueueFull(f"{self.most_queued} jobs wait", 7)
        return self._start(model, ask, owner, key, identity)

    def _start(self, model: str, ask: ImageAsk, owner: str, key: str | None, identity: str) -> JobView:
        self.submitted += 1
        view = JobView(
            id=f"job-{next(self.counter)}",
            kind="image",
            model=model,
            owner=owner,
            state="queued",
            created=datetime.now(UTC),
            position=0,
        )
        running = self.jobs_by_id[view.id] = Running(view, ask, identity)
        running.events.append(JobEvent(number=0, state="queued", position=0))
        if key is not None:
            self.keys[owner, key] = view.id
        running.task = asyncio.create_task(self._make(running))
        return view

    def running(self) -> list[Running]:
        return [each for each in self.jobs_by_id.values() if not each.view.ended]

    async def _make(self, job: Running) -> None:
        steps = job.ask.request.get("steps", self.steps)
        for step in range(1, steps + 1):
            await asyncio.sleep(self.step_s)
            if self.hold is not None and step > 1:
                await self.hold.wait()
            if job.view.ended:
                return
            preview = picture(8, 8) if job.ask.request.get("preview_every") else None
            await self._change(
                job, state="running", stage="denoise", step=step, of=steps, seconds_left=0.5, preview=preview
            )
        if self.job_fails_with:
            await self._change(job, state="failed", error=self.job_fails_with)
            return
        content = self._result(job)
        seed = job.ask.request.get("seed", 5)
        results = tuple(
            ResultView(i, "image/png", len(content), hashlib.sha256(content).hexdigest(), {"seed": seed + i})
            for i in range(job.ask.request.get("batch", 1))
        )
        await self._change(job, state="finished", results=results)

    async def _change(self, job: Running, state: JobState, **changes: Any) -> None:
        if job.view.ended:
            return
        results = changes.pop("results", job.view.results)
        preview = changes.pop("preview", None)
        now = datetime.now(UTC)
        times = {"finished": now} if state in ENDED else {"started": job.view.started or now}
        job.view = replace(job.view, state=state, position=None, results=results, **times, **changes)
        job.events.append(JobEvent(number=len(job.events), state=state, preview=preview, **changes))
        async with job.changed:
            job.changed.notify_all()

    def _job(self, job_id: str) -> Running:
        if job_id not in self.jobs_by_id:
            raise JobNotFound(f"no job {job_id}")
        return self.jobs_by_id[job_id]

    async def job(self, job_id: str) -> JobView:
        return self._job(job_id).view

    async def jobs(
        self, *, owner: str | None, states: Sequence[JobState] | None, limit: int, before: str | None
    ) -> Sequence[JobView]:
        views = [each.view for each in reversed(self.jobs_by_id.values())]
        if before is not None:
            ids = [each.id for each in views]
            views = views[ids.index(before) + 1 :] if before in ids else []
        kept = [each for each in views if each.owner == owner and (states is None or each.state in states)]
        return kept[:limit]

    async def cancel(self, job_id: str) -> JobView:
        job = self._job(job_id)
        await self._change(job, state="cancelled")
        return job.view

    async def result(self, job_id: str, index: int) -> tuple[bytes, str]:
        return self._result(self._job(job_id)), "image/png"

    def _result(self, job: Running) -> bytes:
        """Of the size that was asked for, if that is made quickly."""
        return picture(*(min(job.ask.request.get(side, 64), 256) for side in ("width", "height")))

    async def events(self, job_id: str) -> AsyncGenerator[JobEvent, None]:
        job = self._job(job_id)
        self.watching += 1
        try:
            seen = len(job.events) - 1
            while True:
                event = job.events[seen]
                yield event
                if event.ended:
                    return
                seen += 1
                async with job.changed:
                    await job.changed.wait_for(lambda: len(job.events) > seen)  # noqa: B023
        finally:
            self.watching -= 1

    # Text

    async def chat(self, ask: ChatAsk) -> AsyncGenerator[ChatPiece, None]:
        self.asked.append(ask)
        said = "".join(part for part in ask.messages[-1].parts if isinstance(part, str))
        if ask.tools and ask.tool_choice != "none" and ask.messages[-1].role == "user":
            name = ask.tools[0]["name"] if ask.tool_choice in ("auto", "required") else ask.tool_choice
            parts = [
                ChatPiece(tool_calls=(ToolCallDelta(0, "call_1", name, ""),)),
                ChatPiece(tool_calls=(ToolCallDelta(0, arguments='{"city":'),)),
                ChatPiece(tool_calls=(ToolCallDelta(0, arguments=' "Oslo"}'),)),
                ChatPiece(finish="tool_calls", usage=Usage(7, 3)),
            ]
        elif ask.response_schema is not None:
            value = dict.fromkeys(ask.response_schema.get("properties", {"answer": {}}), 1)
            parts = [ChatPiece(text=json.dumps(value)), ChatPiece(finish="stop", usage=Usage(7, 5))]
        else:
            thoughts = ("Let me", " see.") if ask.reasoning_effort else ()
            parts = [*(ChatPiece(reasoning=each) for each in thoughts), *self._echo(said, ask.sampling)]
        async with self._talk(parts) as pieces:
            async for piece in pieces:
                yield piece

    async def complete(self, ask: CompletionAsk) -> AsyncGenerator[ChatPiece, None]:
        self.asked.append(ask)
        said = ask.prompt if isinstance(ask.prompt, str) else f"{len(ask.prompt)} tokens"
        async with self._talk(self._echo(said, ask.sampling)) as pieces:
            async for piece in pieces:
                yield piece

    def _echo(self, said: str, sampling: Sampling) -> list[ChatPiece]:
        words = (said or "nothing").split(" ")[: sampling.max_tokens or 1000]
        parts = []
        for i, word in enumerate(words):
            top = tuple((f"{word}{n}", -1.0 - n) for n in range(sampling.logprobs or 0))
            logprobs = (TokenLogprob(word, -0.5, top),) if sampling.logprobs is not None else ()
            parts.append(ChatPiece(text=word if i == 0 else f" {word}", logprobs=logprobs))
        finish = "length" if len(words) == sampling.max_tokens else "stop"
        return [*parts, ChatPiece(finish=finish, usage=Usage(len(words), len(words), 1))]  # type: ignore[arg-type]

    def _talk(self, parts: Sequence[ChatPiece]) -> Talk:
        return Talk(self, parts)

    async def embed(self, ask: EmbeddingAsk) -> Embeddings:
        if self.fails_with:
            raise self.fails_with
        size = ask.dimensions or 8
        vectors = [[math.sin(len(each) + i) for i in range(size)] for each in ask.inputs]
        return Embeddings(vectors, sum(map(len, ask.inputs)))

    # The machine

    async def plan(self, ask: PlanAsk) -> Mapping[str, Any]:
        if ask.width and ask.width > 2048:
            raise RequestError("width: too wide for this card")
        return {"model": ask.model, "seconds": 12.5}

    async def devices(self) -> Sequence[Mapping[str, Any]]:
        return [{"name": "vulkan0", "total_bytes": 8 << 30, "free_bytes": 2 << 30}]

    async def unload(self, model: str) -> bool:
        return not self.running()

    async def health(self) -> Health:
        await asyncio.sleep(self.step_s)
        return self.health_now

    def ready(self) -> Ready:
        return self.ready_now

    def drain(self) -> None:
        self.ready_now = Ready(False, "the node is stopping")

    def metrics(self) -> Sequence[Metric]:
        return [Metric("device_used_bytes", "gauge", "Bytes in use", [({"device": "vulkan0"}, 5.0)])]


class Talk:
    """Text on its way, counted while it is."""

    def __init__(self, node: FakeNode, parts: Sequence[ChatPiece]) -> None:
        self._node, self._parts = node, parts

    async def __aenter__(self) -> AsyncGenerator[ChatPiece, None]:
        self._node.talking += 1
        return self._pieces()

    async def __aexit__(self, *error: object) -> None:
        self._node.talking -= 1

    async def _pieces(self) -> AsyncGenerator[ChatPiece, None]:
        if self._node.fails_with:
            raise self._node.fails_with
        for i, part in enumerate(self._parts):
            await asyncio.sleep(self._node.step_s)
            if self._node.hold is not None and i > 0:
                await self._node.hold.wait()
            yield part
