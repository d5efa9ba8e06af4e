"""Named arrays as the bytes of one file, NumPy's own .npz: kept in this form because any reader of NumPy opens it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import numpy as np

from relight.errors import LedgerDamaged


def to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Raises ValueError for arrays of objects."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return out.getvalue()


def from_bytes(content: bytes) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise LedgerDamaged(f"a checkpoint cannot be read: {error}") from error
