"""A bitmap of page frames that stays in its file: blocks are read when they are asked for, ranks by an index of counts.

Memory: 8 bytes for each 4,096 pages (512 KiB a TiB of memory) and a few blocks. The index is made up to the block that
is asked for, in one pass; a look-up after that counts bits in at most 512 bytes.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise

from kshell.memory.source import Source

BLOCK = 1 << 16  # bytes read at once
STEP = 512  # bytes for each entry of the index
STEP_SHIFT = (STEP * 8).bit_length() - 1
KEPT = 32  # blocks kept
BITS = BLOCK * 8


class FileBitmap:
    """The bits of the frames ``0 <= frame < frames``, at *offset* of *source*; what the file lacks is zero."""

    def __init__(self, source: Source, offset: int, frames: int) -> None:
        self.frames = frames
        self._source, self._offset, self._size = source, offset, -(-frames // 8)
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._ranks = array("Q", [0])

    def __len__(self) -> int:
        return -(-self._size // BLOCK)

    def __bytes__(self) -> bytes:
        return b"".join(self.block(number) for number in range(len(self)))[: self._size]

    def block(self, number: int) -> bytes:
        """Return the bytes of block *number*, BLOCK of them; bits from ``frames`` on are zero."""
        found = self._blocks.get(number)
        if found is None:
            at = number * BLOCK
            found = self._source.pread(min(BLOCK, self._size - at), self._offset + at) if at < self._size else b""
            beyond = at * 8 + len(found) * 8 - self.frames
            if beyond > 0:  # in the last byte
                found = found[:-1] + bytes([found[-1] & 0xFF >> beyond])
            found = found.ljust(BLOCK, b"\0")
            self._blocks[number] = found
            if len(self._blocks) > KEPT:
                self._blocks.popitem(last=False)
        return found

    def bit(self, frame: int) -> bool:
        """Whether *frame*'s bit is set."""
        if not 0 <= frame < self.frames:
            return False
        number, inside = divmod(frame, BITS)
        return bool(self.block(number)[inside >> 3] >> (frame & 7) & 1)

    def rank(self, frame: int) -> int:
        """Return how many bits before *frame* are set."""
        frame = min(frame, self.frames)
        step = frame // (STEP * 8)
        while len(self._ranks) <= step:
            self._count_block((len(self._ranks) - 1) * STEP // BLOCK)
        count = self._ranks[step]
        inside = frame % (STEP * 8)
        if inside:
            at = step * STEP % BLOCK
            bits = int.from_bytes(self.block(step * STEP // BLOCK)[at : at + (inside >> 3) + 1], "little")
            count += (bits & ((1 << inside) - 1)).bit_count()
        return count

    def number(self, frame: int) -> int | None:
        """Return how many bits before *frame* are set, None when its own is not."""
        step = frame >> STEP_SHIFT
        if not 0 <= frame < self.frames or step >= len(self._ranks):
            return self.rank(frame) if self.bit(frame) else None
        at = step * STEP & BLOCK - 1
        inside = frame & (1 << STEP_SHIFT) - 1
        bits = int.from_bytes(self.block(frame // BITS)[at : at + (inside >> 3) + 1], "little")
        if not bits >> inside & 1:
            return None
        return self._ranks[step] + (bits & ((1 << inside) - 1)).bit_count()

    def _count_block(self, number: int) -> None:
        data, count = self.block(number), self._ranks[-1]
        for at in range(0, BLOCK, STEP):
            count += int.from_bytes(data[at : at + STEP], "little").bit_count()
            self._ranks.append(count)

    def count(self) -> int:
        """Return how many bits are set."""
        return self.rank(self.frames)

    def run(self, frame: int, limit: int) -> int:
        """Return how many bits from *frame* on are set without a gap, at most *limit*."""
        count = 0
        while count < limit:
            number, inside = divmod(frame + count, BITS)
            at = inside >> 3
            bits = int.from_bytes(self.block(number)[at : at + 64], "little") >> (inside & 7)
            ones = (~bits & (bits + 1)).bit_length() - 1
            count += ones
            if ones == 0 or ones + (inside & 7) < 8 * min(64, BLOCK - at):
                break
        return min(count, limit)


def iter_states(existing: FileBitmap, held: FileBitmap) -> Iterator[tuple[int, int, bool]]:
    """Yield (first frame, frame behind the last, whether held) of runs of frames that exist, ascending. Imports numpy.

    A run may end where the next one of the same state begins.
    """
    import numpy as np

    empty, full = bytes(BLOCK), b"\xff" * BLOCK
    for number in range(len(held)):
        base, have, there = number * BITS, held.block(number), existing.block(number)
        if have == full:
            yield base, base + BITS, True
        elif have == empty and there in (empty, full):
            if there == full:
                yield base, base + BITS, False
        else:
            bits = np.unpackbits(np.frombuffer(have, np.uint8), bitorder="little")
            known = np.unpackbits(np.frombuffer(there, np.uint8), bitorder="little")
            state = bits * 2 + (known & (1 - bits))
            edges = [0, *(np.flatnonzero(state[1:] != state[:-1]) + 1).tolist(), BITS]
            for start, end in pairwise(edges):
                if state[start]:
                    yield base + start, base + end, bool(state[start] == 2)
