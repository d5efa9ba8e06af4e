"""The command of the warm-up: relight warm."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from relight.errors import ConfigError, RelightError


def add_commands(commands: argparse._SubParsersAction[Any], common: argparse.ArgumentParser) -> None:
    """Add `warm` to the program's commands."""
    p = commands.add_parser(
        "warm", parents=[common], help="build the driver's pipelines and find the quickest way to compute a model here"
    )
    p.add_argument("models", metavar="MODEL", nargs="*", help="default: the settings' one, else all that were pulled")
    p.add_argument("--size", metavar="WxH", action="append", help="pixels (repeatable); default: what a model is for")
    p.add_argument("--batch", type=int, default=1, metavar="N")
    p.add_argument("--cfg-scale", type=float, metavar="X")
    p.add_argument("--threads", type=int, metavar="N")
    p.add_argument("--max-vram", type=float, metavar="GIB")
    p.add_argument("--device", metavar="NAME", help="a GPU by its name in relight devices; default: the first real one")
    p.add_argument("--backend", metavar="SPEC", help="as for generate: what is sent somewhere is timed there alone")
    p.add_argument("--quick", action="store_true", help="only what is planned: no alternatives are timed")
    p.add_argument("--again", action="store_true", help="time what was timed before, too")
    p.add_argument("--json", action="store_true", help="print one JSON object, last on stdout")
    p.set_defaults(run=warm)


def warm(a: argparse.Namespace) -> None:
    """Warm up each model in turn; one that fails does not keep the others from it."""
    import os

    from relight.jobs.request import GenerateRequest
    from relight.planner import backends
    from relight.planner.commands import size
    from relight.planner.outlook import machine_for
    from relight.planner.profiles import pretended
    from relight.tuning import pipelines, tables
    from relight.tuning.warm import Warmup

    engine = a.engine
    device = a.device or backends.named_gpu(engine.backend) or engine.gpu
    machine, _ = machine_for(None, engine.max_vram_bytes, engine.threads, None, device, engine.max_vram_share)
    warmup = Warmup(
        machine,
        pretended(os.environ),
        engine.threads,
        tell=_note,
        again=a.again,
        quick=a.quick,
        backend=engine.backend,
    )
    kept = pipelines.cache_home() / pipelines.FOLDER
    _note(f"pipelines are kept in {kept}, measurements in {tables.folder()}")
    found, failed = [], 0
    for model in a.models or ([a.own] if a.own is not None else default_models()):
        for text in a.size or [None]:
            width, height = size(text)
            asked = GenerateRequest(prompt="", width=width, height=height, batch=a.batch, cfg_scale=a.cfg_scale, seed=0)
            name = getattr(model, "name", model)
            _note(f"{name}{f' at {text}' if text else ''}")
            try:
                found.append(warmup.warm(_files(model), asked))
            except RelightError as error:
                failed += 1
                _note(f"{name}: {error}")
                continue
            _print(found[-1], a.json)
    if a.json:
        print(json.dumps({"models": [vars(each) for each in found], "pipeline_bytes": pipelines.size(kept)}))
    if failed and not found:
        raise ConfigError("no model could be warmed up")


def _files(model: Any) -> Any:
    """Of a name or path, or the settings' own, which are found already."""
    from relight.jobs import models
    from relight.jobs.request import ModelFiles

    return model if isinstance(model, ModelFiles) else models.model_files(str(model), {})


def default_models() -> list[Any]:
    """Pulled sets of pictures that are whole; without one, what ships with relight. A language model is none, nor is
    an upscaler alone."""
    from relight import demo
    from relight.store.catalogue import models
    from relight.store.places import Places

    whole = [each.name for each in models(Places.of()) if not each.missing and _draws(each.name)]
    return whole or [demo.EMBEDDED]


def _draws(name: str) -> bool:
    try:
        _files(name)
    except RelightError:
        return False
    return True


def _print(warmed: Any, as_json: bool) -> None:
    gained = warmed.before - warmed.after
    took = f"{warmed.model}: {warmed.timed} timed, pipelines took {warmed.first_s:.1f} s once; a picture takes "
    if gained > 0:
        took += f"{warmed.after:.2f} s, {warmed.before:.2f} s by default ({gained / warmed.before:.0%} less)"
    else:
        took += f"{warmed.after:.2f} s, as by default"
    lines = [took]
    lines += [f"  {change}" for change in warmed.changes]
    lines += [f"  cannot: {failure}" for failure in warmed.failures]
    for line in lines:
        print(line, file=sys.stderr if as_json else sys.stdout)


def _note(line: str) -> None:
    print(line, file=sys.stderr)
