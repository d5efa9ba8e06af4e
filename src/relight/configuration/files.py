"""The files that settings name: found where they are said to be, else by their names under the model folder.

So one file of settings serves on the host and in a container that mounts the models elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path, PureWindowsPath

from relight.configuration.kinds import ELSEWHERE
from relight.configuration.load import Loaded
from relight.configuration.rules import PARTS, part
from relight.configuration.schema import value_at
from relight.errors import ConfigError
from relight.jobs.request import ModelFiles
from relight.store.catalogue import weights_in
from relight.store.manifest import manifests
from relight.store.places import Places
from relight.weights.identify import identify

NAMED = {
    "diffusion": "model_routing.diffusion.path",
    "clip_l": "model_routing.text_encoder.path",
    "t5xxl": "model_routing.context_encoder.path",
    "vae": "model_routing.decoder.path",
} | {name: f"models.{name}" for name in ("clip_g", "clip_h", "taesd", "upscaler", "t5_tokenizer")}
"""Settings that name a file, by what `relight generate` calls it."""
CHECKED = {
    "diffusion": {"diffusion": "diffusion", "unet": "diffusion"},
    "text_encoder": {"clip_l": "clip_l", "clip_g": "clip_g", "clip_h": "clip_h"},
    "context_encoder": {"t5xxl": "t5xxl"},
    "decoder": {"vae": "vae"},
}
"""By part, the kinds of networks whose format it states, and what `relight generate` calls each."""
FLOATS = {"f32", "f16", "bf16"}


def named_files(
    loaded: Loaded, places: Places, wanted: Collection[str] = tuple(NAMED)
) -> tuple[dict[str, Path], list[str]]:
    """Files by what `relight generate` calls them, and notes on those found elsewhere; only of those wanted. Raises
    ConfigError for one that is nowhere."""
    found: dict[str, Path] = {}
    notes = []
    for name, place in NAMED.items():
        path = value_at(loaded.settings, place)
        if path is None or name not in wanted:
            continue
        found[name] = find(path, places, loaded.said(place))
        if not path.exists():
            notes.append(f"{loaded.said(place)}: {path} is not there; {found[name]} is taken")
    return found, notes


def find(path: Path, places: Places, said: str) -> Path:
    """The path, or the file of that name among the models. Raises ConfigError."""
    if path.exists():
        return path
    name = PureWindowsPath(path).name if ELSEWHERE.match(str(path)) else path.name
    for folder in (places.directory, *places.folders().values()):
        if (folder / name).is_file():
            return folder / name
    found = next((file for file in _all(places) if file.name == name), None)
    if found is None:
        raise ConfigError(
            f"{said}: {path}: no such file, and none of this name in {places.directory} or a folder of relight models"
        )
    return found


def _all(places: Places) -> Iterator[Path]:
    for manifest in manifests(places):
        yield from (file.place(places) for file in manifest.files if file.place(places).is_file())
    for folder in (places.directory, *places.folders().values()):
        if folder.is_dir():
            yield from weights_in(folder)


def check_formats(loaded: Loaded, files: ModelFiles, wanted: Collection[str] = tuple(NAMED)) -> list[str]:
    """Whether files are in the formats that settings say; notes on floats that differ in width alone. Only of those
    wanted: what was named by option is what was meant.

    Raises ConfigError for a file in another quantisation: it is not the one that was meant.
    """
    notes = []
    for name in PARTS:
        stated = part(loaded.settings, name).quantization
        for kind, called in CHECKED[name].items():
            if stated == "auto" or kind not in files.paths or called not in wanted:
                continue
            path = files.paths[kind][0]
            held = main_format(path, kind)
            if held is None or held.lower() == stated:
                continue
            said = loaded.said(f"model_routing.{name}.quantization")
            if {held.lower(), stated} <= FLOATS:
                notes.append(f"{said} says {stated.upper()}, and {path.name} is in {held}: it is used as it is")
                continue
            raise ConfigError(
                f"{said} says {stated.upper()}, and {path} is in {held}: name the other file, or change the setting "
                f"(relight quantize {path.name} OUT.gguf --type {stated.upper()} makes one)"
            )
    return notes


def main_format(path: Path, kind: str) -> str | None:
    """What most weights of a network in a file are in; None where it is not in it."""
    for component in identify(path).components:
        if component.kind == kind:
            return max(component.formats, key=lambda name: component.formats[name].parameters)
    return None
