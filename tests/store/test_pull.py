"""Pulls against a hub on the loopback: whole, resumed, refused, wrong, interrupted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from relight.errors import StoreError
from relight.store.manifest import find_manifest
from relight.store.places import Places
from relight.store.pull import Pull
from relight.store.recipes import Recipe, RemoteFile, hub_file
from store.hub_server import COMMIT, Fault, Hub, git_sha1, sha256

REPO = "maker/tiny-gguf"
BODY = bytes(range(256)) * 5000  # 1.28 MB: more than one chunk
OTHER = b"other" * 3000
SMALL = b'{"model": {"type": "Unigram"}}'

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def recipe(hub: Hub) -> Recipe:
    hub.large[REPO, "big.gguf"] = BODY
    hub.large[REPO, "sub/other.bin"] = OTHER
    hub.small[REPO, "tokenizer.json"] = SMALL
    return Recipe(
        "tiny",
        "Tiny",
        (
            RemoteFile("diffusion", REPO, "big.gguf", "main", len(BODY), sha256(BODY), "Apache-2.0"),
            RemoteFile("vae", REPO, "sub/other.bin"),
            RemoteFile("tokenizer", REPO, "tokenizer.json"),
        ),
    )


def only(recipe: Recipe, index: int = 0, **changes: Any) -> Recipe:
    return replace(recipe, files=(replace(recipe.files[index], **changes),))


class Waits(list[float]):
    """Takes the place of waiting, and remembers it."""

    def __call__(self, seconds: float) -> bool:
        self.append(seconds)
        return False


def pull(recipe: Recipe, places: Places, lines: list[str] | None = None, waits: Waits | None = None) -> Any:
    return Pull(recipe, places, (lines if lines is not None else []).append, Waits() if waits is None else waits).run()


def refused(recipe: Recipe, places: Places) -> str:
    with pytest.raises(StoreError) as caught:
        pull(recipe, places)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def place(places: Places, path: str = "big.gguf") -> Path:
    return places.directory / "hub" / REPO / path


def test_every_file_is_fetched_and_written_down(hub: Hub, places: Places, recipe: Recipe) -> None:
    manifest = pull(recipe, places)
    assert place(places).read_bytes() == BODY
    assert place(places, "sub/other.bin").read_bytes() == OTHER
    assert place(places, "tokenizer.json").read_bytes() == SMALL
    assert manifest == find_manifest(places, "tiny")
    assert [(f.role, f.revision, f.size, f.sha256) for f in manifest.files] == [
        ("diffusion", COMMIT, len(BODY), sha256(BODY)),
        ("vae", COMMIT, len(OTHER), sha256(OTHER)),
        ("tokenizer", COMMIT, len(SMALL), sha256(SMALL)),
    ]


def test_nothing_stored_names_a_place_of_this_machine(places: Places, recipe: Recipe, tmp_path: Path) -> None:
    pull(recipe, places)
    assert str(tmp_path) not in (places.directory / "sets/tiny.json").read_text()


def test_bytes_come_from_the_commit_that_was_described(hub: Hub, places: Places, recipe: Recipe) -> None:
    pull(only(recipe), places)
    assert f"/{REPO}/resolve/{COMMIT}/big.gguf" in [each.path for each in hub.asked if each.method == "GET"]


def test_a_second_pull_asks_the_hub_for_no_bytes(hub: Hub, places: Places, recipe: Recipe) -> None:
    pull(recipe, places)
    hub.asked.clear()
    pull(recipe, places)
    assert [each for each in hub.asked if each.method == "GET" and "resolve" in each.path] == []


def test_a_set_with_known_hashes_needs_no_network_once_it_is_here(hub: Hub, places: Places, recipe: Recipe) -> None:
    pull(only(recipe), places)
    hub.asked.clear()
    pull(only(recipe), places)
    assert hub.asked == []


def test_a_cut_connection_goes_on_from_the_byte_it_broke_at(hub: Hub, places: Places, recipe: Recipe) -> None:
    hub.faults["GET", "big.gguf"] = [Fault(cut=300_000), Fault(cut=500_000)]
    waits = Waits()
    pull(only(recipe), places, waits=waits)
    assert [each.range for each in hub.gets("big.gguf")] == [None, "bytes=300000-", "bytes=800000-"]
    assert place(places).read_bytes() == BODY
    assert waits == [1.0, 1.0]  # progress between the tries: the wait does not grow


def test_a_failed_pull_leaves_its_bytes_for_the_next(hub: Hub, places: Places, recipe: Recipe) -> None:
    hub.faults["GET", "big.gguf"] = [Fault(cut=400_000), *(Fault(status=503) for _ in range(5))]
    assert "503" in refused(only(recipe), places)
    assert not place(places).exists()
    hub.asked.clear()
    lines: list[str] = []
    pull(only(recipe), places, lines)
    assert [each.range for each in hub.gets("big.gguf")] == ["bytes=400000-"]
    assert "going on, 400 kB of 1.3 MB" in lines[0]
    assert place(places).read_bytes() == BODY


def test_a_server_without_ranges_sends_all_again(hub: Hub, places: Places, recipe: Recipe) -> None:
    hub.faults["GET", "big.gguf"] = [Fault(cut=300_000), Fault(ignore_range=True)]
    pull(only(recipe), places)
    assert place(places).read_bytes() == BODY


def test_the_start_of_an_older_version_is_not_continued(hub: Hub, places: Places, recipe: Recipe) -> None:
    hub.faults["GET", "sub/other.bin"] = [Fault(cut=100), *(Fault(status=503) for _ in range(5))]
    refused(only(recipe, 1), places)
    hub.large[REPO, "sub/other.bin"] = newer = b"newer" * 3000
    pull(only(recipe, 1), places)
    assert place(places, "sub/other.bin").read_bytes() == newer
    assert [path.name for path in place(places, "sub").iterdir()] == ["other.bin"]


@pytest.mark.parametrize("index", [0, 1, 2], ids=["published hash", "hub's sha256", "git's sha1"])
def test_wrong_bytes_are_an_error_and_are_removed(hub: Hub, places: Places, recipe: Recipe, index: int) -> None:
    path = recipe.files[index].path
    right = (hub.large | hub.small)[REPO, path]
    hub.faults["GET", path] = [Fault(body=bytes(len(right)))]
    message = refused(only(recipe, index), places)
    named = git_sha1(right) if index == 2 else sha256(right)
    assert sha256(bytes(len(right))) in message and named in message and "removed" in message
    assert [each for each in (places.directory / "hub").rglob("*") if each.is_file()] == []
    assert find_manifest(places, "tiny") is None


def test_another_file_than_the_published_one_is_not_even_fetched(hub: Hub, places: Places, recipe: Recipe) -> None:
    message = refused(only(recipe, sha256="0" * 64), places)
    assert "0" * 64 in message and sha256(BODY) in message
    assert hub.gets("big.gguf") == []


def test_too_many_requests_are_repeated_after_the_wait_asked_for(hub: Hub, places: Places, recipe: Recipe) -> None:
    busy = Fault(status=429, headers={"Retry-After": "7"})
    hub.faults["HEAD", "big.gguf"], hub.faults["GET", "big.gguf"] = [busy], [busy]
    waits, lines = Waits(), list[str]()
    pull(only(recipe), places, lines, waits)
    assert waits == [7.0, 7.0]
    assert "waiting 7 s" in lines[0]
    assert place(places).read_bytes() == BODY


def test_a_wait_of_an_hour_is_told_not_done(hub: Hub, places: Places, recipe: Recipe) -> None:
    hub.faults["HEAD", "big.gguf"] = [Fault(status=429, headers={"Retry-After": "3600"})]
    message = refused(only(recipe), places)
    assert "429" in message and "3600 s" in message


def test_a_gated_repository_is_explained(hub: Hub, places: Places, recipe: Recipe) -> None:
    hub.gated.add(REPO)
    message = refused(only(recipe), places)
    assert f"accept the licence at {hub.endpoint}/{REPO}" in message and "HF_TOKEN" in message


def test_the_token_opens_a_gated_repository_and_stays_at_the_hub(
    hub: Hub, places: Places, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated.add(REPO)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    pull(only(recipe), places)
    assert {each.token for each in hub.asked if "/resolve/" in each.path} == {"Bearer hf_right"}
    assert {each.token for each in hub.asked if each.host == "localhost"} == {None}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(status=401), "token"),
        (Fault(status=403), "token"),
        (Fault(status=404), "not found"),
        (Fault(status=418), "HF_ENDPOINT"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Fault) else "",
)
def test_a_refusal_says_the_way_out(hub: Hub, places: Places, recipe: Recipe, fault: Fault, words: str) -> None:
    hub.faults["HEAD", "big.gguf"] = [fault]
    message = refused(only(recipe), places)
    assert str(fault.status) in message and words in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"hf:{REPO}/absent.gguf", "no such file"),
        ("hf:nobody/nothing/x.gguf", "no such repository"),
        (f"hf:{REPO}/big.gguf@v9", "no revision v9"),
    ],
)
def test_what_is_not_there_is_named(places: Places, recipe: Recipe, text: str, words: str) -> None:
    assert words in refused(hub_file(text), places)


def test_one_file_of_the_hub_is_pulled_by_its_address(places: Places, recipe: Recipe) -> None:
    pull(hub_file(f"hf:{REPO}/sub/other.bin@main"), places)
    assert place(places, "sub/other.bin").read_bytes() == OTHER
    assert find_manifest(places, "other") is not None


def test_no_server_ends_after_a_few_tries(
    hub: Hub, places: Places, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:1/{repo_id}/resolve/{revision}/{filename}"
    )
    waits = Waits()
    with pytest.raises(StoreError, match="cannot be reached"):
        pull(only(recipe), places, waits=waits)
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0]


def test_a_silent_server_is_a_timeout(
    hub: Hub, places: Places, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    hold = threading.Event()
    hub.faults["GET", "big.gguf"] = [Fault(cut=100, hold=hold)]
    try:
        pull(only(recipe), places)
    finally:
        hold.set()
    assert [each.range for each in hub.gets("big.gguf")] == [None, "bytes=100-"]


@pytest.mark.parametrize("setting", ["HF_HUB_OFFLINE", "RELIGHT_OFFLINE"])
def test_offline_is_said(places: Places, recipe: Recipe, setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELIGHT_OFFLINE", "1" if setting == "RELIGHT_OFFLINE" else "0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", setting == "HF_HUB_OFFLINE")
    assert setting in refused(only(recipe), places)


def test_too_little_room_says_both_numbers_and_fetches_nothing(
    hub: Hub, places: Places, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 268_000_000))
    message = refused(recipe, places)
    assert "1.3 MB are needed" in message and "268 MB are free" in message and "RELIGHT_MODELS" in message
    assert hub.gets("big.gguf") == []


def test_a_file_in_the_hubs_cache_is_used_where_it_lies(
    hub: Hub, places: Places, recipe: Recipe, tmp_path: Path
) -> None:
    cached = tmp_path / "hub-cache" / "models--maker--tiny-gguf" / "snapshots" / COMMIT / "big.gguf"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(BODY)
    manifest = pull(only(recipe), places)
    assert manifest.files[0].place(places) == cached
    assert hub.gets("big.gguf") == [] and not place(places).exists()


def test_a_broken_file_in_the_store_is_fetched_again(hub: Hub, places: Places, recipe: Recipe) -> None:
    place(places, "sub").mkdir(parents=True)
    place(places, "sub/other.bin").write_bytes(bytes(len(OTHER)))
    pull(only(recipe, 1), places)
    assert place(places, "sub/other.bin").read_bytes() == OTHER


def test_one_failure_stops_the_other_files(hub: Hub, places: Places, recipe: Recipe) -> None:
    hold = threading.Event()
    hub.faults["GET", "sub/other.bin"] = [Fault(status=403)]
    hub.faults["GET", "big.gguf"] = [Fault(cut=1000, hold=hold)]
    try:
        assert "other.bin" in refused(recipe, places)
        assert not hold.is_set() and find_manifest(places, "tiny") is None
    finally:
        hold.set()


def test_two_pulls_at_once_are_refused(places: Places, recipe: Recipe) -> None:
    from relight.store.pull import one_at_a_time

    with one_at_a_time(places):
        assert "another pull" in refused(recipe, places)


COMMAND = """
import argparse, os, sys
from relight.store.commands import add_commands
parser = argparse.ArgumentParser()
add_commands(parser.add_subparsers(required=True), argparse.ArgumentParser(add_help=False))
arguments = parser.parse_args(sys.argv[1:])
try:
    arguments.run(arguments)
except KeyboardInterrupt:
    os._exit(130)  # as the program does
"""


def command(hub: Hub, places: Places, *arguments: str) -> subprocess.Popen[str]:
    environ = os.environ | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(places.directory.parent / "hf"),
        "HF_HUB_CACHE": str(places.directory.parent / "hf/hub"),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        env=environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process there")
def test_ctrl_c_leaves_bytes_that_the_next_run_goes_on_from(hub: Hub, places: Places, recipe: Recipe) -> None:
    hold = threading.Event()
    hub.faults["GET", "big.gguf"] = [Fault(cut=600_000, hold=hold)]
    address = f"hf:{REPO}/big.gguf"
    with command(hub, places, "pull", address) as first:
        assert hub.sending.wait(20)
        part = next(iter_until(place(places).parent, "*.part", 600_000))
        first.send_signal(signal.SIGINT)
        _, noise = first.communicate(timeout=5)  # the server is silent all the while
        hold.set()
    assert first.returncode == 130 and "Traceback" not in noise
    assert "goes on from there" in noise and part.stat().st_size == 600_000
    with command(hub, places, "pull", address) as second:
        out, noise = second.communicate(timeout=20)
    assert second.returncode == 0, noise
    assert "big: complete, 1.3 MB" in out
    assert [each.range for each in hub.gets("big.gguf")] == [None, "bytes=600000-"]
    assert json.loads((places.directory / "sets/big.json").read_text())["files"][0]["sha256"] == sha256(BODY)


def iter_until(folder: Path, pattern: str, size: int) -> Any:
    """The file, as soon as it has its size; the test's timeout ends a wait in vain."""
    while True:
        yield from (path for path in folder.glob(pattern) if path.stat().st_size == size)
