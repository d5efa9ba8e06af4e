"""/api/jobs: durable jobs, each its owner's alone."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Any

from starlette.responses import Response

from relight.errors import JobNotFound
from relight.gateway.body import json_body
from relight.gateway.catalogue import model_for
from relight.gateway.node import ENDED, ImageAsk, JobEvent, JobState, JobView
from relight.gateway.own.shapes import JobBody
from relight.gateway.pictures import SHOWN, data_url, picture_of_base64, picture_of_url
from relight.gateway.problem import invalid, without_folders
from relight.gateway.reply import EventStream, at_once, sent
from relight.gateway.state import Answer, Call

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
STATES: tuple[JobState, ...] = ("queued", "running", *sorted(ENDED))
MOST_LISTED = 500


async def submit_job(call: Call) -> Answer:
    body = await json_body(call, JobBody)
    call.admit()
    limits = call.gateway.settings.limits
    model = model_for(call.gateway.node, body.model, "image")
    inputs = {
        name: (picture_of_url if text.startswith("data:") or "://" in text[:16] else picture_of_base64)(
            text, f"inputs.{name}", limits
        )
        for name, text in body.inputs.items()
    }
    asked = body.request
    if (asked.batch or 1) > limits.output_pictures:
        raise invalid("request", f"batch is more than {limits.output_pictures} pictures")
    if (asked.width or 1) * (asked.height or 1) * (asked.batch or 1) > limits.output_pixels:
        raise invalid("request", f"batch x width x height is more than {limits.output_pixels} pixels")
    ask = ImageAsk(request=asked.model_dump(exclude_none=True), inputs=inputs)
    node = call.gateway.node
    job = await node.submit_image(
        model.id, ask, owner=call.owner, key=call.key, join=call.repeated, priority=body.priority
    )
    call.gateway.holds.keep(job.id)
    return at_once(shape(job), 202, {"Location": f"/api/jobs/{job.id}"})


async def list_jobs(call: Call) -> Answer:
    query = call.request.query_params
    states = [state for state in STATES if state in query.getlist("state")]
    if len(states) != len(set(query.getlist("state"))):
        raise invalid("state", f"one of {', '.join(STATES)}")
    limit = query.get("limit", "100")
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:6]) <= MOST_LISTED):
        raise invalid("limit", f"1 to {MOST_LISTED}")
    before = query.get("before")
    if before is not None and not ID.fullmatch(before):
        raise invalid("before", "is no job's id")
    jobs = await call.gateway.node.jobs(owner=call.owner, states=states or None, limit=int(limit), before=before)
    return at_once({"jobs": [shape(each) for each in jobs]})


async def get_job(call: Call) -> Answer:
    return at_once(shape(await own_job(call)))


async def cancel_job(call: Call) -> Answer:
    job = await own_job(call)
    return at_once(shape(await call.gateway.node.cancel(job.id)))


async def get_result(call: Call) -> Answer:
    job = await own_job(call)
    index = int(call.request.path_params.get("index", 0))
    if job.ended and job.state != "finished" and not job.results:
        raise invalid(None, f"the job is {job.state} and has no result", "no_result")
    if not job.ended:
        raise invalid(None, f"the job is {job.state}; its events tell when it has a result", "not_finished")
    if index not in (result.index for result in job.results):
        raise JobNotFound(f"the job has {len(job.results)} results, counted from 0")
    content, media_type = await call.gateway.node.result(job.id, index)
    headers = {"ETag": f'"{job.results[index].sha256}"'}
    if media_type not in SHOWN:
        media_type, headers["Content-Disposition"] = "application/octet-stream", "attachment"
    return Response(content, headers=headers, media_type=media_type)


async def job_events(call: Call) -> Answer:
    """Events are snapshots: whoever comes again with Last-Event-ID gets the newest, if it is newer than that."""
    job = await own_job(call)
    last = call.request.headers.get("last-event-id", "")
    after = int(last[:18]) if last.isascii() and last.isdigit() else -1
    return EventStream(call.gateway, events(call, job.id, after), "error")


async def events(call: Call, job_id: str, after: int) -> AsyncGenerator[bytes, None]:
    async with call.gateway.holds.waiting(job_id):
        async with aclosing(call.gateway.node.events(job_id)) as source:
            async for event in source:
                if event.number > after:
                    yield sent(event_shape(job_id, event), "job", event.number)
                if event.ended:
                    return


async def own_job(call: Call) -> JobView:
    """Raises JobNotFound for what is not there, and in the same words for what is another's."""
    job_id = call.request.path_params["job"]
    missing = JobNotFound("there is no job of this id: it was never accepted, or is no longer kept")
    if not ID.fullmatch(job_id):
        raise missing
    try:
        job = await call.gateway.node.job(job_id)
    except JobNotFound:
        raise missing from None
    if job.owner != call.owner:
        raise missing
    return job


def shape(job: JobView) -> dict[str, Any]:
    error = {"code": job.error.code, "message": without_folders(job.error.message)} if job.error else None
    return {
        "id": job.id,
        "kind": job.kind,
        "model": job.model,
        "state": job.state,
        "position": job.position,
        "attempt": job.attempt,
        "stage": job.stage,
        "step": job.step,
        "of": job.of,
        "seconds_left": job.seconds_left,
        "created": moment(job.created),
        "started": moment(job.started),
        "finished": moment(job.finished),
        "error": error,
        "results": [
            {
                "index": each.index,
                "media_type": each.media_type,
                "size": each.size,
                "sha256": each.sha256,
                "about": dict(each.about),
                "url": f"/api/jobs/{job.id}/results/{each.index}",
            }
            for each in job.results
        ],
    }


def event_shape(job_id: str, event: JobEvent) -> dict[str, Any]:
    error = {"code": event.error.code, "message": without_folders(event.error.message)} if event.error else None
    return {
        "id": job_id,
        "state": event.state,
        "position": event.position,
        "stage": event.stage,
        "step": event.step,
        "of": event.of,
        "seconds_left": event.seconds_left,
        "preview": data_url(event.preview) if event.preview else None,
        "error": error,
    }


def moment(time: datetime | None) -> str | None:
    return time.isoformat() if time else None
