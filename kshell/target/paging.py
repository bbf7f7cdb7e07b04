"""Walking page tables: one address, many at once, and all that is mapped. Bounded for hostile tables.

The format of entries is the architecture's (:class:`kshell.arch.model.PagingFormat`); tables lie in physical memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.arch.model import ABSENT, LEAF, TABLE, PagingFormat
from kshell.errors import Fault, Reason
from kshell.memory.model import Memory

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from kshell.arch.model import Kinds

    U64 = numpy.typing.NDArray[numpy.uint64]
    I64 = numpy.typing.NDArray[numpy.int64]
    Bools = numpy.typing.NDArray[numpy.bool_]

MAX_TABLES = 1 << 14  # tables kept; one is 4 KiB
MAX_VISITS = 4  # how often one enumeration goes into the same table
MAX_SPAN = 1 << 20  # numbers so far apart are told apart by a table of that size rather than by sorting
LOW_BITS = 18  # of the numbers of last-level tables: those of one level 4 entry


class Level(NamedTuple):
    """One step of a walk: entry number ``slot`` of the ``table`` (physical address) of this ``level``."""

    level: int
    table: int
    slot: int
    entry: int
    flags: str


class Mapping(NamedTuple):
    """Virtual addresses ``start <= a < end`` mapped to physical ones from ``paddr`` on, all with the same flags."""

    start: int
    end: int
    paddr: int
    flags: str


class Walker:
    """The page tables under one root."""

    def __init__(self, physical: Memory, format: PagingFormat, root: int, space: str) -> None:
        self.physical, self.format, self.root, self.space = physical, format, root, space
        self._tables: dict[int, memoryview] = {}
        self._near: dict[int, memoryview] = {}  # last-level tables by the address bits above
        self._bits = format.index_bits
        self._mask = (1 << format.index_bits) - 1
        self._page = format.page_shift
        self._low = format.shift(2)

    def table(self, paddr: int) -> memoryview:
        """Return the entries of the table at *paddr*.

        :raises Fault: physical memory does not hold it
        """
        found = self._tables.get(paddr)
        if found is None:
            if len(self._tables) >= MAX_TABLES:
                self.forget()
            found = self._tables[paddr] = memoryview(self.physical.read(paddr, 8 << self._bits)).cast("Q")
        return found

    def forget(self) -> None:
        """Drop the tables kept: memory was written or has moved."""
        self._tables.clear()
        self._near.clear()

    def leaf(self, address: int) -> tuple[int, int]:
        """Return (physical address of the page's start, log2 of the page's size) of a canonical *address*.

        :raises Fault: not mapped, swapped out, or a table that cannot be read (Reason.CORRUPT)
        """
        format = self.format
        near = self._near.get(address >> self._low)
        if near is not None:
            kind, found = format.decode(near[address >> self._page & self._mask], 1)
            if kind == LEAF:
                return found, self._page
        paddr, level = self.root, format.levels
        while True:
            shift = format.shift(level)
            try:
                table = self.table(paddr)
            except Fault as fault:
                raise self._lost(address, paddr, level, fault) from fault
            entry = table[address >> shift & self._mask]
            kind, found = format.decode(entry, level)
            if kind == LEAF:
                if level == 1:
                    self._near[address >> self._low] = table
                return found, shift
            if kind == ABSENT:
                reason, detail = format.absent(entry, level)
                raise Fault(address, 1, reason, space=self.space, detail=detail)
            paddr, level = found, level - 1

    def _lost(self, address: int, paddr: int, level: int, fault: Fault) -> Fault:
        outside = fault.reason is Reason.OUTSIDE
        why = f"{fault.reason.value} ({fault.detail})" if fault.detail else fault.reason.value
        detail = f"the level {level} page table at physical 0x{paddr:x}: {why}"
        return Fault(address, 1, Reason.CORRUPT if outside else fault.reason, space=self.space, detail=detail)

    def levels(self, address: int) -> list[Level]:
        """Return every entry on the way to *address*, down to the one that maps it or does not.

        :raises Fault: a table cannot be read
        """
        rows: list[Level] = []
        paddr = self.root
        for level in range(self.format.levels, 0, -1):
            index = address >> self.format.shift(level) & self._mask
            try:
                entry = self.table(paddr)[index]
            except Fault as fault:
                raise self._lost(address, paddr, level, fault) from fault
            rows.append(Level(level, paddr, index, entry, self.format.flags(entry, level)))
            kind, paddr = self.format.decode(entry, level)
            if kind != TABLE:
                break
        return rows

    # -- many at once ----------------------------------------------------------------------------------------------

    def leaves(self, addresses: U64) -> tuple[U64, Bools]:
        """Translate many canonical addresses: (physical addresses, whether mapped).

        Addresses share last-level tables, so those are found first, each once, and the entries then picked from them.
        """
        import numpy as np

        if not len(addresses):
            return np.zeros(0, np.uint64), np.zeros(0, np.bool_)
        regions, member = _unique(addresses >> np.uint64(self._low))
        kinds, bases = self._upper(regions << np.uint64(self._low))
        if (kinds != TABLE).all():
            mapped = (kinds == LEAF)[member]
            found = bases[member] + (addresses & np.uint64((1 << self._low) - 1))
            return np.where(mapped, found, np.uint64(0)), mapped
        slots = ((addresses >> np.uint64(self._page)) & np.uint64(self._mask)).astype(np.int64)
        within = addresses & np.uint64((1 << self._page) - 1)
        if (kinds == TABLE).all():
            kind, result = self._decode(bases, member, slots, 1)
            mapped = kind == LEAF
            result |= within
            return result if mapped.all() else np.where(mapped, result, np.uint64(0)), mapped
        walked = kinds == TABLE
        low = np.nonzero(walked[member])[0]
        mapped = (kinds == LEAF)[member]
        result = np.where(mapped, bases[member] + (addresses & np.uint64((1 << self._low) - 1)), np.uint64(0))
        number = np.cumsum(walked) - 1
        kind, found = self._decode(bases[walked], number[member[low]], slots[low], 1)
        leaf = kind == LEAF
        result[low[leaf]] = found[leaf] | within[low[leaf]]
        mapped[low] = leaf
        return result, mapped

    def _upper(self, addresses: U64) -> tuple[Kinds, U64]:
        """Walk down to level 2: (TABLE and the last-level table, or LEAF and where this part of the page starts)."""
        import numpy as np

        kinds = np.full(len(addresses), TABLE, np.int8)
        bases = np.full(len(addresses), self.root, np.uint64)
        for level in range(self.format.levels, 1, -1):
            shift = self.format.shift(level)
            rows = np.nonzero(kinds == TABLE)[0]
            if not len(rows):
                break
            here = addresses[rows]
            slots = ((here >> np.uint64(shift)) & np.uint64(self._mask)).astype(np.int64)
            tables, member = np.unique(bases[rows], return_inverse=True)
            kind, found = self._decode(tables, member, slots, level)
            kinds[rows] = kind
            bases[rows] = np.where(kind == LEAF, found + (here & np.uint64((1 << shift) - 1)), found)
        return kinds, bases

    def _decode(self, tables: U64, member: I64, slots: I64, level: int) -> tuple[Kinds, U64]:
        """Decode entry number ``slots[i]`` of the table ``tables[member[i]]``; of unreadable tables: ABSENT."""
        import numpy as np

        if len(tables) > 64 and len(tables) << self._bits > 4 * len(slots):  # sparse: whole tables would be waste
            data, ok = self.physical.gather(tables[member] + slots.astype(np.uint64) * np.uint64(8), 8)
            entries = data.view(np.uint64)[:, 0]
            entries[~ok] = 0
            return self.format.decode_all(entries, level)
        entries = np.zeros((len(tables), 1 << self._bits), np.uint64)
        for number, paddr in enumerate(tables.tolist()):
            try:
                entries[number] = self.table(paddr)
            except Fault:
                continue
        flat = entries.reshape(-1)
        places = slots if len(tables) == 1 else member * (1 << self._bits) + slots
        if len(flat) <= len(places):
            kinds, founds = self.format.decode_all(flat, level)
            return kinds[places], founds[places]
        return self.format.decode_all(flat[places], level)

    # -- all that is mapped ----------------------------------------------------------------------------------------

    def mappings(self, start: int, end: int) -> Iterator[Mapping]:
        """Yield what is mapped in ``start <= address < end``, ascending, neighbours joined.

        A table that is reached for the fifth time is not gone into: KASAN maps its one page of zeroes through few
        tables that all hold themselves many times over, and hostile ones could go on for ever. It is yielded as one
        mapping with the flags "shared table" and its own address.
        """
        last: Mapping | None = None
        for item in self._pages(self.root, self.format.levels, 0, start, end, {}):
            if last is not None and last.end == item.start and last.flags == item.flags and (
                last.paddr + last.end - last.start == item.paddr
            ):
                last = last._replace(end=item.end)
                continue
            if last is not None:
                yield last
            last = item
        if last is not None:
            yield last

    def _pages(
        self, paddr: int, level: int, base: int, start: int, end: int, visits: dict[int, int]
    ) -> Iterator[Mapping]:
        format = self.format
        shift = format.shift(level)
        try:
            table = self.table(paddr)
        except Fault:
            return  # what lies below cannot be known; ::vtop of an address there says why
        top = format.shift(format.levels + 1)
        for index, entry in enumerate(table):
            if not entry:
                continue
            low = base | index << shift
            if level == format.levels and index >> (self._bits - 1):
                low |= (1 << 64) - (1 << top)  # the upper half is sign-extended
            high = low + (1 << shift)
            if low >= end or high <= start:
                continue
            kind, found = format.decode(entry, level)
            if kind == LEAF:
                cut = max(low, start)
                yield Mapping(cut, min(high, end), found + cut - low, format.flags(entry, level))
            elif kind == TABLE:
                count = visits[found] = visits.get(found, 0) + 1
                if count <= MAX_VISITS:
                    yield from self._pages(found, level - 1, low, start, end, visits)
                else:
                    yield Mapping(max(low, start), min(high, end), found, "shared table")


def _unique(numbers: U64) -> tuple[U64, I64]:
    """Return (the different ones, ascending; for each of *numbers* which one it is), without sorting where it can."""
    import numpy as np

    low = np.min(numbers)
    span = int(np.max(numbers) - low) + 1
    if span == 1:
        return numbers[:1], np.zeros(len(numbers), np.int64)
    if span <= MAX_SPAN:
        found, which = _mark((numbers - low).astype(np.int64), span)
        return found.astype(np.uint64) + low, which
    # far apart, yet often in few places: those first, then the low bits within each
    upper, place = _unique(numbers >> np.uint64(LOW_BITS))
    if len(upper) << LOW_BITS > 4 * MAX_SPAN:
        return np.unique(numbers, return_inverse=True)
    inside = (numbers & np.uint64((1 << LOW_BITS) - 1)).astype(np.int64)
    found, which = _mark(place << LOW_BITS | inside, len(upper) << LOW_BITS)
    return upper[found >> LOW_BITS] << np.uint64(LOW_BITS) | (found & ((1 << LOW_BITS) - 1)).astype(np.uint64), which


def _mark(numbers: I64, span: int) -> tuple[I64, I64]:
    """As _unique, for ``0 <= number < span`` and a table of that size."""
    import numpy as np

    used = np.zeros(span, np.bool_)
    used[numbers] = True
    found = np.nonzero(used)[0]
    number = np.zeros(span, np.int64)
    number[found] = np.arange(len(found))
    return found, number[numbers]
