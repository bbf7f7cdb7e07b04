"""SLUB: every slab of the machine, from the page array.

Kernel source: mm/slub.c, mm/slab.h (``struct slab``, 5.17+; before, the same members of ``struct page``),
include/linux/slub_def.h. Full slabs are on no list, so slabs are found in the page array, by their flag or page type
and their cache. The objects in them are in :mod:`kshell.linux.slub_objects`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kshell.errors import FormatError, KshellError
from kshell.linux.kept import kept
from kshell.linux.lists import member_offset
from kshell.linux.pages import PAGE_SHIFT, flag_bit, iter_runs, page_array, page_type

if TYPE_CHECKING:
    import numpy.typing

    from kshell.target.target import Target
    from kshell.types.model import CType, StructType

    Words = numpy.typing.NDArray[numpy.uint64]
    Bools = numpy.typing.NDArray[numpy.bool_]


class Slabs(NamedTuple):
    """All slabs of the machine, one row each, by the frame they begin in.

    :ivar page: address of the ``struct slab``; ``address``: of the memory; ``cache``: of the ``struct kmem_cache``
    :ivar freelist: the first free object, 0 for none; ``objects``, ``inuse``, ``frozen``: as the kernel counts them
    :ivar lost: struct pages that could not be read
    """

    page: Words
    address: Words
    cache: Words
    freelist: Words
    objects: Words
    inuse: Words
    frozen: Bools
    lost: int

    def of(self, cache: int) -> Slabs:
        """Return the slabs of one cache."""
        import numpy as np

        return self.where(self.cache == np.uint64(cache))

    def where(self, mask: Bools) -> Slabs:
        """Return the slabs of the rows that are set in *mask*."""
        return Slabs(self.page[mask], self.address[mask], self.cache[mask], self.freelist[mask], self.objects[mask],
                     self.inuse[mask], self.frozen[mask], self.lost)


def all_slabs(target: Target) -> Slabs:
    """Return all slabs; the page array is read once for each state of the memory.

    :raises KshellError: the kernel has no SLUB, or its types do not tell
    """
    return kept(target, "slabs", _scan)


def slab_type(target: Target) -> CType:
    """Return the type that describes a slab: struct slab, or struct page before 5.17."""
    found = target.types.get("struct slab")
    if found is None or not has_member(found, "slab_cache"):
        found = target.type("struct page")
    cache = target.type("struct kmem_cache")
    if not has_member(found, "slab_cache") or not has_member(cache, "cpu_slab", "cpu_sheaves"):
        raise KshellError("the kernel's allocator is not SLUB", hint="SLAB and SLOB (before 6.8) are not read")
    return found


def has_member(type: CType, *names: str) -> bool:
    """Whether the structure *type* has one of the members *names*."""
    bare: StructType = type.strip()  # type: ignore[assignment]
    return any(bare.has(name) for name in names)


def _scan(target: Target) -> Slabs:
    import numpy as np

    array = page_array(target)
    type_ = slab_type(target)
    cache_at, freelist_at = member_offset(type_, "slab_cache"), member_offset(type_, "freelist")
    counters_at = member_offset(type_, "counters")
    is_slab = _recogniser(target)
    rows: list[Any] = []
    lost = 0
    for first, pages, ok in iter_runs(target, array):
        lost += int((~ok).sum())
        found = (is_slab(pages) & ok).nonzero()[0]
        if len(found):
            chosen = np.ascontiguousarray(pages[found])
            rows.append((found.astype(np.uint64) + np.uint64(first), _words(chosen, cache_at),
                         _words(chosen, freelist_at), _words(chosen, counters_at)))
    if not rows:
        raise FormatError("no slab is marked in the page array")
    frame, cache, freelist, counters = (np.concatenate(column) for column in zip(*rows, strict=True))
    inuse, objects = counters & np.uint64(0xFFFF), counters >> np.uint64(16) & np.uint64(0x7FFF)
    frozen = (counters >> np.uint64(31) & np.uint64(1)).astype(np.bool_)
    page = np.uint64(array.start) + frame * np.uint64(array.size)
    address = np.uint64(array.direct) + (frame << np.uint64(PAGE_SHIFT))
    return Slabs(page, address, cache, freelist, objects, inuse, frozen, lost)


def _recogniser(target: Target) -> Any:
    """Return a function from uint8[n, size] to bool[n]: which struct pages begin a slab."""
    import numpy as np

    kind = target.type("struct page")
    bit = flag_bit(target, "PG_slab")
    if bit is not None:  # until 6.9; only the first page of a slab has the flag
        at = member_offset(kind, "flags")
        return lambda pages: (_words(pages, at) >> np.uint64(bit) & np.uint64(1)).astype(np.bool_)
    at = member_offset(kind, "page_type")
    value = page_type(target, "PGTY_slab")
    if value is not None:  # 6.12+: a number in the top byte
        wanted = np.uint32(value)
        return lambda pages: _halves(pages, at) >> np.uint32(24) == wanted
    # 6.10, 6.11: a type is a bit that is cleared, PG_slab = 0x00001000 below the base 0xf0000000
    return lambda pages: _halves(pages, at) & np.uint32(0xF0001000) == np.uint32(0xF0000000)


def _words(rows: Any, at: int) -> Any:
    import numpy as np

    return np.ascontiguousarray(rows[:, at : at + 8]).view("<u8").reshape(-1)


def _halves(rows: Any, at: int) -> Any:
    import numpy as np

    return np.ascontiguousarray(rows[:, at : at + 4]).view("<u4").reshape(-1)
