"""Every route there is: how it is asked, who may, and what it answers. The app, its description and docs/api.md come
from here or are compared with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from relight.gateway.openai.chat import chat
from relight.gateway.openai.completions import completions
from relight.gateway.openai.embeddings import embeddings
from relight.gateway.openai.image_shapes import EditBody, ImageBody, VariationBody
from relight.gateway.openai.images import edits, generations, variations
from relight.gateway.openai.models import get_model, list_models
from relight.gateway.openai.text_shapes import ChatBody, CompletionBody, EmbeddingBody
from relight.gateway.own.description import description
from relight.gateway.own.jobs import cancel_job, get_job, get_result, job_events, list_jobs, submit_job
from relight.gateway.own.machine import devices, healthz, metrics, plan, readyz, unload
from relight.gateway.own.shapes import JobBody, PlanBody, UnloadBody
from relight.gateway.state import Answer, Call

Access = Literal["open", "key"]
JSON, EVENTS, TEXT, PICTURE = "application/json", "text/event-stream", "text/plain", "image/png"


@dataclass(frozen=True, kw_only=True)
class Route:
    """`access` `open` needs no key; of every other path a key is asked where keys exist, also where there is no route.
    `form` are the files of a multipart body."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    handler: Callable[[Call], Awaitable[Answer]]
    summary: str
    access: Access
    body: type[BaseModel] | None = None
    form: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    status: int = 200
    gives: tuple[str, ...] = (JSON,)


OPENAI = (
    Route(method="GET", path="/v1/models", handler=list_models, summary="models by name", access="key"),
    Route(method="GET", path="/v1/models/{model:path}", handler=get_model, summary="one model", access="key"),
    Route(
        method="POST",
        path="/v1/chat/completions",
        handler=chat,
        summary="the next message of a conversation",
        access="key",
        body=ChatBody,
        gives=(JSON, EVENTS),
    ),
    Route(
        method="POST",
        path="/v1/completions",
        handler=completions,
        summary="text gone on with",
        access="key",
        body=CompletionBody,
        gives=(JSON, EVENTS),
    ),
    Route(
        method="POST",
        path="/v1/embeddings",
        handler=embeddings,
        summary="vectors of texts",
        access="key",
        body=EmbeddingBody,
    ),
    Route(
        method="POST",
        path="/v1/images/generations",
        handler=generations,
        summary="pictures of a prompt",
        access="key",
        body=ImageBody,
        gives=(JSON, EVENTS),
    ),
    Route(
        method="POST",
        path="/v1/images/edits",
        handler=edits,
        summary="a picture painted again, whole or where a mask is transparent",
        access="key",
        body=EditBody,
        form=("image", "mask"),
        gives=(JSON, EVENTS),
    ),
    Route(
        method="POST",
        path="/v1/images/variations",
        handler=variations,
        summary="pictures like a picture",
        access="key",
        body=VariationBody,
        form=("image",),
        gives=(JSON, EVENTS),
    ),
)

OWN = (
    Route(
        method="POST",
        path="/api/jobs",
        handler=submit_job,
        summary="a durable job",
        access="key",
        body=JobBody,
        status=202,
    ),
    Route(
        method="GET",
        path="/api/jobs",
        handler=list_jobs,
        summary="one's jobs, newest first",
        access="key",
        query=("state", "limit", "before"),
    ),
    Route(method="GET", path="/api/jobs/{job}", handler=get_job, summary="a job as it stands", access="key"),
    Route(method="DELETE", path="/api/jobs/{job}", handler=cancel_job, summary="cancel a job", access="key"),
    Route(method="POST", path="/api/jobs/{job}/cancel", handler=cancel_job, summary="cancel a job", access="key"),
    Route(
        method="GET",
        path="/api/jobs/{job}/result",
        handler=get_result,
        summary="the first picture of a job",
        access="key",
        gives=(PICTURE,),
    ),
    Route(
        method="GET",
        path="/api/jobs/{job}/results/{index:int}",
        handler=get_result,
        summary="a picture of a job",
        access="key",
        gives=(PICTURE,),
    ),
    Route(
        method="GET",
        path="/api/jobs/{job}/events",
        handler=job_events,
        summary="each change of a job until its end",
        access="key",
        gives=(EVENTS,),
    ),
    Route(
        method="POST",
        path="/api/plan",
        handler=plan,
        summary="what would run where, in what memory and time",
        access="key",
        body=PlanBody,
    ),
    Route(
        method="POST",
        path="/api/unload",
        handler=unload,
        summary="take an idle model from memory",
        access="key",
        body=UnloadBody,
    ),
    Route(method="GET", path="/api/devices", handler=devices, summary="devices and their memory", access="key"),
    Route(method="GET", path="/healthz", handler=healthz, summary="whether each device works, by work", access="open"),
    Route(method="GET", path="/readyz", handler=readyz, summary="whether new work is taken", access="open"),
    Route(
        method="GET", path="/metrics", handler=metrics, summary="numbers for Prometheus", access="key", gives=(TEXT,)
    ),
    Route(
        method="GET", path="/openapi.json", handler=description, summary="this description, for programs", access="key"
    ),
)

ROUTES = (*OPENAI, *OWN)


def paths(route: Route) -> tuple[str, ...]:
    """OpenAI's routes are there with and without `/v1`: clients are told either address."""
    bare = route.path.removeprefix("/v1")
    return (route.path,) if bare == route.path else (route.path, bare)
