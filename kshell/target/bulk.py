"""Many addresses at once: translation and gathering over page tables and windows of arithmetic, with numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kshell.memory.model import TOP, Gathered

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from kshell.memory.model import Addresses
    from kshell.target.paging import Walker
    from kshell.target.space import AddressSpace, Linear

    U64 = numpy.typing.NDArray[numpy.uint64]
    Bools = numpy.typing.NDArray[numpy.bool_]

PAGE_SIZE, PAGE_MASK = 4096, 4095


def translate_all(
    walker: Walker, linear: Sequence[Linear], half: tuple[int, int], addresses: Addresses
) -> tuple[U64, Bools]:
    """Translate many addresses: (physical addresses, whether mapped); what is not mapped is 0."""
    import numpy as np

    wanted = np.asarray(addresses, np.uint64)
    result = np.zeros(len(wanted), np.uint64)
    mapped = np.zeros(len(wanted), np.bool_)
    if not len(wanted):
        return result, mapped
    lowest, highest = int(np.min(wanted)), int(np.max(wanted))
    for start, end, paddr in linear:
        if end <= lowest or highest < start:
            continue
        offset = wanted - np.uint64(start)
        inside = offset < np.uint64(end - start)
        if inside.all():
            return offset + np.uint64(paddr), inside
        inside &= ~mapped
        if inside.any():
            result[inside] = offset[inside] + np.uint64(paddr)
            mapped |= inside
    canonical = walker.format.canonical
    if (not mapped.any() and half[0] <= lowest and highest < half[1] and canonical(lowest) and canonical(highest)
            and lowest >> 63 == highest >> 63):
        return walker.leaves(wanted)  # nor is anything between these two another space's or non-canonical
    served = _served(walker, half, wanted)
    rest = served & ~mapped
    if rest.all():
        return walker.leaves(wanted)
    if rest.any():
        result[rest], mapped[rest] = walker.leaves(wanted[rest])
    return result, mapped


def _served(walker: Walker, half: tuple[int, int], addresses: U64) -> Bools:
    """Which addresses are in this half and canonical."""
    import numpy as np

    top = walker.format.shift(walker.format.levels + 1) - 1
    # sign extension: adding half the span makes both canonical ends one run from 0 on
    ok: Bools = addresses + np.uint64(1 << top) < np.uint64(2 << top)
    if half[0]:
        ok &= addresses >= np.uint64(half[0])
    if half[1] < TOP:
        ok &= addresses < np.uint64(half[1])
    return ok


def gather(space: AddressSpace, addresses: Addresses, size: int) -> Gathered:
    """Read *size* bytes at each virtual address; rows that lie in several pages are one read where those adjoin."""
    import numpy as np

    wanted = np.asarray(addresses, np.uint64)
    paddrs, ok = space.translate_all(wanted)
    inside = ok & (wanted & np.uint64(PAGE_MASK) <= np.uint64(max(PAGE_SIZE - size, 0)))
    if size > PAGE_SIZE:
        inside[:] = False
    crossing = np.nonzero(ok & ~inside)[0]
    if len(crossing) and size:
        inside[crossing] = _straight(space, wanted[crossing], paddrs[crossing], size)
    data, found = space.physical.gather(np.where(inside, paddrs, np.uint64(TOP - 1)), size)
    # what is left: rows over pages that do not adjoin (few), and rows that lie in several pieces of a lower memory
    for row in np.nonzero(ok & ~inside)[0].tolist():
        piece, fault = space.read_upto(int(wanted[row]), size)
        if fault is None:
            data[row] = np.frombuffer(piece, np.uint8)
            found[row] = True
    return Gathered(data, found & ok)


def _straight(space: AddressSpace, wanted: U64, paddrs: U64, size: int) -> Bools:
    """Which rows of *size* bytes are one physical run: each further page is where the first one makes expect it."""
    import numpy as np

    straight = np.ones(len(wanted), np.bool_)
    step = np.uint64(PAGE_SIZE)
    first = step - (wanted & np.uint64(PAGE_MASK))  # bytes of the row in its first page
    for page in range((size + PAGE_SIZE - 2) // PAGE_SIZE):
        offset = first + np.uint64(page) * step
        needed = straight & (offset < np.uint64(size)) & (wanted + offset > wanted)
        beyond = straight & (offset < np.uint64(size)) & (wanted + offset <= wanted)
        straight &= ~beyond  # past the top of the space
        rows = np.nonzero(needed)[0]
        if not len(rows):
            break
        found, ok = space.translate_all(wanted[rows] + offset[rows])
        straight[rows] = ok & (found == paddrs[rows] + offset[rows])
    return straight
