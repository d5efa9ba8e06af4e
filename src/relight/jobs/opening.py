"""What a worker is told to open a component: which files, by which network, on which executor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from relight.executors.base import CompileOptions
from relight.jobs.families import OPTIONAL
from relight.jobs.request import ModelFiles


def opening(
    files: ModelFiles,
    component: str,
    executor: str,
    options: CompileOptions,
    extras: Mapping[str, tuple[Path, ...]] | None = None,
) -> dict[str, Any]:
    """The values of the call `open`; `extras` are files of networks that are recorded into the component's graph."""
    described = files.family.components.get(component) or OPTIONAL[component]
    return {
        "component": component,
        "network": described.network,
        "kind": described.kind,
        "executor": executor,
        "paths": [str(path) for path in files.of(component)],
        "options": asdict(options),
        "extras": {name: [str(path) for path in paths] for name, paths in (extras or {}).items()},
    }
