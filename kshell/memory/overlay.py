"""Copy on write: writes are kept in memory, page by page; what lies below is never changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kshell.errors import Fault
from kshell.memory.model import FileRun, Gathered, Memory, Range, Window

if TYPE_CHECKING:
    from kshell.memory.model import Addresses

PAGE = 4096


class Overlay(Memory):
    """A memory over another one: reads see the writes made here. Only what the lower one holds can be written."""

    writable = True

    def __init__(self, below: Memory) -> None:
        self.below, self.space = below, below.space
        self._pages: dict[int, bytearray] = {}
        self.epoch = below.epoch  # one count for both: what was kept of either is stale after a write to either

    @property
    def moving(self) -> bool:
        return self.below.moving

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        data, fault = self.below.read_upto(address, size)
        if self._pages and data:
            copy = bytearray(data)
            self._patch(address, memoryview(copy))
            data = bytes(copy)
            if fault is not None:
                fault.partial = data
        return data, fault

    def read_into(self, address: int, buffer: memoryview) -> Fault | None:
        fault = self.below.read_into(address, buffer)
        self._patch(address, buffer[: len(buffer) if fault is None else fault.done])
        return fault

    def _touched(self, address: int, size: int) -> list[int]:
        """Return the starts of the written pages that hold part of the range."""
        first, end = address & -PAGE, address + size
        if (end - first) // PAGE < len(self._pages):
            return [page for page in range(first, end, PAGE) if page in self._pages]
        return [page for page in self._pages if first <= page < end]

    def _patch(self, address: int, view: memoryview) -> None:
        for page in self._touched(address, len(view)):
            low, high = max(page, address), min(page + PAGE, address + len(view))
            view[low - address : high - address] = self._pages[page][low - page : high - page]

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        view, done = memoryview(data).cast("B"), 0
        while done < len(view):
            at = address + done
            page = at & -PAGE
            count = min(len(view) - done, page + PAGE - at)
            held, fault = self.below.read_upto(at, count)
            if held:
                copy = self._pages.get(page)
                if copy is None:
                    copy = self._pages[page] = self._copy(page)
                copy[at - page : at - page + len(held)] = view[done : done + len(held)]
                done += len(held)
                self.epoch.count += 1
            if fault is not None:
                raise Fault(at + len(held), len(view), fault.reason, done=done, space=self.space, verb="write",
                            detail=fault.detail, hint=fault.hint)

    def _copy(self, page: int) -> bytearray:
        """Return the page as it is below. Bytes that are not held are never shown, for reads are cut below."""
        copy, at = bytearray(PAGE), 0
        while at < PAGE:
            data, fault = self.below.read_upto(page + at, PAGE - at)
            copy[at : at + len(data)] = data
            at += len(data) + (fault is not None)
        return copy

    def window(self, address: int) -> Window | None:
        below = self.below.window(address)
        if below is None or not self._touched(below.start, below.end - below.start):
            return below
        copy = bytearray(below.view)
        self._patch(below.start, memoryview(copy))
        return Window(below.start, below.end, memoryview(bytes(copy)))

    def file_run(self, address: int) -> FileRun | None:
        return None if self._pages else self.below.file_run(address)

    def gather(self, addresses: Addresses, size: int) -> Gathered:
        data, ok = self.below.gather(addresses, size)
        if self._pages and len(addresses):
            import numpy as np

            wanted = np.asarray(addresses, np.uint64)
            pages = np.array(sorted(self._pages), np.uint64)
            # rows whose first page, last page or anything between was written
            first = np.searchsorted(pages, wanted & np.uint64(~(PAGE - 1) & (1 << 64) - 1))
            last = np.searchsorted(pages, wanted + np.uint64(max(size, 1) - 1), "right")
            for row in np.nonzero(ok & (last > first))[0].tolist():
                self._patch(int(wanted[row]), memoryview(data[row]))
        return Gathered(data, ok)

    def written(self) -> int:
        """Return the number of pages that hold writes."""
        return len(self._pages)

    def ranges(self) -> Iterator[Range]:
        return self.below.ranges()

    def check(self) -> None:
        self.below.check()

    def flush(self) -> None:
        self.below.flush()

    def close(self) -> None:
        self._pages.clear()
        self.below.close()
