"""`${NAME}` and `${NAME:-otherwise}` in values of the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

VARIABLE = re.compile(r"\$(\$\{)|\$\{(\w+)(?::-([^}]*))?\}")


def expand(value: Any, environ: Mapping[str, str]) -> Any:
    """Text with variables filled in, also in lists; `$${` stands for `${`. Raises ValueError for one that is not set
    and has nothing else to be."""
    if isinstance(value, list):
        return [expand(each, environ) for each in value]
    return VARIABLE.sub(lambda match: _filled(match, environ), value) if isinstance(value, str) else value


def _filled(match: re.Match[str], environ: Mapping[str, str]) -> str:
    literal, name, otherwise = match.groups()
    if literal:
        return "${"
    found = environ.get(name) or otherwise
    if found is None:
        raise ValueError(
            f"needs the variable {name}, which is not set; ${{{name}:-...}} gives it a value for that case"
        )
    return found
