"""Physical memory through QEMU's gdb stub: pages fetched many at a time, kept for as long as the machine stands.

QEMU gdbstub.c: ``Qqemu.PhyMemMode:1`` makes ``m`` and ``M`` physical; they answer with zeroes where no RAM is, so what
is RAM has to be told (:meth:`GdbMemory.set_ram`), as the guest's own kernel knows it. One packet carries PacketSize/2
bytes; a page is fetched whole, since the next question is likely near.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from kshell.errors import Fault, Reason
from kshell.memory.gdbmachine import GdbMachine
from kshell.memory.gdbstub import StubError
from kshell.memory.model import TOP, Gathered, Memory, Range, Window

if TYPE_CHECKING:
    from kshell.memory.model import Addresses

PAGE = 4096
MAX_KEPT = 1 << 15  # pages: 128 MiB
MAX_FETCH = 1 << 12  # pages asked for at once


class GdbMemory(Memory):
    """The physical memory of a machine.

    :param hold: has the machine stand still for a ``with`` block
    """

    space = "physical"

    def __init__(
        self, machine: GdbMachine, hold: Callable[[], AbstractContextManager[None]], *, writable: bool = False,
    ) -> None:
        self.machine, self._hold, self.writable = machine, hold, writable
        self._pages: dict[int, bytes] = {}
        self._ram: list[tuple[int, int]] | None = None
        self._starts: list[int] = []

    def set_ram(self, runs: Iterable[tuple[int, int]]) -> None:
        """Tell which addresses are RAM, as (start, end), ascending; others fault from now on."""
        self._ram = list(runs)
        self._starts = [start for start, _ in self._ram]

    def _held(self, address: int, size: int) -> int:
        """Return how many bytes from *address* on, at most *size*, are RAM as far as is known."""
        if self._ram is None:
            return max(min(size, TOP - address), 0)
        number = bisect_right(self._starts, address) - 1
        done = 0
        while 0 <= number < len(self._ram) and done < size:
            start, end = self._ram[number]
            if not start <= address + done < end:
                break
            done = end - address
            number += 1
        return min(done, size)

    # -- pages -----------------------------------------------------------------------------------------------------

    def _fetch(self, numbers: Iterable[int]) -> None:
        """Have the pages of these numbers kept, those that can be had."""
        missing = [number for number in numbers if number not in self._pages]
        if len(self._pages) + len(missing) > MAX_KEPT:
            self._pages.clear()
        for at in range(0, len(missing), MAX_FETCH):
            part = missing[at : at + MAX_FETCH]
            for number, data in zip(part, self.machine.read_pages(part, PAGE), strict=True):
                if data is not None:
                    self._pages[number] = data

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        if size <= 0:
            return b"", None
        page = self._pages.get(address // PAGE) if self.machine.stands else None
        inside = address % PAGE
        if page is not None and inside + size <= PAGE and (self._ram is None or self._held(address, size) == size):
            return page[inside : inside + size], None
        held = self._held(address, size)
        parts: list[bytes] = []
        done, why, detail = 0, Reason.OUTSIDE, ""
        try:
            with self._hold():
                while done < held:
                    first = (address + done) // PAGE
                    last = min((address + held - 1) // PAGE, first + MAX_FETCH - 1)
                    self._fetch(range(first, last + 1))
                    for number in range(first, last + 1):
                        page = self._pages.get(number)
                        if page is None:
                            why, detail = Reason.IO, "the gdb stub cannot read it"
                            held = 0
                            break
                        low = max(address - number * PAGE, 0)
                        piece = page[low : min(PAGE, address + held - number * PAGE)]
                        parts.append(piece)
                        done += len(piece)
        except StubError as error:
            why, detail = Reason.IO, str(error)
        data = b"".join(parts)
        if len(data) == size:
            return data, None
        return data, Fault(address + len(data), size, why, partial=data, space=self.space, detail=detail)

    def window(self, address: int) -> Window | None:
        page = self._pages.get(address // PAGE)
        if not self.machine.stands or self._held(address & -PAGE, PAGE) != PAGE:
            return None
        if page is None:
            try:
                self._fetch((address // PAGE,))
            except StubError:
                return None
            page = self._pages.get(address // PAGE)
        start = address & -PAGE
        return None if page is None else Window(start, start + PAGE, memoryview(page))

    def read_many(self, addresses: Sequence[int], size: int) -> list[bytes | None]:
        with self._hold():
            self._prefetch({page for address in addresses for page in _pages_of(address, size)})
            return super().read_many(addresses, size)

    def _prefetch(self, numbers: Iterable[int]) -> None:
        """Fetch pages that are about to be read, all at once; whoever reads one that cannot be had learns why."""
        wanted = sorted(number for number in numbers if self._held(number * PAGE, 1))
        try:
            self._fetch(wanted[: MAX_KEPT // 2])
        except StubError:
            return

    def gather(self, addresses: Addresses, size: int) -> Gathered:
        import numpy as np

        wanted = np.asarray(addresses, np.uint64)
        data, ok = np.zeros((len(wanted), size), np.uint8), np.zeros(len(wanted), np.bool_)
        if not len(wanted):
            return Gathered(data, ok)
        with self._hold():
            firsts = wanted // np.uint64(PAGE)
            within = (wanted % np.uint64(PAGE)).astype(np.int64) + size <= PAGE
            numbers, member = np.unique(firsts[within], return_inverse=True)
            if 0 < len(numbers) <= MAX_KEPT // 2:
                self._prefetch(numbers.tolist())
                whole = [self._whole(number) for number in numbers.tolist()]
                table = np.frombuffer(b"".join(whole), np.uint8).reshape(-1, PAGE)
                here = np.array([bool(page) for page in self._there(numbers.tolist())], np.bool_)
                rows = np.nonzero(within)[0]
                columns = (wanted[rows] % np.uint64(PAGE)).astype(np.int64)
                data[rows] = table[member[:, None], columns[:, None] + np.arange(size)]
                ok[rows] = here[member]
            for row in np.nonzero(~ok)[0].tolist():
                piece, fault = self.read_upto(int(wanted[row]), size)
                if fault is None:
                    data[row] = np.frombuffer(piece, np.uint8)
                    ok[row] = True
        return Gathered(data, ok)

    def _there(self, numbers: Sequence[int]) -> Iterator[bool]:
        """Yield of each page whether it is kept and all RAM; rows of the others are read one by one."""
        for number in numbers:
            yield number in self._pages and self._held(number * PAGE, PAGE) == PAGE

    def _whole(self, number: int) -> bytes:
        return self._pages.get(number) or bytes(PAGE)

    # -- the rest --------------------------------------------------------------------------------------------------

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data).cast("B")
        if not self.writable:
            raise Fault(address, len(view), Reason.READ_ONLY, space=self.space, verb="write")
        held = self._held(address, len(view))
        done, why, detail = 0, Reason.OUTSIDE, ""
        try:
            with self._hold():
                for done in self.machine.write(address, view[:held]):
                    self._drop(address, done)
                kept = b"".join(self.machine.read(address, done)) if done else b""
                if kept != view[:done]:  # ROM, a device: QEMU says OK all the same
                    done = next(at for at in range(done) if kept[at : at + 1] != view[at : at + 1])
                    why, detail = Reason.IO, "the gdb stub took it, and the bytes are not there: no RAM"
                elif done < held:
                    why, detail = Reason.IO, "the gdb stub cannot write it"
        except StubError as error:
            why, detail = Reason.IO, str(error)
        finally:
            self._drop(address, len(view))
        if done < len(view):
            raise Fault(address + done, len(view), why, done=done, space=self.space, verb="write", detail=detail)

    def _drop(self, address: int, size: int) -> None:
        for number in _pages_of(address, size):
            self._pages.pop(number, None)
        self.epoch.count += 1

    def flush(self) -> None:
        self._pages.clear()
        super().flush()

    def ranges(self) -> Iterator[Range]:
        for start, end in self._ram or ():
            yield Range(start, end)

    def close(self) -> None:
        self._pages.clear()


def _pages_of(address: int, size: int) -> range:
    return range(address // PAGE, (address + max(size, 1) - 1) // PAGE + 1)
