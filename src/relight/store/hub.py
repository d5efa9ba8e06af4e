"""The hub, through huggingface_hub: what a file is, its bytes from an offset on, and its refusals in one line each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when huggingface_hub is imported

import httpx2
from huggingface_hub import constants, get_hf_file_metadata, get_session, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

from relight.errors import StoreError
from relight.store.recipes import RemoteFile

LIBRARY = "relight"
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
TOKEN_WAY = "make a token at {hub}/settings/tokens and run `hf auth login`, or set HF_TOKEN"


@dataclass(frozen=True)
class Described:
    """What the hub says of a file: `etag` is its sha256 (large files) or git's sha1 (small ones)."""

    remote: RemoteFile
    commit: str
    etag: str
    size: int


class Interrupted(Exception):
    """The transfer broke in a way that another try may mend: `wait_s` is what the server asked for, 0 where nothing."""

    def __init__(self, reason: str, wait_s: float = 0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def describe(remote: RemoteFile) -> Described:
    """Ask the hub. Raises StoreError for what will not pass, Interrupted for what may."""
    with _refusals(remote):
        url = hf_hub_url(remote.repository, remote.path, revision=remote.revision)
        found = get_hf_file_metadata(url, library_name=LIBRARY)
    if not found.commit_hash or not HASH.fullmatch(found.etag or "") or found.size is None:
        raise StoreError(f"{_hub()}: does not answer as a Hugging Face hub; check HF_ENDPOINT and the proxy")
    return Described(remote, found.commit_hash, str(found.etag), found.size)


@contextmanager
def stream(described: Described, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
    """The file's bytes and the offset they begin at: the one asked for, or 0 where the server sends all of it."""
    remote = described.remote
    url = hf_hub_url(remote.repository, remote.path, revision=described.commit)
    headers = build_hf_headers(library_name=LIBRARY) | {"Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    with (
        _refusals(remote),
        get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response,
    ):
        hf_raise_for_status(response)
        begins = offset if response.status_code == 206 else 0
        stated = response.headers.get("Content-Range", f"bytes {begins}-")
        if not stated.startswith(f"bytes {begins}-"):
            raise Interrupted(f"the server sent {stated} where bytes from {begins} were asked for")
        yield (
            begins,
            response.iter_bytes(),
        )  # as they come: what a larger piece had gathered would be lost with the connection


def _hub() -> str:
    return str(constants.ENDPOINT)


@contextmanager
def _refusals(remote: RemoteFile) -> Iterator[None]:
    """Turn what the hub or the network refuses into StoreError with the way out, or Interrupted."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise StoreError(f"{remote.name}: HF_HUB_OFFLINE keeps relight from the network; unset it to pull") from error
    except HfHubHTTPError as error:
        raise _refused(remote, error) from error
    except httpx2.ConnectError as error:
        raise Interrupted(f"{_hub()} cannot be reached ({error})") from error
    except httpx2.TimeoutException as error:
        raise Interrupted(f"{_hub()} did not answer in time") from error
    except httpx2.TransportError as error:
        raise Interrupted(f"the connection broke ({error})") from error


def _refused(remote: RemoteFile, error: HfHubHTTPError) -> Exception:
    hub, what, status = _hub(), f"{remote.repository}/{remote.path}", error.response.status_code
    page, way = f"{hub}/{remote.repository}", TOKEN_WAY.format(hub=hub)
    match error:
        case GatedRepoError():
            return StoreError(f"{what}: is gated ({status}): accept the licence at {page}, then {way}")
        case RevisionNotFoundError():
            return StoreError(f"{what}: has no revision {remote.revision} ({status}); leave @REVISION out for main")
        case RemoteEntryNotFoundError():
            return StoreError(f"{what}: no such file in this repository ({status}); see {page}/tree/main")
        case RepositoryNotFoundError():
            return StoreError(f"{what}: no such repository, or a private or gated one ({status}); for those, {way}")
    if status == 429 or status >= 500:
        return Interrupted(f"{hub} answered {status}", _asked_wait(error.response))
    if status in (401, 403):
        return StoreError(f"{what}: access refused ({status}); the token is missing or lacks the right: {way}")
    if status == 404:
        return StoreError(f"{what}: not found (404); check the name at {page}")
    if status == 416:
        return Interrupted("the server has fewer bytes than were fetched before")
    return StoreError(f"{what}: {hub} answered {status}; try again later, or name a mirror with HF_ENDPOINT")


def _asked_wait(response: Any) -> float:
    """Seconds of Retry-After; 0 where it is absent or a date."""
    text = response.headers.get("Retry-After", "").strip()
    return float(text) if text.isdigit() else 0.0
