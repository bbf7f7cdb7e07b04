"""Memories that stand in front of another one for the time of one question: bytes read at once, and plain numbers."""

from __future__ import annotations

from kshell.errors import Fault, Reason
from kshell.memory.model import Memory

PAGE = 4096


class Layer(Memory):
    """A memory in front of ``behind``; pointers found in it lead into ``behind``."""

    behind: Memory

    def __init__(self, behind: Memory) -> None:
        self.behind = behind
        self.space = behind.space


class Snapshot(Layer):
    """The bytes of one object, read once; everything else, and what could not be read, comes from ``behind``."""

    def __init__(self, behind: Memory, address: int, size: int) -> None:
        super().__init__(behind)
        self.start = address
        self.data, self.fault = behind.read_upto(address, size)

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        offset = address - self.start
        if offset >= 0 and offset + size <= len(self.data):
            return self.data[offset : offset + size], None
        return self.behind.read_upto(address, size)


class Immediate(Layer):
    """A number as if it lay in memory at address 0."""

    def __init__(self, behind: Memory, data: bytes) -> None:
        self.behind = behind
        self.space = "immediate"
        self.data = data

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        piece = self.data[address : address + size]
        if len(piece) == size:
            return piece, None
        at = address + len(piece)
        return piece, Fault(at, size, Reason.OUTSIDE, partial=piece, space=self.space, detail="a plain number")


class Pages(Layer):
    """Whole pages of ``behind`` kept for a while, for many small reads that are close together.

    A page that cannot be read whole is not kept: its reads go to ``behind``, one by one, and fault there.
    """

    LIMIT = 1024

    def __init__(self, behind: Memory) -> None:
        super().__init__(behind)
        self._pages: dict[int, bytes | None] = {}

    def _page(self, start: int) -> bytes | None:
        if len(self._pages) >= self.LIMIT:
            self._pages.clear()
        data, fault = self.behind.read_upto(start, PAGE)
        page = self._pages[start] = None if fault is not None else data
        return page

    def read(self, address: int, size: int) -> bytes:
        offset = address & (PAGE - 1)
        if offset + size <= PAGE:
            start = address - offset
            page = self._pages[start] if start in self._pages else self._page(start)
            if page is not None:
                return page[offset : offset + size]
        return self.behind.read(address, size)

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        offset = address & (PAGE - 1)
        if offset + size <= PAGE and self._pages.get(address - offset) is not None:
            return self.read(address, size), None
        return self.behind.read_upto(address, size)

    def missing(self, address: int, size: int) -> Fault | None:
        """Return why nothing of *size* bytes at *address* can be read, or None when some of it can."""
        if size <= 0:
            return None
        first: Fault | None = None
        at = address
        for _ in range(64):
            _, fault = self.read_upto(at, 1)
            if fault is None:
                return None
            first = first or self.read_upto(address, size)[1]
            at = (at | (PAGE - 1)) + 1
            if at >= address + size:
                return first
        return None


def through(space: Memory, kernel: Memory) -> Memory:
    """Return the memory that pointers found in *space* lead into: itself; the kernel's for physical memory."""
    while isinstance(space, Layer):
        space = space.behind
    return kernel if space.space == "physical" else space
