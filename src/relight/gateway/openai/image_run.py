"""A request for pictures from its submission to its answer: whole, or by events with pictures on the way."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from relight.errors import JobNotFound
from relight.gateway.node import ImageAsk, JobEvent, JobView
from relight.gateway.openai.image_shapes import Pictured
from relight.gateway.pictures import converted
from relight.gateway.problem import Problem, job_problem
from relight.gateway.reply import EventStream, Patient, encoded, sent
from relight.gateway.state import Answer, Call

NO_TOKENS = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}
"""OpenAI's clients expect to be told; relight counts no tokens of pictures."""


class ImageRun:
    """`event` is what OpenAI calls its stream's events."""

    def __init__(self, call: Call, model: str, ask: ImageAsk, body: Pictured, event: str) -> None:
        self._call, self._model, self._ask, self._body, self._event = call, model, ask, body, event
        self._node, self._holds = call.gateway.node, call.gateway.holds
        self._key = call.owner, call.digest
        self._began = datetime.now(UTC)
        self._since = time.monotonic()

    def whole(self) -> Answer:
        return Patient(self._call.gateway, self._whole())

    def stream(self) -> Answer:
        return EventStream(self._call.gateway, self._stream(), "error")

    async def _whole(self) -> bytes:
        job = await self._submitted()
        async with aclosing(self._watched(job)) as events:
            async for _ in events:
                pass
        job = await self._finished(job.id)
        pictures = [await self._picture(job, result.index) for result in job.results]
        answer = {"created": int(job.created.timestamp()), "data": pictures, **self._about(job), "usage": NO_TOKENS}
        return encoded(answer)

    async def _stream(self) -> AsyncGenerator[bytes, None]:
        job = await self._submitted()
        asked, shown = self._body.partial_images or 0, 0
        async with aclosing(self._watched(job)) as events:
            async for event in events:
                if event.preview and event.step and event.of and event.step * (asked + 1) >= event.of * (shown + 1):
                    if shown < asked:
                        yield self._partial(job, event.preview, shown)
                        shown += 1
        job = await self._finished(job.id)
        for result in job.results:
            picture = await self._picture(job, result.index)
            completed = {"type": f"{self._event}.completed", **picture, **self._about(job), "usage": NO_TOKENS}
            yield sent({**completed, "created_at": int(time.time())}, f"{self._event}.completed")

    async def _submitted(self) -> JobView:
        """The job of this request, or the one of the request that it repeats."""
        if self._call.repeated and (known := self._holds.recent(self._key)):
            try:
                job = await self._node.job(known)
                if job.state != "cancelled":  # as its client's leaving may have done
                    return job
            except JobNotFound:
                self._holds.forget(self._key)
        submitting = asyncio.create_task(
            self._node.submit_image(
                self._model, self._ask, owner=self._call.owner, key=self._call.key, join=self._call.repeated
            )
        )
        try:
            job = await asyncio.shield(submitting)
        except asyncio.CancelledError:
            submitting.add_done_callback(self._unwanted)
            raise
        self._holds.remember(self._key, job.id)
        return job

    def _unwanted(self, submitting: asyncio.Task[JobView]) -> None:
        """The client left before it could learn of its job."""
        if not submitting.cancelled() and not submitting.exception() and self._own(submitting.result()):
            self._holds.leave(submitting.result().id)

    def _own(self, job: JobView) -> bool:
        """Whether the job is there for this request alone; one with a key is asked for again."""
        return self._call.key is None and job.created >= self._began

    async def _watched(self, job: JobView) -> AsyncGenerator[JobEvent, None]:
        """The job's events as long as the client is there; nothing for one that has ended."""
        async with self._holds.waiting(job.id, interactive=self._own(job), grace=self._will_be_back):
            if job.ended:
                return
            async with aclosing(self._node.events(job.id)) as events:
                async for event in events:
                    yield event
                    if event.ended:
                        break

    def _will_be_back(self) -> bool:
        return self._call.timed_out_after(time.monotonic() - self._since)

    async def _finished(self, job_id: str) -> JobView:
        """Raises Problem for a job without a result."""
        job = await self._node.job(job_id)
        self._holds.ended(self._key)
        if job.state == "cancelled":
            raise Problem(410, "the job was cancelled", code="cancelled")
        if job.state != "finished":
            error = job.error
            raise job_problem(error.code, error.message) if error else job_problem(job.state, f"the job is {job.state}")
        return job

    async def _picture(self, job: JobView, index: int) -> dict[str, Any]:
        about = {name: job.results[index].about[name] for name in ("seed",) if name in job.results[index].about}
        if self._body.response_format == "url" and not self._body.stream:
            base = f"{self._call.request.url.scheme}://{self._call.request.headers['host']}"
            return {"url": f"{base}/api/jobs/{job.id}/results/{index}", **about}
        content, media_type = await self._node.result(job.id, index)
        body = self._body
        content, _ = await asyncio.to_thread(
            converted, content, media_type, body.output_format, body.output_compression
        )
        return {"b64_json": base64.b64encode(content).decode(), **about}

    def _partial(self, job: JobView, preview: bytes, index: int) -> bytes:
        name = f"{self._event}.partial_image"
        shape = {"type": name, "b64_json": base64.b64encode(preview).decode(), "partial_image_index": index}
        return sent({**shape, **self._about(job), "created_at": int(time.time())}, name)

    def _about(self, job: JobView) -> dict[str, Any]:
        body = self._body
        request = self._ask.request
        size = f"{request['width']}x{request['height']}" if "width" in request else "auto"
        return {"size": size, "output_format": body.output_format, "quality": "auto", "background": "opaque"}
