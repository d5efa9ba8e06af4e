"""The character map of a sentencepiece vocabulary: a double-array trie from character sequences to replacements.

The library that applies it trusts every index in it, so a map from a file is checked here first.
"""

from __future__ import annotations

import numpy as np

BLOCK = 256  # a node's children differ from their first cell in the low 8 bits
IS_VALUE = 0x8000_0000
HAS_VALUE = 0x100
FAR = 0x200


def why_not(charsmap: bytes) -> str | None:
    """What is wrong with a map, in words; None when every path through it stays inside.

    Layout (sentencepiece's normalizer.cc, darts-clone): the trie's size in bytes as u32, the trie as u32 cells, then
    the replacements as UTF-8 strings that end in 0. A cell is a value (bit 31: a position in the replacements) or a
    node: label in bits 0 to 7, bit 8 where its first child is a value, distance to its children in bits 10 to 30,
    times 256 where bit 9 is set. The first cell is the root.
    """
    size, rest = int.from_bytes(charsmap[:4], "little"), len(charsmap) - 4
    if not 0 < size <= rest or size % 4:
        return f"its trie is said to have {size} bytes, and {max(rest, 0)} follow"
    cells, replacements = np.frombuffer(charsmap, "<u4", size // 4, 4), charsmap[4 + size :]
    is_value = cells & IS_VALUE != 0
    if is_value[0]:
        return "its trie has no root"
    children = np.arange(len(cells)) ^ ((cells >> 10) << np.where(cells & FAR, 8, 0))
    furthest = int(children[~is_value].max()) | (BLOCK - 1)
    if furthest >= len(cells):
        return f"its trie points at cell {furthest} of {len(cells)}"
    if not is_value[children[~is_value & (cells & HAS_VALUE != 0)]].all():
        return "its trie has a node where a value should be"
    return _why_not_values(cells[is_value] ^ IS_VALUE, replacements)


def _why_not_values(values: np.ndarray, replacements: bytes) -> str | None:
    """Values are positions where a character of the replacements begins."""
    try:
        replacements.decode()
    except UnicodeDecodeError as error:
        return f"its replacements are not UTF-8 at byte {error.start}"
    if (last := int(values.max(initial=0))) >= max(len(replacements), 1):
        return f"its trie points at byte {last} of {len(replacements)} bytes of replacements"
    if len(values) and (np.frombuffer(replacements, np.uint8)[values] & 0xC0 == 0x80).any():
        return "its trie points into the middle of a character"
    return None
