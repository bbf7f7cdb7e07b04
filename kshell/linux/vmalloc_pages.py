"""The pages of vmalloc areas: which frame each virtual page is in, from the areas' arrays of struct pages.

Kernel source: ``struct vm_struct`` in include/linux/vmalloc.h. Areas without an array (per-CPU chunks) are translated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from kshell.target.space import AddressSpace

if TYPE_CHECKING:
    import numpy.typing

    from kshell.linux.memory_map import VmallocArea
    from kshell.linux.pages import PageArray
    from kshell.target.target import Target

    Frames = numpy.typing.NDArray[numpy.int64]
    Words = numpy.typing.NDArray[numpy.uint64]

VM_ALLOC = 2
#: pages of areas that are translated one by one
MAX_MAPPED = 1 << 22


class AreaPages(NamedTuple):
    """Pages of areas: ``frame`` of each, its virtual ``address``, ``area``: number of the area it is in.

    :ivar lost: pages that are not told
    """

    frame: Frames
    address: Words
    area: Frames
    lost: int


def array_pages(target: Target, array: PageArray, areas: Sequence[VmallocArea]) -> AreaPages:
    """Return the pages of the areas that have an array of struct pages."""
    import numpy as np

    held = [(number, area) for number, area in enumerate(areas)
            if area.array and 0 < area.pages <= area.end - area.start >> 12]
    counts = np.array([area.pages for _, area in held], np.int64)
    ends = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
    number = np.arange(int(ends[-1]), dtype=np.int64) - np.repeat(ends[:-1], counts)
    slots = np.repeat(np.array([area.array for _, area in held], np.uint64), counts) + (number * 8).astype(np.uint64)
    gathered = target.kernel.gather(slots, 8)
    index = (gathered.data.reshape(-1).view("<u8") - np.uint64(array.start)) // np.uint64(array.size)
    good = gathered.ok & (index < np.uint64(array.frames))
    starts = np.repeat(np.array([area.start for _, area in held], np.uint64), counts)
    which = np.repeat(np.array([number for number, _ in held], np.int64), counts)
    address = starts + (number << 12).astype(np.uint64)
    return AreaPages(index[good].astype(np.int64), address[good], which[good], int((~good).sum()))


def mapped_pages(target: Target, areas: Sequence[VmallocArea]) -> AreaPages:
    """Return the pages of areas that vmalloc() did not fill itself: what the page tables say is there."""
    import numpy as np

    spans = [(number, area) for number, area in enumerate(areas)
             if not area.array and area.flags & VM_ALLOC and not area.physical]
    none = np.zeros(0, np.int64)
    if not spans or not isinstance(target.kernel, AddressSpace):
        return AreaPages(none, none.astype(np.uint64), none, 0)
    pages = [np.arange(area.start, min(area.end, area.start + (MAX_MAPPED << 12)), 4096, dtype=np.uint64)
             for _, area in spans]
    address = np.concatenate(pages)[:MAX_MAPPED]
    which = np.concatenate([np.full(len(some), number, np.int64)
                            for some, (number, _) in zip(pages, spans, strict=True)])[:MAX_MAPPED]
    paddrs, mapped = target.kernel.translate_all(address)
    return AreaPages((paddrs[mapped] >> np.uint64(12)).astype(np.int64), address[mapped], which[mapped], 0)
