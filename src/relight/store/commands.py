"""The commands of the store: relight pull, models and quantize."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relight.errors import RequestError, StoreError
from relight.store import recipes

if TYPE_CHECKING:
    from relight.store.manifest import Manifest
    from relight.store.places import Places


def add_commands(commands: argparse._SubParsersAction[Any], common: argparse.ArgumentParser) -> None:
    """Add `pull`, `models` and `quantize` to the program's commands."""
    _add_pull(commands.add_parser("pull", parents=[common], help="fetch a model by name, or any file of the hub"))
    _add_models(commands.add_parser("models", parents=[common], help="list, check and remove models"), common)
    _add_quantize(commands.add_parser("quantize", parents=[common], help="write a model file in a smaller format"))


def _add_pull(p: argparse.ArgumentParser) -> None:
    names = ", ".join(recipes.set_names())
    p.add_argument(
        "name", metavar="NAME", nargs="?", help=f"{names}; or hf:OWNER/REPO/FILE[@REVISION]; without: the list"
    )
    p.add_argument(
        "--t5", choices=recipes.t5_variants(), help="FLUX's large text encoder; default: by this machine's memory"
    )
    p.set_defaults(run=pull)


def _add_models(p: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.set_defaults(run=list_models)
    does = p.add_subparsers(metavar="ACTION")
    remove = does.add_parser("rm", parents=[common], help="remove a pulled model, or forget a named folder")
    remove.add_argument("name", metavar="NAME")
    remove.set_defaults(run=remove_model)
    verify = does.add_parser("verify", parents=[common], help="check headers and hashes")
    verify.add_argument("name", metavar="NAME", nargs="?", help="default: everything")
    verify.set_defaults(run=verify_models)
    add = does.add_parser("add", parents=[common], help="name a folder of ComfyUI, A1111 or your own")
    add.add_argument("folder", metavar="DIR", type=Path)
    add.set_defaults(run=add_folder)


def _add_quantize(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "source", metavar="IN", type=Path, help=".safetensors or .gguf; one shard, an index or a folder for shards"
    )
    p.add_argument("out", metavar="OUT.gguf", type=Path)
    p.add_argument("--type", required=True, metavar="TYPE", help="format of most matrices, such as Q4_K or Q8_0")
    p.add_argument(
        "--rule",
        action="append",
        default=[],
        metavar="REGEX=TYPE",
        help="other format for tensors whose component.name the expression is found in; the first that fits counts",
    )
    p.add_argument("--threads", type=int, metavar="N", help="default: physical cores")
    p.add_argument("--force", action="store_true", help="replace OUT where it is there")
    p.set_defaults(run=quantize)


def pull(a: argparse.Namespace) -> None:
    """Fetch a set, or show which there are."""
    import psutil

    from relight.store.display import amount

    if a.name is None:
        _print_sets()
        return
    if a.t5 and not recipes.has_t5(a.name):
        raise RequestError(f"--t5 {a.t5}: {a.name} has no T5")
    ram = psutil.virtual_memory().total
    recipe = (
        recipes.hub_file(a.name) if a.name.startswith("hf:") else recipes.named_set(a.name, a.t5 or recipes.t5_for(ram))
    )
    if ram < recipe.ram_gib * recipes.GIB * 0.95:
        _note(f"{recipe.name} wants {recipe.ram_gib} GiB of memory, and this machine has {ram / recipes.GIB:.1f}")

    from relight.store.places import Places
    from relight.store.pull import Pull

    places = Places.of()
    licences = f", licence: {', '.join(recipe.licences)}" if recipe.licences else ""
    size = f", {amount(recipe.size)}" if recipe.size else ""
    _note(f"{recipe.title}{size}{licences}")
    try:
        manifest = Pull(recipe, places, _note).run()
    except KeyboardInterrupt:
        _note("what came so far is kept; the same command goes on from there")
        raise
    print(f"{manifest.name}: complete, {amount(sum(file.size for file in manifest.files))} in {places.directory}")


def list_models(a: argparse.Namespace) -> None:
    """One line for each model here."""
    from relight.store.catalogue import models
    from relight.store.display import amount
    from relight.store.places import Places

    places = Places.of()
    found = models(places)
    if a.json:
        print(json.dumps({"directory": str(places.directory), "models": [model.as_dict() for model in found]}))
        return
    width = max((len(model.name) for model in found), default=0)
    for model in found:
        state = "complete" if not model.missing else "; ".join(model.missing[:3])
        print(f"{model.name:{width}}  {amount(model.size):>8}  {model.family}  [{', '.join(model.formats)}]  {state}")
    if not found:
        print(f"No model in {places.directory}. `relight pull` lists what can be fetched,")
        print("`relight models add DIR` names a folder of models that you have.")


def remove_model(a: argparse.Namespace) -> None:
    from relight.store.catalogue import remove
    from relight.store.display import amount
    from relight.store.places import Places

    places = Places.of()
    folders = places.folders()
    if a.name in folders:
        if not places.forget_folder(folders[a.name]):
            raise RequestError(
                f"{a.name}: is a folder of yours, {folders[a.name]}; relight removes only what it pulled"
            )
        print(f"{a.name}: forgotten; its files stay where they are")
        return
    freed = remove(_known(a.name, places), places)
    print(f"{a.name}: removed, {amount(freed)} freed")


def verify_models(a: argparse.Namespace) -> None:
    """Sets by hash, files of named folders by header. Raises StoreError when something is wrong."""
    from relight.store.catalogue import verify, verify_header, weights_in
    from relight.store.display import Display
    from relight.store.manifest import manifests
    from relight.store.places import Places

    places = Places.of()
    folders = places.folders()
    sets = [] if a.name in folders else [_known(a.name, places)] if a.name else list(manifests(places))
    bad = 0
    with Display("verify", sum(file.size for each in sets for file in each.files)) as display:
        for each in sets:
            wrong = verify(each, places, display.advance)
            bad += len(wrong)
            lines = [f"{each.name}: {path}: {reason}" for path, reason in wrong.items()]
            for line in lines or [f"{each.name}: {len(each.files)} files, headers and hashes right"]:
                display.say(line)
    for name, folder in folders.items():
        for file in weights_in(folder) if a.name in (None, name) else ():
            reason = verify_header(file)
            bad += reason is not None
            print(f"{name}/{file.relative_to(folder).as_posix()}: {reason or 'header right'}")
    if bad:
        raise StoreError(f"{bad} of the files {'is' if bad == 1 else 'are'} not as they should be (named above)")


def add_folder(a: argparse.Namespace) -> None:
    from relight.store.catalogue import weights_in
    from relight.store.places import Places

    places = Places.of()
    folder = places.add_folder(a.folder)
    name = next(name for name, path in places.folders().items() if path == folder)
    print(f"{name}: {sum(1 for _ in weights_in(folder))} model files in {folder}; `relight models` lists them")


def quantize(a: argparse.Namespace) -> None:
    """Write a smaller file and say what is in it."""
    from relight.executors.cores import physical_cores
    from relight.store.display import Display, amount
    from relight.store.quantize import quantize_file
    from relight.store.rules import Rule, target

    if a.threads is not None and not 1 <= a.threads <= 1024:
        raise RequestError(f"--threads {a.threads}: 1 to 1024")
    threads = a.threads or physical_cores()
    wanted, rules = target(a.type), [Rule.parse(text) for text in a.rule]
    with Display(a.out.name, 0) as display:
        result = quantize_file(
            a.source,
            a.out,
            wanted,
            rules,
            threads=threads,
            force=a.force,
            started=display.restart,
            advance=display.advance,
        )
    formats = ", ".join(f"{count} in {name}" for name, count in result.formats.items())
    print(f"{a.out}: {amount(result.written_bytes)} from {amount(result.read_bytes)}; tensors: {formats}")


def _known(name: str, places: Places) -> Manifest:
    from relight.store.manifest import find_manifest, manifests

    if found := find_manifest(places, name):
        return found
    here = ", ".join(each.name for each in manifests(places)) or "none"
    raise RequestError(f"{name}: is no model pulled here; there are: {here}")


def _print_sets() -> None:
    from relight.store.display import amount

    for name in recipes.set_names():
        r = recipes.named_set(name, "Q8_0")
        print(f"{name:16} {amount(r.size):>8}  card {r.vram_gib:g} GiB, memory {r.ram_gib:g} GiB  {r.title}")
        print(f"{'':26} licence: {', '.join(r.licences)}")


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
