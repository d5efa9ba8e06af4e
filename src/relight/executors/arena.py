"""Places blocks of memory as ggml's graph allocator does, without any memory."""

from __future__ import annotations

from dataclasses import dataclass, field

MOST_CHUNKS = 16
UNBOUNDED = 1 << 62


@dataclass(frozen=True)
class Spot:
    chunk: int
    offset: int


@dataclass
class Chunk:
    """One buffer. `free`: offset and size of what is not taken, in order, never touching; `peak` its bytes so far."""

    size: int
    free: list[tuple[int, int]] = field(init=False)
    peak: int = 0

    def __post_init__(self) -> None:
        self.free = [(0, self.size)]

    def take(self, number: int, nbytes: int) -> int:
        offset, size = self.free[number]
        self.free[number : number + 1] = [(offset + nbytes, size - nbytes)] if size > nbytes else []
        self.peak = max(self.peak, offset + nbytes)
        return offset

    def give_back(self, offset: int, nbytes: int) -> None:
        merged: list[tuple[int, int]] = []
        for start, size in sorted([*self.free, (offset, nbytes)]):
            if merged and sum(merged[-1]) == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + size)
            else:
                merged.append((start, size))
        self.free = merged


class Arena:
    """Chunks of at most `chunk_bytes`, but for blocks that are larger and for the last of the chunks there may be.

    A block goes where it fits best among the gaps, else to the end of the chunk that grows least for it, else to a new
    chunk."""

    def __init__(self, chunk_bytes: int = UNBOUNDED) -> None:
        self.chunk_bytes = chunk_bytes
        self.chunks: list[Chunk] = []

    @property
    def peak(self) -> int:
        return sum(chunk.peak for chunk in self.chunks)

    def take(self, nbytes: int) -> Spot:
        number, block = self._gap(nbytes) or self._end(nbytes) or self._new(nbytes)
        return Spot(number, self.chunks[number].take(block, nbytes))

    def give_back(self, spot: Spot, nbytes: int) -> None:
        self.chunks[spot.chunk].give_back(spot.offset, nbytes)

    def _gap(self, nbytes: int) -> tuple[int, int] | None:
        """The best of the last chunk that has one: the smallest, of equal ones the last."""
        for number in reversed(range(len(self.chunks))):
            gaps = self.chunks[number].free[:-1]
            fitting = [(size, -block) for block, (_, size) in enumerate(gaps) if size >= nbytes]
            if fitting:
                return number, -min(fitting)[1]
        return None

    def _end(self, nbytes: int) -> tuple[int, int] | None:
        """Of chunks that need not grow the one where least is left over, else the one that grows least."""
        ends = [(number, chunk, *chunk.free[-1]) for number, chunk in enumerate(self.chunks) if chunk.free]
        left = [
            (chunk.peak - offset - nbytes, number, len(chunk.free) - 1)
            for number, chunk, offset, size in ends
            if size >= nbytes
        ]
        roomy = [each for each in left if each[0] >= 0]
        if not left:
            return None
        _, number, block = min(roomy, key=lambda each: each[0]) if roomy else max(left, key=lambda each: each[0])
        return number, block

    def _new(self, nbytes: int) -> tuple[int, int]:
        last = len(self.chunks) + 1 >= MOST_CHUNKS
        self.chunks.append(Chunk(UNBOUNDED if last else max(nbytes, self.chunk_bytes)))
        return len(self.chunks) - 1, 0
