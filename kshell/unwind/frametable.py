"""Finding the entry of an address: by the table that is sorted for it, ``.eh_frame_hdr``, or by looking through all.

Linux Standard Base core 10.6.2 (``.eh_frame_hdr``). Programs that are loaded have it where PT_GNU_EH_FRAME says.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from kshell.errors import FormatError, KshellError
from kshell.memory.elfheaders import NARROW, WIDE
from kshell.unwind.cfi import DATAREL, OMIT, SIZES, Entries, Fde, pointer

if TYPE_CHECKING:
    from kshell.memory.model import Memory

MAX_ENTRIES = 1 << 22
PT_LOAD, PT_DYNAMIC, PT_GNU_EH_FRAME = 1, 2, 0x6474_E550
MAX_SEGMENTS = 64
MAX_SECTION = 64 << 20
#: of a CIE behind its length: the zero that it is told by, version 1, "zR", alignments 1 and -8, return address 16; of
#: i386, -4 and 8
FIRST = {8: b"\0\0\0\0\1zR\0\1\x78\x10", 4: b"\0\0\0\0\1zR\0\1\x7c\x08"}
PAGE_MASK = 4095


class FrameTable(Protocol):
    """Entries by address."""

    def find(self, address: int) -> Fde | None:
        """Return the entry of the code at *address*, None when there is none. :raises KshellError: damage"""


class SortedTable:
    """An ``.eh_frame_hdr`` at *address* of a memory, and the ``.eh_frame`` that it leads to.

    :param word: bytes of an address
    :raises FormatError: there is none that can be read
    :raises Fault: it cannot be read
    """

    def __init__(self, memory: Memory, address: int, word: int = 8) -> None:
        self.memory, self.address, self.word = memory, address, word
        data, _ = memory.read_upto(address, 32)
        if len(data) < 12 or data[0] != 1:
            raise FormatError(f"no .eh_frame_hdr is at 0x{address:x}")
        frames, at = pointer(memory, data, 4, data[1], address, address, word)
        count, at = pointer(memory, data, at, data[2], address, address, word)
        self.entries = Entries(memory, frames, word=word)
        self.encoding, self.table, self.count = data[3], address + at, count
        form, how = data[3] & 0x0F, data[3] & 0xF0
        if data[2] == OMIT or data[3] == OMIT or form not in SIZES or how not in (0, DATAREL):
            self.count = 0
            self._scanned: ScannedTable | None = ScannedTable(self.entries, frames)
            return
        self._scanned, self.size = None, SIZES[form][0] if form else word
        if count > MAX_ENTRIES:
            raise FormatError(f"the .eh_frame_hdr at 0x{address:x} tells of {count} entries")

    def _pair(self, number: int) -> tuple[int, int]:
        at = self.table + number * 2 * self.size
        data = self.memory.read(at, 2 * self.size)
        start, place = pointer(None, data, 0, self.encoding, at, self.address, self.word)
        return start, pointer(None, data, place, self.encoding, at, self.address, self.word)[0]

    def find(self, address: int) -> Fde | None:
        if self._scanned is not None:
            return self._scanned.find(address)
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self._pair(middle)[0] <= address:
                low = middle + 1
            else:
                high = middle
        if not low:
            return None
        found = self.entries.entry(self._pair(low - 1)[1])
        return found if found is not None and found.start <= address < found.end else None


class ScannedTable:
    """All entries from *start* on, read one behind the other when the first is asked for.

    :param bias: what is added to the addresses that are asked for, and taken from those that are found
    """

    def __init__(self, entries: Entries, start: int, size: int | None = None, bias: int = 0) -> None:
        self.entries, self.start, self.size, self.bias = entries, start, size, bias
        self._all: list[Fde] | None = None

    def _iter(self) -> Iterator[Fde]:
        at, end = self.start, None if self.size is None else self.start + self.size
        for _ in range(MAX_ENTRIES):
            if end is not None and at + 4 > end:
                return
            try:
                begin, data = self.entries.content(at)
            except KshellError:
                return  # what cannot be read ends it
            if not data:
                return
            found = self.entries.entry(at)
            if found is not None and found.start < found.end:
                yield found
            at = begin + len(data)

    def find(self, address: int) -> Fde | None:
        if self._all is None:
            self._all = sorted(self._iter(), key=lambda one: one.start)
        place = (address - self.bias) % (1 << 64)
        at = bisect_right(self._all, place, key=lambda one: one.start) - 1
        if at < 0 or not self._all[at].start <= place < self._all[at].end:
            return None
        found = self._all[at]
        return found._replace(start=found.start + self.bias, end=found.end + self.bias)


def find_frames(memory: Memory, start: int, end: int, word: int = 8) -> ScannedTable | None:
    """Return the ``.eh_frame`` between two addresses, where no header leads to it: in static programs; None: no such.

    What compilers begin it with is looked for: an entry that many functions have in common.
    """
    size = min(end - start, MAX_SECTION)
    data, _ = memory.read_upto(start, size)
    at = data.find(FIRST[word])
    while at >= 4:
        begin = start + at - 4
        if 16 <= int.from_bytes(data[at - 4 : at], "little") <= 64 and begin % 4 == 0:
            return ScannedTable(Entries(memory, begin, word=word), begin, start + len(data) - begin)
        at = data.find(FIRST[word], at + 1)
    return None


class Loaded(NamedTuple):
    """What the program headers of an ELF file in memory tell.

    :ivar bias: what was added to the addresses that it was linked at; :ivar end: of what is loaded
    :ivar frames: where its ``.eh_frame_hdr`` is, :ivar dynamic: where its dynamic section is; 0: it has none
    :ivar word: bytes of an address
    """

    bias: int
    end: int
    frames: int
    dynamic: int
    word: int = 8


def loaded_at(memory: Memory, start: int) -> Loaded:
    """Return what the ELF header at *start* of *memory*, where offset 0 of the file is mapped, leads to.

    :raises FormatError: there is none, or it cannot be read
    :raises Fault: it cannot be read
    """
    head = memory.read(start, WIDE.header.size)
    if head[:6] not in (b"\x7fELF\2\1", b"\x7fELF\1\1"):
        raise FormatError(f"no ELF header that can be read is at 0x{start:x}")
    layout = WIDE if head[4] == 2 else NARROW
    told = layout.header.unpack_from(head)
    table, size, count = told[5], told[9], told[10]
    if size != layout.program.size or not 0 < count <= MAX_SEGMENTS or table > 1 << 20:
        raise FormatError(f"the ELF header at 0x{start:x} has impossible program headers")
    top = 1 << layout.bits
    # (type, offset, address, bytes in memory)
    rows = [(row[0], row[layout.row[0]], row[layout.row[1]], row[layout.row[4]])
            for row in layout.program.iter_unpack(memory.read(start + table, size * count))]
    loads = [row for row in rows if row[0] == PT_LOAD]
    first = next((row for row in loads if row[1] & ~PAGE_MASK == 0), None)
    if first is None:
        raise FormatError(f"the ELF file at 0x{start:x} does not load its header")
    bias = start - (first[2] - first[1])
    places = {row[0]: (bias + row[2]) % top for row in rows}
    end = max(bias + row[2] + row[3] for row in loads)
    return Loaded(bias, end, places.get(PT_GNU_EH_FRAME, 0), places.get(PT_DYNAMIC, 0), layout.bits // 8)
