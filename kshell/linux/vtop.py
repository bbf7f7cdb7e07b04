"""Virtual to physical, step by step: the tables on the way and what their entries say.

Architecture: Intel SDM volume 3, 4.5 (4- and 5-level paging); arch/x86/include/asm/pgtable_types.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError
from kshell.target.space import AddressSpace

if TYPE_CHECKING:
    from kshell.memory.model import Memory

#: by level from the bottom; the top one of four levels is the PGD, of five too
NAMES = {1: "PTE", 2: "PMD", 3: "PUD", 4: "P4D"}


class Step(NamedTuple):
    """One table on the way: its name, physical address, the number of the entry in it, the entry and what it says."""

    name: str
    table: int
    slot: int
    entry: int
    flags: str


def page_tables(memory: Memory) -> AddressSpace:
    """Return *memory* as what it is: an address space with page tables.

    :raises KshellError: it has none that can be walked
    """
    if not isinstance(memory, AddressSpace):
        raise KshellError("failed to get physical mapping: this target has no page tables to walk")
    return memory


def steps(space: AddressSpace, address: int) -> list[Step]:
    """Return the tables on the way from *address* to its page, as far as the way goes.

    :raises Fault: a table cannot be read
    """
    found = []
    levels = space.walk(address)
    top = levels[0].level if levels else 0
    for level, table, slot, entry, flags in levels:
        found.append(Step("PGD" if level == top else NAMES.get(level, f"level {level}"), table, slot, entry, flags))
    return found
