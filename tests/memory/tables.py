"""Page tables built for tests: x86-64, four or five levels, in a memory of a few pages."""

from __future__ import annotations

import struct

from kshell.arch.x86_64 import X86_64
from kshell.target.space import AddressSpace, Linear
from tests.memory.held import Held

PAGE = 4096
PRESENT, WRITE, USER, LARGE, PROTNONE = 1, 2, 4, 0x80, 0x100
RWU = PRESENT | WRITE | USER
MASK = 0x000F_FFFF_FFFF_F000
KERNEL_HALF = (1 << 63, 1 << 64)
TABLES = 0x10_0000  # where tables are made
MAX_TABLES = 64


class Tables:
    """Tables from ``TABLES`` on in ``memory``, whose data are the runs given."""

    def __init__(self, data: dict[int, bytes], levels: int = 4, *, sme: int = 0, writable: bool = False) -> None:
        self.memory = Held({**data, TABLES: bytes(MAX_TABLES * PAGE)}, writable=writable)
        self.format, self.root, self._next = X86_64().paging(levels, sme), TABLES, TABLES + PAGE
        self.sme = sme

    def entry(self, address: int, level: int) -> int:
        """Return where the entry of *address* in the table of *level* is; makes the tables above it."""
        table = self.root
        for upper in range(self.format.levels, level, -1):
            at = table + (address >> self.format.shift(upper) & 511) * 8
            found = struct.unpack("<Q", self.memory.read(at, 8))[0]
            if not found & PRESENT:
                found = self._next | RWU | self.sme
                self._next += PAGE
                self.put(at, found)
            table = found & MASK & ~self.sme
        return table + (address >> self.format.shift(level) & 511) * 8

    def put(self, at: int, entry: int) -> None:
        """Write an entry at a physical address."""
        base = self.memory.runs[TABLES]
        base[at - TABLES : at - TABLES + 8] = struct.pack("<Q", entry)

    def map(self, address: int, paddr: int, level: int = 1, bits: int = PRESENT | WRITE) -> None:
        """Map the page of *level* at *address* to *paddr*."""
        self.put(self.entry(address, level), paddr | self.sme | bits | (LARGE if level > 1 else 0))

    def space(self, **options: object) -> AddressSpace:
        """Return the address space of these tables."""
        return AddressSpace(self.memory, self.format, self.root, **options)  # type: ignore[arg-type]


def linear(start: int, end: int, paddr: int = 0) -> list[Linear]:
    """Return one window."""
    return [Linear(start, end, paddr)]
