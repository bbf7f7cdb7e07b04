"""A memory with others behind it, for what it does not hold itself: the text of programs in a core, zeroes of .bss."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kshell.errors import Fault, Reason
from kshell.memory.model import Memory, Range, merge_ranges

#: why bytes are absent that may be elsewhere
ABSENT = (Reason.EXCLUDED, Reason.NOT_MAPPED, Reason.OUTSIDE)
MAX_ZEROES = 1 << 30


class Backing(NamedTuple):
    """``start <= address < end`` is in *memory* at ``address + delta``."""

    start: int
    end: int
    memory: Memory
    delta: int = 0


class Layered(Memory):
    """*first*, and where it holds nothing the backing of the address. Writes go where the bytes are.

    :param backings: they do not overlap
    :param own: memories that are closed with it
    """

    def __init__(self, first: Memory, backings: Sequence[Backing], *, own: Sequence[Memory] = ()) -> None:
        self.first, self.space, self.writable = first, first.space, first.writable
        self._backings = sorted(backings, key=lambda backing: backing.start)
        self._starts = [backing.start for backing in self._backings]
        self._own = own
        self.epoch = first.epoch

    def _backing(self, address: int) -> Backing | None:
        at = bisect_right(self._starts, address) - 1
        found = self._backings[at] if at >= 0 else None
        return found if found is not None and address < found.end else None

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        data, fault = self.first.read_upto(address, size)
        while fault is not None and fault.reason in ABSENT:
            at = address + len(data)
            backing = self._backing(at)
            if backing is None:
                break
            part, why = backing.memory.read_upto(at + backing.delta, min(address + size, backing.end) - at)
            data += part
            if len(data) == size:
                return data, None
            if why is not None or not part:
                break
            more, fault = self.first.read_upto(address + len(data), size - len(data))
            data += more
        if fault is None:
            return data, None
        return data, Fault(address + len(data), size, fault.reason, partial=data, space=self.space,
                           detail=fault.detail, hint=fault.hint)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        self.first.write(address, data)

    def ranges(self) -> Iterator[Range]:
        rows = [*self.first.ranges(), *(Range(one.start, one.end) for one in self._backings)]
        return merge_ranges(sorted(rows)) if not self._backings else iter(sorted(rows))

    def check(self) -> None:
        self.first.check()

    def flush(self) -> None:
        self.first.flush()

    def close(self) -> None:
        for memory in (*self._own, self.first):  # a core closes the file that its virtual memory shares
            memory.close()


class Zeroes(Memory):
    """Zeroes, where a format says that there are some: the end of an ELF segment that is longer than its bytes."""

    def __init__(self, space: str = "user") -> None:
        self.space = space

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        count = min(size, MAX_ZEROES)
        if count == size:
            return bytes(size), None
        return bytes(count), Fault(address + count, size, Reason.OUTSIDE, done=count, space=self.space)
