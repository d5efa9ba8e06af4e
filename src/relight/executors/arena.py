"""Places blocks of memory as ggml's graph allocator does, without any memory."""

from __future__ import annotations


class Arena:
    """Offsets by best fit: the smallest gap that holds a block, or the end."""

    def __init__(self) -> None:
        self.gaps: list[tuple[int, int]] = []  # offset and end, in order, never touching
        self.end = self.peak = 0

    def take(self, nbytes: int) -> int:
        fitting = [(end - offset, offset, end) for offset, end in self.gaps if end - offset >= nbytes]
        if not fitting:
            offset, self.end = self.end, self.end + nbytes
            self.peak = max(self.peak, self.end)
            return offset
        _, offset, end = min(fitting, key=lambda gap: (gap[0], -gap[1]))
        at = self.gaps.index((offset, end))
        self.gaps[at : at + 1] = [(offset + nbytes, end)] if offset + nbytes < end else []
        return offset

    def give_back(self, offset: int, nbytes: int) -> None:
        merged: list[tuple[int, int]] = []
        for start, end in sorted([*self.gaps, (offset, offset + nbytes)]):
            if merged and merged[-1][1] == start:
                merged[-1] = (merged[-1][0], end)
            else:
                merged.append((start, end))
        if merged and merged[-1][1] == self.end:
            self.end = merged.pop()[0]
        self.gaps = merged
