"""From what a user names to the files of a model: a pulled one, a folder, one checkpoint, or file by file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from relight.errors import ConfigError
from relight.jobs.families import FAMILIES, FLUX, OPTIONAL
from relight.jobs.request import ModelFiles
from relight.store.catalogue import find_model
from relight.weights.embeddings import find_embeddings
from relight.weights.folder import Components, find_components
from relight.weights.identify import identify

HELPERS = tuple(component.kind for name, component in OPTIONAL.items() if name != "vae_encoder")
BACKBONES = ("diffusion", "unet")


def model_files(
    model: str | None,
    named: Mapping[str, Path],
    *,
    t5_tokenizer: Path | None = None,
    prediction: str | None = None,
    lora_folders: Sequence[Path] = (),
    embedding_folders: Sequence[Path] = (),
) -> ModelFiles:
    """`named` are files by component, over those of `model`. Raises ConfigError for what is missing or not there,
    ModelFileError for files that are something else."""
    found = components(model) if model is not None else None
    paths = dict(found.files) if found else {}
    family = found.family if found else None
    for component, path in named.items():
        kind = component
        if component == "diffusion":
            kind, family = backbone(path)
        paths[kind] = (path,)
    if family is None:
        raise ConfigError(f"name the model's folder with --model DIR, or its files; still missing: {lacking(named)}")
    missing = [kind for kind in FAMILIES[family].kinds if kind not in paths]
    if missing and found is None:
        flags = ", ".join("--" + kind.replace("_", "-") for kind in missing)
        raise ConfigError(f"name the model's folder with --model DIR, or its files; still missing: {flags}")
    if found is not None:
        paths |= {kind: found.require(kind) for kind in missing}
        for kind in HELPERS:
            if kind not in paths and found.extras.get(kind):
                paths[kind] = found.extras[kind][0]
    beside = found.extras if found else {}
    return ModelFiles.of_family(
        family,
        paths,
        t5_tokenizer=t5_tokenizer or (found.tokenizer if found else None),
        prediction=prediction or (found.prediction if found else None),
        loras=by_name(beside.get("lora", ())) | loras_in(lora_folders),
        embeddings=by_name(beside.get("embedding", ())) | embeddings_in(embedding_folders),
        controlnets=by_name(beside.get("controlnet", ())),
    )


def components(model: str) -> Components:
    """Of a folder, a checkpoint, or a model by its name, which in a named folder is `folder/file`."""
    if (os.path.isabs(model) or model.startswith((".", "~"))) and not os.path.exists(os.path.expanduser(model)):
        raise ConfigError(f"--model {model}: no such folder")
    found = find_model(model)
    return found if isinstance(found, Components) else find_components(found)


def files_in(folder: Path) -> ModelFiles:
    return model_files(str(folder), {})


def backbone(path: Path) -> tuple[str, str]:
    """Kind and family of a file of a transformer or UNet."""
    for component in identify(path).components:
        if component.kind in BACKBONES:
            return component.kind, component.model
    return FLUX.components["diffusion"].kind, FLUX.name  # opening it will say what it is


def lacking(named: Mapping[str, Path]) -> str:
    kinds = [component.kind for component in FLUX.components.values()]
    return ", ".join("--" + kind.replace("_", "-") for kind in dict.fromkeys(kinds) if kind not in named)


def by_name(files: Sequence[tuple[Path, ...]]) -> dict[str, Path]:
    """Files of one part each, by their names without ending; the first of a name counts."""
    return {paths[0].stem: paths[0] for paths in reversed(files)}


def loras_in(folders: Sequence[Path]) -> dict[str, Path]:
    """LoRA files by their names without ending; those of the first folder win."""
    found: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder of LoRA files")
        for path in sorted(folder.rglob("*.safetensors")):
            found.setdefault(path.stem, path)
    return found


def embeddings_in(folders: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in folders:
        for name, path in find_embeddings(folder).items():
            found.setdefault(name, path)
    return found
