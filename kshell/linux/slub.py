"""SLUB: every slab and every object of a cache, allocated or free.

Kernel source: mm/slub.c, mm/slab.h (``struct slab``, 5.17+; before, the same members of ``struct page``),
include/linux/slub_def.h. Full slabs are on no list, so slabs are found in the page array, by their flag or page type
and their cache; what is free is told by the freelists of slabs and CPUs, which are followed in lock step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from kshell.errors import FormatError, KshellError
from kshell.linux.lists import member_offset
from kshell.linux.pages import PAGE_SHIFT, flag_bit, iter_runs, page_array, page_type
from kshell.linux.percpu import per_cpu_ptr

if TYPE_CHECKING:
    import numpy.typing

    from kshell.target.target import Target
    from kshell.types.model import CType, StructType
    from kshell.value import Value

    Words = numpy.typing.NDArray[numpy.uint64]
    Bools = numpy.typing.NDArray[numpy.bool_]

TOP = 1 << 64
SLAB_RED_ZONE = 0x400
#: objects of one slab: the counter has 15 bits
MAX_OBJECTS = 1 << 15


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

        mask = self.cache == np.uint64(cache)
        return Slabs(self.page[mask], self.address[mask], self.cache[mask], self.freelist[mask], self.objects[mask],
                     self.inuse[mask], self.frozen[mask], self.lost)


class Objects(NamedTuple):
    """The objects of a cache.

    :ivar address: of each; ``allocated``: whether it is in use
    :ivar damaged: slabs whose freelist leads out of them or in circles, with the address of the slab
    """

    address: Words
    allocated: Bools
    damaged: list[int]


_KEPT: WeakKeyDictionary[Any, tuple[int, Slabs]] = WeakKeyDictionary()


def all_slabs(target: Target) -> Slabs:
    """Return all slabs; the page array is read once for each state of the memory.

    :raises KshellError: the kernel has no SLUB, or its types do not tell
    """
    epoch = target.physical.epoch.count
    kept = _KEPT.get(target)
    if kept is None or kept[0] != epoch or target.live:
        kept = _KEPT[target] = epoch, _scan(target)
    return kept[1]


def _slab_type(target: Target) -> CType:
    """Return the type that describes a slab: struct slab, or struct page before 5.17."""
    found = target.types.get("struct slab")
    if found is None or not _has(found, "slab_cache"):
        found = target.type("struct page")
    if not _has(found, "slab_cache") or not _has(target.type("struct kmem_cache"), "cpu_slab", "cpu_sheaves"):
        raise KshellError("the kernel's allocator is not SLUB", hint="SLAB and SLOB (before 6.8) are not read")
    return found


def _has(type: CType, *names: str) -> bool:
    bare: StructType = type.strip()  # type: ignore[assignment]
    return any(bare.has(name) for name in names)


def _scan(target: Target) -> Slabs:
    import numpy as np

    array = page_array(target)
    type_ = _slab_type(target)
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


# -- objects -----------------------------------------------------------------------------------------------------------


def cache_objects(target: Target, cache: Value) -> Objects:
    """Return every object of the ``struct kmem_cache`` *cache*, allocated and free, by ascending slab.

    :raises Fault: the cache cannot be read
    :raises KshellError: free objects are kept in a way that this version does not read
    """
    import numpy as np

    seen = cache.snapshot()
    if seen.has("cpu_sheaves"):
        raise KshellError("the cache keeps free objects in sheaves (Linux 6.18 and later): not read by this version")
    slabs = all_slabs(target).of(cache.address)
    size = seen.integer("size")
    pad = seen.integer("red_left_pad") if seen.has("red_left_pad") and seen.integer("flags") & SLAB_RED_ZONE else 0
    if not 0 < size <= 1 << 23:
        raise FormatError(f"struct kmem_cache at 0x{cache.address:x} is damaged: objects of {size} bytes")
    counts = slabs.objects.astype(np.int64)
    starts = np.concatenate(([0], np.cumsum(counts)))
    total = int(starts[-1])
    number = np.arange(total, dtype=np.int64) - np.repeat(starts[:-1], counts)
    address = np.repeat(slabs.address, counts) + (number * size + pad).astype(np.uint64)
    allocated = np.ones(total, np.bool_)
    chains = _Chains(target, seen, slabs, starts[:-1], size, pad)
    chains.follow(slabs.freelist, np.arange(len(counts)), allocated)
    heads, rows = _cpu_freelists(target, seen, slabs)
    chains.follow(np.array(heads, np.uint64), np.array(rows, np.int64), allocated)
    return Objects(address, allocated, sorted(chains.damaged))


class _Chains:
    """Freelists of many slabs, followed one step at a time for all of them."""

    def __init__(self, target: Target, cache: Value, slabs: Slabs, starts: Any, size: int, pad: int) -> None:
        self._kernel, self._slabs, self._starts, self._size, self._pad = target.kernel, slabs, starts, size, pad
        self._offset = cache.integer("offset")
        # CONFIG_SLAB_FREELIST_HARDENED, 4.14+; mixed with the swapped address since 5.7
        self._random = cache.integer("random") if cache.has("random") else None
        self.damaged: set[int] = set()

    def follow(self, heads: Words, rows: Any, allocated: Bools) -> None:
        """Clear *allocated* for each object on the lists that begin at *heads*, which are in the slabs *rows*."""
        import numpy as np

        live = (heads != 0).nonzero()[0]
        current, rows = heads[live], rows[live]
        for _ in range(MAX_OBJECTS):
            if not len(current):
                return
            base = self._slabs.address[rows] + np.uint64(self._pad)
            index, rest = np.divmod(current - base, np.uint64(self._size))
            good = (current >= base) & (rest == 0) & (index < self._slabs.objects[rows])
            place = np.where(good, self._starts[rows] + index.astype(np.int64), 0)
            good &= allocated[place]  # one that is free already: the list goes in circles, or joins another
            self._blame(rows[~good])
            current, rows, place = current[good], rows[good], place[good]
            allocated[place] = False
            current, ok = self._next(current)
            self._blame(rows[~ok])
            going = ok & (current != 0)
            current, rows = current[going], rows[going]
        self._blame(rows)

    def _next(self, current: Words) -> tuple[Words, Bools]:
        import numpy as np

        at = current + np.uint64(self._offset)
        gathered = self._kernel.gather(at, 8)
        stored = gathered.data.reshape(-1).view("<u8").copy()
        if self._random is not None:
            stored ^= np.uint64(self._random) ^ at.byteswap()
        return stored, gathered.ok

    def _blame(self, rows: Any) -> None:
        self.damaged.update(int(page) for page in self._slabs.page[rows])


def _cpu_freelists(target: Target, cache: Value, slabs: Slabs) -> tuple[list[int], list[int]]:
    """Return the first free object of each CPU's own freelist, and the row of the slab it is in."""
    heads: list[int] = []
    rows: list[int] = []
    where = {int(page): row for row, page in enumerate(slabs.page)}
    kind = target.type("struct kmem_cache_cpu")
    for cpu in target.cpu_numbers("possible"):
        own = target.value(kind, per_cpu_ptr(target, cache.integer("cpu_slab"), cpu)).snapshot()
        row = where.get(own.integer("slab" if own.has("slab") else "page"))
        head = own.integer("freelist")
        if head and row is not None:
            heads.append(head)
            rows.append(row)
    return heads, rows

