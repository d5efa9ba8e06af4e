"""Values of keys of Windows' registry; elsewhere there are none."""

from __future__ import annotations

import sys
from collections.abc import Mapping


def registry_values(key: str) -> Mapping[str, object]:
    r"""Of a key such as `SOFTWARE\Khronos\Vulkan\Drivers` under HKEY_LOCAL_MACHINE, read only."""
    if sys.platform != "win32":
        return {}
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as opened:
            count = winreg.QueryInfoKey(opened)[1]
            return {name: value for name, value, _ in (winreg.EnumValue(opened, i) for i in range(count))}
    except OSError:
        return {}
