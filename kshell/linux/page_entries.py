"""Page-table entries of x86-64 in words, and whole tables of them.

Intel SDM volume 3A, 4.5; arch/x86/include/asm/pgtable_types.h (``_PAGE_BIT_*``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.arch.model import ABSENT, TABLE
from kshell.errors import KshellError, Reason

if TYPE_CHECKING:
    from kshell.arch.model import PagingFormat
    from kshell.target.space import AddressSpace

PRESENT, PAGE = 1, 4096
#: bits of an entry that is present. Those of the software are Linux's: 9 to 11, 57, 58
FLAGS = ((1 << 1, "write"), (1 << 2, "user"), (1 << 3, "writethrough"), (1 << 4, "nocache"), (1 << 5, "accessed"),
         (1 << 6, "dirty"), (1 << 8, "global"), (1 << 9, "special"), (1 << 10, "uffd_wp"), (1 << 11, "soft_dirty"),
         (1 << 57, "saved_dirty"), (1 << 58, "devmap"), (1 << 63, "noexec"))  # fmt: skip
LARGE, LARGE_PAT, KEY_SHIFT = 1 << 7, 1 << 12, 59
#: names of what a large entry maps, by level
SIZES = {1: "page", 2: "2M page", 3: "1G page"}


class Entry(NamedTuple):
    """An entry of a page table.

    :ivar slot: its number in the table
    :ivar kind: "page", "2M page", "1G page", "table", "swapped", "none", "bad" (a reserved bit is set)
    :ivar pfn: the frame that it leads to, None when to none
    :ivar flags: names of the bits that are set; ``note``: what else it says: the place in swap
    """

    slot: int
    entry: int
    kind: str
    pfn: int | None
    flags: str
    note: str


def decode(format: PagingFormat, entry: int, level: int, slot: int = 0) -> Entry:
    """Return what the entry *entry* of a table of *level* (1: the last one) says."""
    kind, address = format.decode(entry, level)
    if kind == ABSENT:
        if not entry:
            return Entry(slot, entry, "none", None, "", "")
        reason, detail = format.absent(entry, level)
        word = {Reason.SWAPPED: "swapped", Reason.CORRUPT: "bad"}.get(reason, "none")
        return Entry(slot, entry, word, None, "", "a reserved bit is set" if word == "bad" else detail)
    if kind == TABLE:
        return Entry(slot, entry, "table", address >> 12, _flags(entry, 0), "")
    note = "" if entry & PRESENT else "not present for the processor: PROT_NONE, or being split or migrated"
    return Entry(slot, entry, SIZES[level], address >> 12, _flags(entry, level) if entry & PRESENT else "", note)


def _flags(entry: int, level: int) -> str:
    """Return the names of the bits of a present entry; *level* is 0 for one that leads to a table."""
    words = ["present", *(name for bit, name in FLAGS if entry & bit)]
    if entry & (LARGE if level == 1 else LARGE_PAT if level > 1 else 0):
        words.append("pat")
    key = entry >> KEY_SHIFT & 15
    if key and level and entry >> 2 & 1:
        words.append(f"key {key}")
    return ",".join(words)


def table(space: AddressSpace, frame: int, level: int) -> Iterator[Entry]:
    """Yield the entries of the table in page *frame* that are not empty.

    :raises Fault: physical memory does not hold it
    """
    entries = memoryview(space.physical.read(frame * PAGE, PAGE)).cast("Q")
    for slot, entry in enumerate(entries):
        if entry:
            yield decode(space.format, entry, level, slot)


def last_table(space: AddressSpace, address: int) -> tuple[int, int, int]:
    """Return (page frame, level, first address) of the lowest table on the way to *address*.

    :raises Fault: a table on the way cannot be read
    """
    step = space.walk(address)[-1]
    covered = 1 << space.format.shift(step.level + 1)
    return step.table >> 12, step.level, address & -covered & (1 << 64) - 1


def virtual(space: AddressSpace, first: int, level: int, slot: int) -> int:
    """Return the virtual address of an entry of the table of *level* whose first address is *first*."""
    address = first + (slot << space.format.shift(level))
    width = space.format.shift(space.format.levels + 1)  # above them all bits are as the highest one
    return address | -(1 << width) & (1 << 64) - 1 if address >> width - 1 & 1 else address & (1 << width) - 1


def level_of(space: AddressSpace, number: int) -> int:
    """Return level *number* as mdb counts (0 is the last one) as :class:`kshell.target.paging.Walker` counts.

    :raises KshellError: the page tables of this target have no such level
    """
    if not 0 <= number < space.format.levels:
        raise KshellError(f"level {number}: this target's page tables have levels 0 (PTE) to {space.format.levels - 1}")
    return number + 1
