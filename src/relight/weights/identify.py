"""What a weights file is: the networks in it, their sizes and formats, and what a whole one would have beside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from relight.weights import names
from relight.weights.assembly import place_names
from relight.weights.container import Container, open_container
from relight.weights.families import TITLES
from relight.weights.formats import STORED
from relight.weights.hints import model_of, prediction
from relight.weights.recognise import FAMILIES, Found, flag, recognise
from relight.weights.shards import weight_files
from relight.weights.sizes import missing, sizes
from relight.weights.stored import Stored, gather

HIGHLIGHTS = (
    "general.architecture",
    "general.name",
    "general.file_type",
    "general.quantization_version",
    "tokenizer.ggml.model",
    "tokenizer.ggml.tokens",
    "modelspec.title",
    "modelspec.architecture",
    "modelspec.license",
    "modelspec.prediction_type",
    "ss_base_model_version",
    "format",
)
MAX_VALUE_LENGTH = 80
PREDICTIONS = {"eps": "it predicts noise", "v": "it predicts v"}


@dataclass(frozen=True)
class FormatUse:
    """Tensors stored in one format."""

    tensors: int
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Component:
    """One network of a file. `missing` names, in our spelling, what a whole one of this depth has and this has not.

    `model` is the family of models it belongs to (`flux`, `sd1`, `sd2`, `sdxl`), "" where nothing tells.
    """

    kind: str
    family: str
    names_as: str
    prefix: str
    usable: bool
    tensors: int
    parameters: int
    bytes: int
    sizes: dict[str, int]
    formats: dict[str, FormatUse]
    missing: tuple[str, ...]
    model: str = ""

    @property
    def bits_per_weight(self) -> float:
        """Of the format that most of the parameters are in."""
        main = max(self.formats, key=lambda name: self.formats[name].parameters)
        return STORED[main].bits_per_weight


@dataclass(frozen=True)
class Identity:
    """What one file, or the shards of one, holds. `prediction` is `eps` or `v` where the file says it."""

    paths: tuple[Path, ...]
    container: str
    file_bytes: int
    tensors: int
    parameters: int
    formats: dict[str, FormatUse]
    components: tuple[Component, ...]
    metadata: dict[str, Any] = field(default_factory=dict)
    prediction: str | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(component.kind for component in self.components))

    @property
    def whole_model(self) -> str:
        """The family of models that it holds every network of, or ""."""
        models = (each.model for each in self.components if each.kind in ("diffusion", "unet"))
        return next((model for model in models if set(FAMILIES[model]) <= set(self.kinds)), "")

    @property
    def family(self) -> str:
        return " + ".join(component.family for component in self.components) or "unknown"


def identify(path: Path) -> Identity:
    """Read the headers of a file (all of its shards, or a folder's) and say what they hold.

    Raises ModelFileError for what is no weights file; a file of unknown networks gives an identity without components.
    """
    containers: list[Container] = []
    try:
        containers.extend(open_container(file) for file in weight_files(path))
        return _identity(containers)
    finally:
        for container in containers:
            container.close()


def _identity(containers: list[Container]) -> Identity:
    stored = gather(containers)
    found = recognise({name: item.entry.shape for name, item in stored.items()})
    metadata = {key: value for container in reversed(containers) for key, value in container.metadata.items()}
    models = [each.model or model_of(each.kind, containers[0].path, metadata) for each in found]
    return Identity(
        paths=tuple(container.path for container in containers),
        container=containers[0].container,
        file_bytes=sum(container.file.size for container in containers),
        tensors=len(stored),
        parameters=_parameters(stored.values()),
        formats=_formats(stored.values()),
        components=tuple(_component(item, stored, model) for item, model in zip(found, models, strict=True)),
        metadata={k: v for container in containers for k, v in _highlights(container.metadata).items()},
        prediction=prediction(stored, metadata),
    )


def _component(found: Found, stored: Mapping[str, Stored], model: str) -> Component:
    ours: dict[str, tuple[int, ...]] = {}
    used = [item for name, item in stored.items() if name.startswith(found.prefix)]
    if found.usable:
        pieces, _ = place_names(found, stored)
        used = [item for parts in pieces.values() for _, item in parts.values()]
        ours = {
            name: _shape(parts) for name, parts in pieces.items() if len(parts) == next(iter(parts.values()))[0].parts
        }
    return Component(
        kind=found.kind,
        family=found.family,
        names_as=found.names_as,
        prefix=found.prefix,
        usable=found.usable,
        tensors=len(used),
        parameters=_parameters(used),
        bytes=sum(item.entry.nbytes for item in used),
        sizes=sizes(found.kind, ours) if found.usable else {},
        formats=_formats(used),
        missing=tuple(missing(found.kind, ours)) if found.usable else (),
        model=model,
    )


def _shape(parts: Mapping[int, tuple[Any, Stored]]) -> tuple[int, ...]:
    shapes = [item.entry.shape for _, item in parts.values()]
    return (sum(shape[0] for shape in shapes if shape), *shapes[0][1:]) if len(shapes) > 1 else shapes[0]


def _parameters(items: Iterable[Stored]) -> int:
    return sum(prod(item.entry.shape) for item in items)


def _formats(items: Iterable[Stored]) -> dict[str, FormatUse]:
    """Uses by format, the largest in bytes first."""
    totals: dict[str, list[int]] = {}
    for item in items:
        total = totals.setdefault(item.entry.format, [0, 0, 0])
        total[0] += 1
        total[1] += prod(item.entry.shape)
        total[2] += item.entry.nbytes
    ranked = sorted(totals.items(), key=lambda pair: (-pair[1][2], pair[0]))
    return {name: FormatUse(*total) for name, total in ranked}


def _highlights(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The few keys that tell a person something, long values shortened to a count or a beginning."""
    found: dict[str, Any] = {}
    for key in HIGHLIGHTS:
        value = metadata.get(key)
        if isinstance(value, str):
            found[key] = "".join(c if c.isprintable() else " " for c in value[:MAX_VALUE_LENGTH])
        elif isinstance(value, (bool, int, float)):
            found[key] = value
        elif value is not None:
            found[key] = f"{len(value)} entries"
    return found


def as_dict(identity: Identity) -> dict[str, Any]:
    """The identity in JSON's types, with `kinds` and `family` beside its fields."""
    plain = asdict(identity)
    plain["paths"] = [str(path) for path in identity.paths]
    plain["components"] = [
        asdict(component) | {"missing": list(component.missing)} for component in identity.components
    ]
    return {"family": identity.family, "kinds": list(identity.kinds), "whole_model": identity.whole_model, **plain}


def describe(identity: Identity) -> list[str]:
    """Lines for the terminal."""
    files = f" in {len(identity.paths)} shards" if len(identity.paths) > 1 else ""
    lines = [
        f"{identity.paths[0]}{files}: {identity.family}",
        f"  {identity.container}, {gib(identity.file_bytes)}, {identity.tensors} tensors, "
        f"{_count(identity.parameters)} parameters",
    ]
    for component in identity.components:
        lines += _describe_component(component)
    if not identity.components:
        lines.append("  no network relight knows; formats: " + _format_line(identity.formats))
    if identity.whole_model:
        lines.append(f"  holds all of a model of {TITLES[identity.whole_model]}; use as --model")
    if identity.prediction:
        lines.append(f"  {PREDICTIONS[identity.prediction]}")
    return lines + [f"  {key}: {value}" for key, value in identity.metadata.items()]


def _describe_component(component: Component) -> list[str]:
    names_as = f", names as {component.names_as} writes them" if component.names_as else ""
    prefix = f" after {component.prefix!r}" if component.prefix else ""
    talks = (component.kind, component.names_as) == ("language model", names.LLAMA_CPP)
    use = "relight chat and --llm take it" if talks else "relight does not run it"
    use = f"use as {flag(component.kind)}" if component.usable else use
    amount = f"{component.tensors} tensors, {_count(component.parameters)} parameters, {gib(component.bytes)}"
    lines = [f"  {component.family} ({component.kind}): {amount}{names_as}{prefix}; {use}"]
    if component.sizes:
        lines.append("    sizes: " + ", ".join(f"{name} {size}" for name, size in component.sizes.items()))
    lines.append("    formats: " + _format_line(component.formats))
    if component.missing:
        more = f" and {len(component.missing) - 5} more" if len(component.missing) > 5 else ""
        lines.append(f"    missing {len(component.missing)}: {', '.join(component.missing[:5])}{more}")
    elif component.usable:
        lines.append("    nothing missing")
    return lines


def _format_line(formats: Mapping[str, FormatUse]) -> str:
    return ", ".join(f"{name} {use.tensors} tensors {gib(use.bytes)}" for name, use in formats.items())


def gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} billion" if parameters >= 1e9 else f"{parameters / 1e6:.1f} million"
