"""The pages that page tables are in, and whose they are: the tables of all processes, level by level.

Architecture: Intel SDM volume 3, 4.5. Kernel source: arch/x86/mm/pgtable.c (``pgd_alloc``). Only the half of a top
table that maps user memory is followed: the other one is every process's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from kshell.linux.kept import kept
from kshell.linux.task_stacks import every_task
from kshell.linux.tasks import task_type
from kshell.target.space import AddressSpace
from kshell.value import Vector

if TYPE_CHECKING:
    import numpy.typing

    from kshell.target.target import Target

    Frames = numpy.typing.NDArray[numpy.int64]
    Words = numpy.typing.NDArray[numpy.uint64]

PRESENT_LARGE, PRESENT = 0x81, 0x01
ADDRESS = 0x000F_FFFF_FFFF_F000
#: tables that are read at once
BLOCK = 1024


class Tables(NamedTuple):
    """The tables of one level.

    :ivar level: 1 for those whose entries are pages; ``top``: whether it is the highest
    :ivar frame: of each; ``mm``: address of the ``mm_struct`` it belongs to
    """

    level: int
    top: bool
    frame: Frames
    mm: Words


class Owners(NamedTuple):
    """All tables by ascending frame: ``level`` and ``mm`` of each."""

    frame: Frames
    level: Frames
    mm: Words

    def find(self, frame: int) -> tuple[int, int] | None:
        """Return (level, mm_struct) of the table in *frame*, None when it is none of a process."""
        import numpy as np

        at = int(np.searchsorted(self.frame, frame))
        if at == len(self.frame) or int(self.frame[at]) != frame:
            return None
        return int(self.level[at]), int(self.mm[at])


def process_tables(target: Target, lowest: int = 1) -> Iterator[Tables]:
    """Yield the page tables of all processes, the top level first, down to the level *lowest*."""
    import numpy as np

    space = target.kernel
    assert isinstance(space, AddressSpace)
    mms = Vector(target, task_type(target), every_task(target)).column("mm")
    owners = np.array(sorted({mm for mm in mms if isinstance(mm, int) and mm}), np.uint64)
    tops = Vector(target, target.type("struct mm_struct"), owners).column("pgd")
    addresses = np.array([top if isinstance(top, int) else 0 for top in tops], np.uint64)
    paddrs, mapped = space.translate_all(addresses)
    frames, owners = (paddrs[mapped] >> np.uint64(12)).astype(np.int64), owners[mapped]
    highest = int(space.format.levels)
    for level in range(highest, lowest - 1, -1):
        yield Tables(level, level == highest, frames, owners)
        if level > lowest:
            frames, owners = _below(target, frames, owners, 256 if level == highest else 512)


def _below(target: Target, frames: Frames, owners: Words, slots: int) -> tuple[Frames, Words]:
    """Return the tables that the first *slots* entries of tables lead to, each once."""
    import numpy as np

    found: list[Any] = []
    whose: list[Any] = []
    for first in range(0, len(frames), BLOCK):
        some = slice(first, first + BLOCK)
        gathered = target.physical.gather(frames[some].astype(np.uint64) << np.uint64(12), slots * 8)
        entries = gathered.data.view("<u8")
        row, slot = ((entries & np.uint64(PRESENT_LARGE) == np.uint64(PRESENT)) & gathered.ok[:, None]).nonzero()
        found.append(((entries[row, slot] & np.uint64(ADDRESS)) >> np.uint64(12)).astype(np.int64))
        whose.append(owners[some][row])
    if not found:
        return frames[:0], owners[:0]
    below, where = np.unique(np.concatenate(found), return_index=True)
    return below, np.concatenate(whose)[where]


def table_owners(target: Target) -> Owners:
    """Return whose each page table of a process is; found once for each state of the memory."""
    return kept(target, "table owners", _owners)


def _owners(target: Target) -> Owners:
    import numpy as np

    every = list(process_tables(target))
    frame = np.concatenate([tables.frame for tables in every])
    level = np.concatenate([np.full(len(tables.frame), tables.level, np.int64) for tables in every])
    mm = np.concatenate([tables.mm for tables in every])
    order = np.argsort(frame, kind="stable")
    return Owners(frame[order], level[order], mm[order])
