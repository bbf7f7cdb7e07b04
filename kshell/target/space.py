"""An address space: virtual memory made of page tables over physical memory, and windows of arithmetic.

A page-table walk answers for every address; windows (the direct map, the kernel image) answer faster where the kernel
guarantees that virtual and physical addresses differ by a constant. Kernel source: arch/x86/include/asm/page_64.h.

Small reads are answered from pages that are kept, by virtual page number, until the memory below is written or flushed
(:class:`kshell.memory.model.Epoch`); of memory that changes by itself, which offers no windows, nothing is kept but
translations. Many reads at once are in :mod:`kshell.target.bulk`.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

from kshell.arch.model import PagingFormat
from kshell.errors import Fault, FormatError, Reason
from kshell.memory.model import TOP, FileRun, Gathered, Memory, Range, Window
from kshell.target.paging import Level, Mapping, Walker

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from kshell.memory.model import Addresses

PAGE_SHIFT, PAGE_SIZE, PAGE_MASK = 12, 4096, 4095
LARGE_SHIFT, LARGE = 21, 1 << 21  # the unit of large pages; translations of whole ones are kept as one
MAX_TLB = 1 << 16
MAX_KEPT = 1 << 12  # pages kept for small reads: 16 MiB
MAX_ONCE = 1 << 10  # pages among which one that is asked for again is worth keeping
_SWAPPED = sys.byteorder != "little"  # a host whose memoryviews read numbers the other way round
SMALL = 512  # reads up to here fetch the page and keep it
NO_PLACE = -1  # the physical address of what is not in one run


class Linear(NamedTuple):
    """A window: virtual ``start <= address < end`` is physical ``paddr + address - start``."""

    start: int
    end: int
    paddr: int


class ChaseError(FormatError):
    """A list that does not come back to its head; ``visited`` are the addresses up to there."""

    def __init__(self, message: str, visited: list[int]) -> None:
        super().__init__(message)
        self.visited = visited


class AddressSpace(Memory):
    """Virtual memory; ``half`` bounds the addresses it serves, so that user spaces never show kernel pages."""

    def __init__(
        self, physical: Memory, format: PagingFormat, root: int, *, space: str = "kernel",
        linear: Sequence[Linear] = (), half: tuple[int, int] | None = None,
    ) -> None:
        self.physical, self.format, self.root = physical, format, root
        self.space, self.half, self.writable = space, half or (0, TOP), physical.writable
        self.why_not_writable = physical.why_not_writable
        self.walker = Walker(physical, format, root, space)
        self.epoch = self._epoch = physical.epoch
        self._seen = self._epoch.count
        self._linear: list[Linear] = []
        self._large: dict[int, int] = {}  # number of LARGE bytes that lie in one run, to physical minus virtual address
        self._tlb: dict[int, int] = {}
        self._pages: dict[int, memoryview] = {}  # virtual page number to its bytes, as 512 numbers of 64 bits
        self._once: set[int] = set()  # pages asked for once
        self.add_windows(linear)

    def add_windows(self, windows: Sequence[Linear]) -> None:
        """Add windows of arithmetic; earlier ones win where they overlap."""
        self._linear += windows
        self._forget()

    @property
    def moving(self) -> bool:
        return self.physical.moving

    def flush(self) -> None:
        """Forget translations, page tables and pages: the target has moved."""
        self.physical.flush()
        self._forget()

    def _forget(self) -> None:
        self._seen = self._epoch.count
        self._tlb.clear()
        self._large.clear()
        self._pages.clear()
        self._once.clear()
        self.walker.forget()

    # -- translation -----------------------------------------------------------------------------------------------

    def translate(self, address: int) -> int:
        """Return the physical address behind the virtual *address*.

        :raises Fault: with the reason: not mapped, swapped out, a corrupt or missing page table
        """
        if self._epoch.count != self._seen:
            self._forget()
        delta = self._large.get(address >> LARGE_SHIFT)
        if delta is not None:
            return address + delta
        page = self._tlb.get(address >> PAGE_SHIFT)
        if page is None:
            page = self._run(address)[0] & ~PAGE_MASK
            if len(self._tlb) >= MAX_TLB:
                self._tlb.clear()
            self._tlb[address >> PAGE_SHIFT] = page
        return page | address & PAGE_MASK

    def _run(self, address: int) -> tuple[int, int]:
        """Return (physical address, bytes from there on that are contiguous in both spaces)."""
        for start, end, paddr in self._linear:
            if start <= address < end:
                self._remember(address, start, end, paddr - start)
                return paddr + address - start, end - address
        if not self.half[0] <= address < self.half[1] or not self.format.canonical(address):
            detail = f"not a {self.space} address" if self.format.canonical(address) else "non-canonical"
            raise Fault(address, 1, Reason.NOT_MAPPED, space=self.space, detail=detail)
        start, shift = self.walker.leaf(address)
        size = 1 << shift
        inside = address & (size - 1)
        if shift >= LARGE_SHIFT:
            self._remember(address, address - inside, address - inside + size, start + inside - address)
        return start + inside, size - inside

    def _remember(self, address: int, start: int, end: int, delta: int) -> None:
        """Keep *delta* for all of the LARGE bytes around *address*, unless another window than this run's has some."""
        low = address & -LARGE
        high = low + LARGE
        others = (window for window in self._linear if window[:2] != (start, end))
        if start <= low and high <= end and not any(first < high and low < last for first, last, _ in others):
            if len(self._large) >= MAX_TLB:
                self._large.clear()
            self._large[address >> LARGE_SHIFT] = delta

    def walk(self, address: int) -> list[Level]:
        """Return each page-table entry on the way to *address*, whatever windows say.

        :raises Fault: a table cannot be read
        """
        return self.walker.levels(address)

    def mappings(self, start: int | None = None, end: int | None = None) -> Iterator[Mapping]:
        """Yield what the page tables map in this space's half, ascending, neighbours joined."""
        return self.walker.mappings(self.half[0] if start is None else start, self.half[1] if end is None else end)

    def translate_all(
        self, addresses: Addresses
    ) -> tuple[numpy.typing.NDArray[numpy.uint64], numpy.typing.NDArray[numpy.bool_]]:
        """Translate many addresses: (physical addresses, whether mapped). Imports numpy."""
        from kshell.target.bulk import translate_all

        if self._epoch.count != self._seen:
            self._forget()
        return translate_all(self.walker, self._linear, self.half, addresses)

    # -- memory ----------------------------------------------------------------------------------------------------

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        offset = address & PAGE_MASK
        if offset + size <= PAGE_SIZE and 0 <= size <= SMALL:
            page = self._pages.get(address >> PAGE_SHIFT)
            if page is None or self._epoch.count != self._seen:
                page = self._kept(address)
            if page is not None:
                data: bytes = page.obj[offset : offset + size]  # type: ignore[index]
                return data, None
            delta = self._large.get(address >> LARGE_SHIFT)
            frame = self._tlb.get(address >> PAGE_SHIFT) if delta is None else address - offset + delta
            if frame is not None:
                data, fault = self.physical.read_upto(frame + offset, size)
                if fault is None:
                    return data, None
        return self._read_runs(address, size)

    def _read_runs(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        if size <= 0:
            return b"", None
        parts: list[bytes] = []
        done = 0
        fault: Fault | None = None
        while done < size and fault is None:
            try:
                paddr, count = self._contiguous(address + done, size - done)
            except Fault as why:
                fault = why
                break
            part, fault = self.physical.read_upto(paddr, count)
            parts.append(part)
            done += len(part)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        return data, None if fault is None else self._blame(address, size, done, fault, data)

    def read_into(self, address: int, buffer: memoryview) -> Fault | None:
        done, size = 0, len(buffer)
        while done < size:
            try:
                paddr, count = self._contiguous(address + done, size - done)
            except Fault as why:
                return self._blame(address, size, done, why, b"")
            fault = self.physical.read_into(paddr, buffer[done : done + count])
            if fault is not None:
                return self._blame(address, size, done + fault.done, fault, b"")
            done += count
        return None

    def view(self, address: int, size: int) -> memoryview | bytes:
        try:
            paddr, count = self._contiguous(address, size) if size else (0, 0)
        except Fault as fault:
            raise self._blame(address, size, 0, fault, b"") from fault
        return self.physical.view(paddr, size) if count >= size > PAGE_SIZE else self.read(address, size)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        view, done = memoryview(data).cast("B"), 0
        while done < len(view):
            moved = done
            try:
                paddr, count = self._contiguous(address + done, len(view) - done)
                try:
                    self.physical.write(paddr, view[done : done + count])
                except Fault as fault:
                    moved += fault.done
                    raise
            except Fault as fault:
                raise Fault(address + moved, len(view), fault.reason, done=moved, space=self.space, verb="write",
                            detail=fault.detail, hint=fault.hint) from fault
            done += count
        # what was kept, page tables too, goes by the epoch of the memory below

    def _contiguous(self, address: int, size: int) -> tuple[int, int]:
        """Return (physical address, count): the run at *address*, of at most *size* bytes, pages in a row joined."""
        if self._epoch.count != self._seen:
            self._forget()
        page = self._tlb.get(address >> PAGE_SHIFT)
        if (address & PAGE_MASK) + size <= PAGE_SIZE:
            delta = self._large.get(address >> LARGE_SHIFT)
            if delta is not None:
                return address + delta, size
            if page is not None:
                return page | address & PAGE_MASK, size
        paddr, count = self._run(address)
        if page is None and len(self._tlb) < MAX_TLB:
            self._tlb[address >> PAGE_SHIFT] = paddr & ~PAGE_MASK
        while count < size:
            try:
                following, more = self._run(address + count)
            except Fault:
                break
            if following != paddr + count:
                break
            count += more
        return paddr, min(count, size)

    def _blame(self, address: int, size: int, done: int, fault: Fault, data: bytes) -> Fault:
        """Return the fault of a lower memory as one of this space."""
        return Fault(address + done, size, fault.reason, partial=data, done=done, space=self.space,
                     detail=fault.detail, hint=fault.hint)

    def window(self, address: int) -> Window | None:
        try:
            paddr, count = self._contiguous(address, 1)
            count = PAGE_SIZE - (address & PAGE_MASK)
        except Fault:
            return None
        below = self.physical.window(paddr)
        if below is None:
            return None
        # the part of this page that the window below holds; a larger page or a linear run may go on beyond it
        inside = address & PAGE_MASK
        low, high = max(paddr - inside, below.start), min(paddr + count, below.end)
        return Window(address + low - paddr, address + high - paddr, below.view[low - below.start : high - below.start])

    def file_run(self, address: int) -> FileRun | None:
        try:
            paddr, count = self._run(address)
        except Fault:
            return None
        below = self.physical.file_run(paddr)
        if below is None:
            return None
        shift = paddr - address
        low = next((start for start, end, _ in self._linear if start <= address < end), address)
        return FileRun(max(low, below.start - shift), min(address + count, below.end - shift), below.descriptor,
                       below.delta + shift)

    def gather(self, addresses: Addresses, size: int) -> Gathered:
        from kshell.target.bulk import gather

        return gather(self, addresses, size)

    def read_many(self, addresses: Sequence[int], size: int) -> list[bytes | None]:
        run = self.file_run(addresses[0]) if addresses else None
        if run is not None and run.start <= min(addresses) and max(addresses) + size <= run.end:
            places = map(run.delta.__add__, addresses)
            try:
                whole = list(map(os.pread, repeat(run.descriptor), repeat(size), places))
            except OSError:
                whole = []
            if whole and set(map(len, whole)) == {size}:
                return [*whole]
        if run is None and addresses:
            return self._read_places(addresses, size)
        rows: list[bytes | None] = []
        low, high, descriptor, delta = 0, -1, -1, 0
        for address in addresses:
            if not low <= address <= high:
                run = self.file_run(address)
                low, high, descriptor, delta = (run.start, run.end - size, *run[2:]) if run else (0, -1, -1, 0)
            if low <= address <= high:
                try:
                    data = os.pread(descriptor, size, address + delta)
                except OSError:
                    data = b""
                if len(data) == size:
                    rows.append(data)
                    continue
            data, fault = self._read_runs(address, size)
            rows.append(data if fault is None else None)
        return rows

    def _read_places(self, addresses: Sequence[int], size: int) -> list[bytes | None]:
        """Read as :meth:`read_many` from a memory below that does not lie in a file as it is."""
        if self._epoch.count != self._seen:
            self._forget()
        places: list[int] = []
        for address in addresses:
            delta = self._large.get(address >> LARGE_SHIFT)
            if delta is not None and address & LARGE - 1 <= LARGE - size:
                places.append(address + delta)
                continue
            try:
                paddr, count = self._contiguous(address, size)
                places.append(paddr if count >= size else NO_PLACE)
            except Fault:
                places.append(NO_PLACE)
        rows = self.physical.read_many([place for place in places if place != NO_PLACE], size)
        if len(rows) == len(places):
            return rows
        found = iter(rows)
        rows = []
        for address, place in zip(addresses, places, strict=True):
            if place != NO_PLACE:
                rows.append(next(found))
            else:  # not mapped, or over pages that do not adjoin
                data, fault = self._read_runs(address, size)
                rows.append(data if fault is None else None)
        return rows

    def ranges(self) -> Iterator[Range]:
        for mapping in self.mappings():
            yield Range(mapping.start, mapping.end)

    def check(self) -> None:
        self.physical.check()

    # -- small reads -----------------------------------------------------------------------------------------------

    def _kept(self, address: int) -> memoryview | None:
        """Return the bytes of the page of *address* as numbers of 64 bits; None when it is not all held, or moves.

        None also for the first time a page is asked for: many are asked for one number and never again.
        """
        if self._epoch.count != self._seen:
            self._forget()
        number = address >> PAGE_SHIFT
        page = self._pages.get(number)
        if page is not None:
            return page
        if number not in self._once:
            if len(self._once) >= MAX_ONCE:
                self._once.clear()
            self._once.add(number)
            return None
        window = self.window(address)
        if window is None or window.end - window.start < PAGE_SIZE:
            return None
        if len(self._pages) >= MAX_KEPT:
            self._pages.clear()
        whole = window.view.obj
        data = whole if isinstance(whole, bytes) and len(whole) == PAGE_SIZE else bytes(window.view)
        page = self._pages[number] = memoryview(data).cast("Q")
        return page

    def _number(self, address: int, size: int) -> int:
        """Return an unsigned number read without looking at what is kept."""
        if address & PAGE_MASK <= PAGE_SIZE - size:
            try:
                data, fault = self.physical.read_upto(self.translate(address), size)
                if fault is None:
                    return int.from_bytes(data, "little")
            except Fault:
                pass  # said below, of all the bytes
        data, fault = self._read_runs(address, size)
        if fault is not None:
            raise fault
        return int.from_bytes(data, "little")

    def u64(self, address: int) -> int:
        page = self._pages.get(address >> PAGE_SHIFT)
        if page is None or self._epoch.count != self._seen:
            page = self._kept(address)
        if page is None or address & 7 or _SWAPPED:
            return self._number(address, 8)
        value: int = page[(address & PAGE_MASK) >> 3]
        return value

    def u32(self, address: int) -> int:
        page = self._pages.get(address >> PAGE_SHIFT)
        if page is None or self._epoch.count != self._seen:
            page = self._kept(address)
        if page is None or address & 3 or _SWAPPED:
            return self._number(address, 4)
        value: int = page[(address & PAGE_MASK) >> 3]
        return value >> 32 if address & 4 else value & 0xFFFF_FFFF

    def chase(self, head: int, offset: int = 0, limit: int = 1 << 22) -> list[int]:
        """Follow the pointers at ``address + offset`` from *head* until 0 or *head*; return those visited after it.

        :raises ChaseError: more than *limit* steps, or a cycle that does not pass through *head*
        :raises Fault: a pointer cannot be read; ``visited`` of it are the addresses up to there
        """
        return self.chase_rows(head, offset, (), limit)[0]

    def chase_rows(
        self, head: int, offset: int, pieces: Sequence[tuple[int, int]], limit: int = 1 << 22
    ) -> tuple[list[int], list[list[bytes | None]]]:
        """Follow pointers as :meth:`chase`, and keep *pieces* of each that is visited: a list of rows for each of them.

        Where they cannot be had in the one read that the pointer takes anyway, None stands for them.

        :param pieces: (where it begins, seen from the address, how many bytes); all are read with the pointer
        """
        if self._epoch.count != self._seen:
            self._forget()
        first = min(offset, *(start for start, _ in pieces)) if pieces else offset
        size = max(offset + 8, *(start + length for start, length in pieces)) - first if pieces else 8
        columns: list[list[bytes | None]] = [[] for _ in pieces]
        cuts = [(column.append, start - first, start - first + length)
                for column, (start, length) in zip(columns, pieces, strict=True)]
        visited: list[int] = []
        link = offset - first
        append, pread, unpack = visited.append, os.pread, struct.Struct("<Q").unpack_from
        low, high, descriptor, delta = 0, 0, -1, 0
        filed = True  # as the element before
        address = tortoise = head  # Brent: the tortoise waits while the hare goes 1, 2, 4, ... steps
        wait = steps = 1
        try:
            while True:
                at = address + first
                if low <= at <= high:
                    data = pread(descriptor, size, at + delta)
                elif filed:
                    data = b""
                    run = self.file_run(at)
                    low, high, descriptor, delta = (run.start, run.end - size, *run[2:]) if run else (0, -1, -1, 0)
                    filed = run is not None
                else:  # the memory below is decompressed, or asked for
                    data = self._read_runs(at, size)[0]
                if len(data) == size:
                    (address,) = unpack(data, link)
                    for keep, begin, end in cuts:
                        keep(data[begin:end])
                else:
                    address = self._number(address + offset, 8)
                    for keep, _, _ in cuts:
                        keep(None)
                if address == head or address == 0:
                    for column in columns:
                        del column[0]  # the head's
                    return visited, columns
                if address == tortoise or len(visited) >= limit:
                    break
                append(address)
                steps -= 1
                if not steps:
                    tortoise = address
                    wait = steps = wait * 2
        except OSError:
            self.read(address + offset, 8)  # says why
            raise
        except Fault as fault:
            fault.visited = visited
            raise
        if address != tortoise:
            raise ChaseError(f"the list at 0x{head:x} has more than {limit} elements", visited)
        distinct = list(dict.fromkeys(visited))
        raise ChaseError(f"the list at 0x{head:x} loops without coming back to its head", distinct)
