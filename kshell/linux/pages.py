"""The page array: ``struct page`` of all memory, read in runs.

Kernel source: include/linux/mmzone.h (sparse memory, vmemmap), include/linux/mm_types.h, include/linux/page-flags.h.
A section of 128 MiB without memory has no struct pages: its part of the array is not mapped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from kshell.errors import Fault, FormatError, KshellError, Reason
from kshell.linux.kernel import require_kernel
from kshell.linux.memory_map import Region, regions
from kshell.target.space import AddressSpace

if TYPE_CHECKING:
    import numpy.typing

    from kshell.target.target import Target

    Bytes = numpy.typing.NDArray[numpy.uint8]

PAGE_SHIFT = 12
#: pages whose struct page is read at once: a section of x86-64, 2 MiB of struct page
RUN = 1 << 15
#: 64 TiB of memory, more than any machine that 4-level page tables can have
MAX_FRAMES = 1 << 34


class PageArray(NamedTuple):
    """Where the page array is.

    :ivar start: address of the struct page of frame 0
    :ivar size: bytes of struct page; ``frames``: how many there are, holes included
    :ivar direct: address at which frame 0 is mapped
    """

    start: int
    size: int
    frames: int
    direct: int

    def address(self, page: int) -> int:
        """Return where the memory of the struct page at *page* is mapped (page_address())."""
        return self.direct + ((page - self.start) // self.size << PAGE_SHIFT)

    def page(self, address: int) -> int:
        """Return the struct page of the direct-map *address* (virt_to_page())."""
        return self.start + (address - self.direct >> PAGE_SHIFT) * self.size


def page_array(target: Target) -> PageArray:
    """Return where the page array is.

    :raises KshellError: the kernel's symbols or types do not tell
    """
    require_kernel(target)
    size = target.type("struct page").size
    frames = int.from_bytes(target.kernel.read(target.symbol("max_pfn").address, 8), "little")
    found: dict[str, Region] = {region.kind: region for region in regions(target)}
    if not size or not 0 < frames <= MAX_FRAMES or "vmemmap" not in found:
        raise FormatError(f"the page array cannot be placed: {frames} frames of {size} bytes")
    array = PageArray(found["vmemmap"].start, size, frames, found["direct"].start)
    _check(target, array)
    return array


def _check(target: Target, array: PageArray) -> None:
    """Refuse a page array that is not mapped where page tables, which are in memory, have their struct pages.

    :raises FormatError: the kernel has none there
    """
    space = target.kernel
    if isinstance(space, AddressSpace):
        try:
            space.translate(array.start + (space.root >> PAGE_SHIFT) * array.size)
        except Fault as fault:
            if fault.reason is Reason.NOT_MAPPED:
                raise FormatError(f"no page array is mapped at 0x{array.start:x}: this kernel keeps it in sections "
                                  "(built without CONFIG_SPARSEMEM_VMEMMAP), which are not read") from fault


def iter_runs(target: Target, array: PageArray) -> Iterator[tuple[int, Bytes, Any]]:
    """Yield the page array in runs: (first frame, uint8[n, size], bool[n] which could be read). Imports numpy.

    Parts that cannot be read at all (no memory there) are left out; of a run that lacks some, those are not ok.
    """
    import numpy as np

    kernel = target.kernel
    for first in range(0, array.frames, RUN):
        count = min(RUN, array.frames - first)
        at = array.start + first * array.size
        data, fault = kernel.read_upto(at, count * array.size)
        if fault is None:
            yield first, np.frombuffer(data, np.uint8).reshape(count, array.size), np.ones(count, np.bool_)
            continue
        gathered = kernel.gather(at + array.size * np.arange(count, dtype=np.uint64), array.size)
        if gathered.ok.any():
            yield first, gathered.data, gathered.ok


def flag_bit(target: Target, name: str) -> int | None:
    """Return the number of the page flag *name* ("PG_slab"), None where this kernel has none of that name."""
    return _enumerator(target, "enum pageflags", name)


def page_type(target: Target, name: str) -> int | None:
    """Return the value of the page type *name* ("PGTY_slab", 6.12+) in the top byte of page_type, or None."""
    return _enumerator(target, "enum pagetype", name)


def _enumerator(target: Target, enum: str, name: str) -> int | None:
    from kshell.types.model import EnumType

    try:
        found = target.type(enum).strip()
    except KshellError:
        return None
    return dict(found.enumerators).get(name) if isinstance(found, EnumType) else None
