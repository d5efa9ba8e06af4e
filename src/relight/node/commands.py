"""`relight serve`, and what is asked of a running one: `ps`, `jobs`, `cancel`, `unload`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relight.errors import ConfigError, RelightError

if TYPE_CHECKING:
    from relight.node.node import RelightNode

KEY_VARIABLE, URL_VARIABLE = "RELIGHT_API_KEY", "RELIGHT_URL"
USUAL_URL = "http://127.0.0.1:8188"
SWITCH_S = 0.0005
"""A thread that comes back from the database or a pipe waits this long for one that computes, not Python's 5 ms."""


def add_commands(commands: argparse._SubParsersAction[Any], common: argparse.ArgumentParser) -> None:
    """Add `serve`, `ps`, `jobs`, `cancel` and `unload` to the program's commands."""
    p = commands.add_parser("serve", parents=[common], help="pictures and conversations behind one address")
    p.add_argument("--host", metavar="ADDRESS", help="default: 127.0.0.1; another needs a key")
    p.add_argument("--port", type=int, metavar="N", help="default: 8188")
    p.add_argument("--directory", type=Path, metavar="DIR", help="of jobs and results")
    p.add_argument("--llm", metavar="MODEL", help="language model, a GGUF file or its name")
    p.add_argument("--backend", metavar="SPEC", help="as for generate")
    p.add_argument("--max-vram", type=float, metavar="GIB", help="as for generate")
    p.add_argument("--new-key", metavar="NAME", help="make an API key of this name, print it once, and end")
    p.add_argument(
        "--open-to-network", action="store_true", help="let anybody who reaches the address in, without a key"
    )
    p.set_defaults(run=serve)
    asking = argparse.ArgumentParser(add_help=False)
    asking.add_argument("--url", default=os.environ.get(URL_VARIABLE, USUAL_URL), help=f"of the server ({USUAL_URL})")
    asking.add_argument("--json", action="store_true", help="print JSON")
    ps = commands.add_parser("ps", parents=[common, asking], help="what a running server has on its devices")
    ps.set_defaults(run=show_devices)
    jobs = commands.add_parser("jobs", parents=[common, asking], help="the jobs of a running server, newest first")
    jobs.add_argument("--limit", type=int, default=20, metavar="N", help="default: 20")
    jobs.set_defaults(run=show_jobs)
    cancel = commands.add_parser("cancel", parents=[common, asking], help="cancel a job of a running server")
    cancel.add_argument("job", metavar="JOB")
    cancel.set_defaults(run=cancel_job)
    unload = commands.add_parser("unload", parents=[common, asking], help="take an idle model of a running server out")
    unload.add_argument("model", metavar="MODEL")
    unload.set_defaults(run=unload_model)


def serve(a: argparse.Namespace) -> None:
    """Run until told to stop."""
    import asyncio

    from relight.configuration.load import VARIABLE as CONFIG_VARIABLE
    from relight.configuration.load import load
    from relight.gateway import serve as server
    from relight.gateway.app import make_app
    from relight.gateway.keys import Keys, add_key, read_keys
    from relight.gateway.settings import GatewaySettings, Limits
    from relight.node.arenas import share_heaps
    from relight.node.opened import data_folder, open_node
    from relight.workers import priority

    flags = {
        place: value
        for place, value in {
            "server.address": a.host,
            "server.port": a.port,
            "server.directory": str(a.directory) if a.directory is not None else None,
            "server.open_to_network": a.open_to_network or None,
            "language_model.model": a.llm,
            "engine.backend": a.backend,
            "engine.max_vram": None if a.max_vram is None else int(a.max_vram * 2**30),
        }.items()
        if value is not None
    }
    loaded = load(getattr(a, "config", None), flags=flags)
    if loaded.file is not None:
        os.environ[CONFIG_VARIABLE] = str(loaded.file.absolute())  # of the warm-up's process too
    ours = loaded.settings.server
    keys_file = ours.keys_file or data_folder(loaded) / "keys"
    if a.new_key:
        keys_file.parent.mkdir(parents=True, exist_ok=True)
        print(add_key(keys_file, a.new_key))
        return
    settings = GatewaySettings(
        host=ours.address,
        port=ours.port,
        keys=read_keys(keys_file) if keys_file.exists() else Keys(),
        open_to_network=ours.open_to_network,
        hostnames=ours.hostnames,
        origins=ours.origins,
        limits=Limits(
            json_bytes=ours.max_body,
            form_bytes=2 * ours.max_body,
            output_pixels=ours.max_pixels,
            output_pictures=ours.max_batch,
        ),
        drain_s=ours.drain_seconds,
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    os.environ.setdefault(priority.VARIABLE, priority.SERVED)
    sys.setswitchinterval(SWITCH_S)
    share_heaps()
    node, ledger = open_node(loaded)
    app = make_app(node, settings)
    try:
        node.start()

        def started(running: server.Server, port: int) -> None:
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            print(f"relight serves http://{host}:{port} (OpenAI's API under /v1, its own under /api)", flush=True)
            for card in node.models():
                print(f"  {card.kind:6} {card.id}", flush=True)
            if settings.keys:
                print("  an API key is needed (relight serve --new-key NAME makes one)", flush=True)
            else:
                whom = "anybody who reaches it" if settings.open_to_network else "this machine alone"
                print(f"  no API key is needed: it is for {whom}", flush=True)
            threading.Thread(target=print_plan, args=(node,), name="plan", daemon=True).start()

        asyncio.run(server.serve(app, settings, started))
    finally:
        node.stop(app.drain_left())
        ledger.close()


def print_plan(node: RelightNode) -> None:
    """Of the models that stay, or of the first few of pictures, and of the language model."""
    from relight.node.announced import announced

    try:
        for line in announced(node.registry, node.shelf.settings, node.pins, node.talk, node.card):
            print(f"  {line}", flush=True)
    except (OSError, ValueError):
        return  # nobody reads it


def show_devices(a: argparse.Namespace) -> None:
    found = ask(a.url, "GET", "/api/devices")
    found["loaded"] = [model["id"] for model in ask(a.url, "GET", "/v1/models")["data"] if model["loaded"]]
    if a.json:
        print(json.dumps(found))
        return
    for device in found["devices"]:
        total, free = device.get("total_bytes", 0) / 2**30, device.get("free_bytes", 0) / 2**30
        held = ", ".join(
            f"{name} {size / 2**30:.2f} GiB" for name, size in device.get("held_bytes", {}).items() if size
        )
        warming = f"  warming up {device['warming']}" if device.get("warming") else ""
        print(f"{device['name']:10} {device['kind']:9} {total:6.1f} GiB, {free:.1f} free  {held}{warming}")
    print(f"loaded: {', '.join(found['loaded']) or 'no model'}")


def show_jobs(a: argparse.Namespace) -> None:
    found = ask(a.url, "GET", f"/api/jobs?limit={a.limit}")
    if a.json:
        print(json.dumps(found))
        return
    for job in found["jobs"]:
        print(f"{job['id']}  {job['state']:10} {job['model']}  {standing(job)}".rstrip())
    if not found["jobs"]:
        print("no jobs")


def standing(job: Mapping[str, Any]) -> str:
    """How far a job is, or what became of it."""
    if job["error"] is not None:
        return str(job["error"]["message"])
    if job["state"] in ("queued", "running"):
        done = f"{job['stage']} {job['step']}/{job['of']}" if job["step"] is not None else job["stage"] or ""
        place = f"{job['position']} before it" if job["state"] == "queued" and job["position"] is not None else done
        left = f"{job['seconds_left']:.0f} s left" if job["seconds_left"] is not None else ""
        return ", ".join(filter(None, (place, left)))
    return ""


def cancel_job(a: argparse.Namespace) -> None:
    job = ask(a.url, "POST", f"/api/jobs/{a.job}/cancel")
    print(json.dumps(job) if a.json else f"{job['id']}: {job['state']}")


def unload_model(a: argparse.Namespace) -> None:
    answer = ask(a.url, "POST", "/api/unload", {"model": a.model})
    print(json.dumps(answer) if a.json else f"{answer['model']}: not loaded")


def ask(url: str, method: str, path: str, body: Any = None) -> Any:
    """A running server's answer. Raises ConfigError where there is none, RelightError with what it said."""
    content = json.dumps(body).encode() if body is not None else b"" if method == "POST" else None
    request = urllib.request.Request(url.rstrip("/") + path, method=method, data=content)
    if body is not None:
        request.add_header("Content-Type", "application/json")
    if key := os.environ.get(KEY_VARIABLE):
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            said = json.load(error)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            said = error.reason
        raise RelightError(f"{url}: {error.code}: {said}") from error
    except OSError as error:
        raise ConfigError(
            f"{url}: no server answers ({error}); start one with relight serve, or name it with --url or {URL_VARIABLE}"
        ) from error
