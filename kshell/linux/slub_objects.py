"""SLUB: every object of every slab, and whether it is allocated or where it is free.

Kernel source: mm/slub.c. What is free is told by the freelists of the slabs and the CPUs, which are followed in lock
step for all slabs of all caches at once, and by sheaves (6.18+). The rest is allocated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kshell.linux.kept import kept
from kshell.linux.slub import Slabs, all_slabs
from kshell.linux.slub_layout import (
    OO_MASK,
    OO_SHIFT,
    partial_slabs,
    read_cpu_slabs,
    read_layouts,
    sheaf_objects,
)

if TYPE_CHECKING:
    import numpy.typing

    from kshell.target.target import Target
    from kshell.value import Value

    Words = numpy.typing.NDArray[numpy.uint64]
    Bools = numpy.typing.NDArray[numpy.bool_]
    States = numpy.typing.NDArray[numpy.uint8]

#: objects of one slab: the counter has 15 bits
MAX_OBJECTS = 1 << 15
#: lists that are followed one by one
FEW = 24
#: a slab of more pages than 2 to this is damage
MAX_ORDER = 10

#: what an object is; FREE: in a slab that no CPU holds, so on its node's partial list
ALLOCATED, FREE, ON_PARTIAL, ON_CPU, IN_SHEAF = range(5)
STATES = ("allocated", "free", "free, in a slab on a CPU's partial list", "free, in a slab that a CPU allocates from",
          "free, in a sheaf")


class Objects(NamedTuple):
    """The objects of a cache.

    :ivar address: of each; ``state``: ALLOCATED or where it is free
    :ivar damaged: slabs whose freelist leads out of them or in circles, by the address of their struct slab; ``lost``:
        those where it leads into memory that cannot be read
    """

    address: Words
    state: States
    damaged: list[int]
    lost: list[int]

    @property
    def allocated(self) -> Bools:
        """Whether each is in use."""
        mask: Bools = self.state == ALLOCATED
        return mask


class Heap:
    """The objects of some slabs, numbered through: those of ``slabs`` row r are ``starts[r]`` to ``starts[r + 1]``.

    :ivar slabs: ascending by address; those of caches that cannot be read are left out
    :ivar layouts: of their caches; ``row``: of each slab's cache in it
    :ivar state: of each object; ``damaged``: rows of slabs whose freelist or counts are damaged
    :ivar lost: rows of slabs with a freelist that leads into memory that is not there
    :ivar strange: slabs left out, by their cache, and why
    """

    def __init__(self, target: Target, slabs: Slabs) -> None:
        import numpy as np

        caches = np.unique(slabs.cache)
        self.layouts = read_layouts(target, caches)
        row = np.searchsorted(caches, slabs.cache)
        known = self.layouts.size[row] != 0
        self.strange = dict(self.layouts.problems)
        self.slabs, self.row = slabs.where(known), row[known]
        limit = self.layouts.limit[self.row]
        self.damaged: set[int] = set((self.slabs.objects > limit).nonzero()[0].tolist())
        self.lost: set[int] = set()
        counts = np.minimum(self.slabs.objects, limit).astype(np.int64)
        self.starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
        self.counts = counts
        self._size, self._base = self.layouts.size[self.row], self.slabs.address + self.layouts.pad[self.row]
        #: bytes of each slab
        self.bytes = self._slab_bytes()
        self.state = np.zeros(int(self.starts[-1]), np.uint8)
        #: number of the CPU that allocates from the slab or has it on its partial list, -1 for none
        self.cpu = np.full(len(counts), -1, np.int64)
        self._fill(target)

    def __len__(self) -> int:
        return len(self.state)

    def addresses(self) -> Words:
        """Return the address of each object."""
        import numpy as np

        number = np.arange(len(self.state), dtype=np.int64) - np.repeat(self.starts[:-1], self.counts)
        size = np.repeat(self._size, self.counts)
        found: Words = np.repeat(self._base, self.counts) + number.astype(np.uint64) * size
        return found

    def object(self, row: int, index: int) -> tuple[int, int]:
        """Return (address, bytes to the next one) of object *index* of slab *row*."""
        return int(self._base[row]) + index * int(self._size[row]), int(self._size[row])

    def of_slab(self) -> Any:
        """Return the row of its slab for each object."""
        import numpy as np

        return np.repeat(np.arange(len(self.counts), dtype=np.int64), self.counts)

    def find(self, addresses: Words) -> tuple[Any, Any, Any]:
        """Return (row of the slab, index in it, offset in the object) for addresses anywhere; -1 where in no object.

        An address between the objects of a slab, or behind the last one, has its row and the index -1.
        """
        import numpy as np

        if not len(self.slabs.address):
            none = np.full(len(addresses), -1, np.int64)
            return none, none, none
        row = np.searchsorted(self.slabs.address, addresses, "right").astype(np.int64) - 1
        place = np.maximum(row, 0)
        offset = (addresses - self._base[place]).astype(np.int64)
        size = self._size[place].astype(np.int64)
        before = (addresses >= self.slabs.address[place]) & (addresses < self._base[place])
        index = np.where(offset >= 0, offset // size, -1)
        inside = (row >= 0) & (offset >= 0) & (index < self.counts[place])
        # what is left of the slab's pages behind its last object
        rest = (row >= 0) & (addresses < self.slabs.address[place] + self.bytes[place]) & (offset >= 0)
        row = np.where(inside | rest | before & (row >= 0), row, -1)
        return row, np.where(inside, index, -1), np.where(inside, offset - index * size, -1)

    def _slab_bytes(self) -> Words:
        import numpy as np

        used = self.counts.astype(np.uint64) * self._size + self.layouts.pad[self.row]
        found: Words = (used + np.uint64(4095)) & ~np.uint64(4095)
        for kind in (self.layouts.min[self.row], self.layouts.oo[self.row]):
            order = np.minimum(kind >> np.uint64(OO_SHIFT), np.uint64(MAX_ORDER))
            whole = np.uint64(4096) << order
            found = np.where((kind & np.uint64(OO_MASK) == self.slabs.objects) & (whole >= used), whole, found)
        return found

    # -- what is free ------------------------------------------------------------------------------------------------

    def _fill(self, target: Target) -> None:
        import numpy as np

        every = np.arange(len(self.counts), dtype=np.int64)
        self._follow(target, self.slabs.freelist, every)
        if not target.live:  # each slab says how many are free on its own list; a running one may say so later
            free = np.bincount(self.of_slab()[self.state != ALLOCATED], minlength=len(self.counts))
            told = self.slabs.objects.astype(np.int64) - self.slabs.inuse.astype(np.int64)
            self.damaged.update(set((free != told).nonzero()[0].tolist()) - self.lost)
        by_page = np.argsort(self.slabs.page, kind="stable")
        pages = self.slabs.page[by_page]

        def rows_of(wanted: Words) -> tuple[Any, Bools]:
            at = np.minimum(np.searchsorted(pages, wanted), max(len(pages) - 1, 0))
            good = pages[at] == wanted if len(pages) else np.zeros(len(wanted), np.bool_)
            return by_page[at[good]], good

        held = read_cpu_slabs(target, self.layouts)
        rows, good = rows_of(held.slab)
        self._follow(target, held.freelist[good], rows)
        self.cpu[rows] = held.cpu[good]
        place = np.full(len(self.counts), FREE, np.uint8)
        which, partial = partial_slabs(target, held)
        partial_rows, good = rows_of(partial)
        place[partial_rows] = ON_PARTIAL
        self.cpu[partial_rows] = held.cpu[which[good]]
        place[rows] = ON_CPU
        free = self.state != ALLOCATED
        self.state[free] = np.repeat(place, self.counts)[free]
        self._sheaves(target)

    def _sheaves(self, target: Target) -> None:
        import numpy as np

        _, found = sheaf_objects(target, self.layouts)
        if len(found):
            row, index, rest = self.find(found)
            good = (index >= 0) & (rest == 0)
            self.state[self.starts[np.maximum(row, 0)][good] + index[good]] = IN_SHEAF

    def _follow(self, target: Target, heads: Words, rows: Any) -> None:
        """Mark each object on the lists that begin at *heads*, which are in the slabs *rows*."""
        import numpy as np

        layouts = self.layouts
        live = (heads != 0).nonzero()[0]
        current, rows = heads[live], rows[live]
        for _ in range(MAX_OBJECTS):
            if len(current) <= FEW:
                # the last lists are as long as a slab has objects: a step of vectors for each costs more than they do
                for head, row in zip(current.tolist(), rows.tolist(), strict=True):
                    self._follow_one(target, head, row)
                return
            base, size = self._base[rows], self._size[rows]
            index, rest = np.divmod(current - base, size)
            good = (current >= base) & (rest == 0) & (index < self.counts[rows].astype(np.uint64))
            place = np.where(good, self.starts[rows] + index.astype(np.int64), 0)
            good &= self.state[place] == ALLOCATED  # one that is free already: the list goes in circles
            if not good.all():
                self.damaged.update(rows[~good].tolist())
                current, rows, place = current[good], rows[good], place[good]
            self.state[place] = FREE
            cache = self.row[rows]
            at = current + layouts.offset[cache]
            gathered = target.kernel.gather(at, 8)
            following = gathered.data.reshape(-1).view("<u8").copy()
            if layouts.hardened:
                # mixed with the swapped address since 5.7 (1ad53d9fa3f6 "slub: improve bit diffusion")
                following ^= layouts.random[cache] ^ at.byteswap()
            if not gathered.ok.all():
                self.lost.update(rows[~gathered.ok].tolist())
            going = gathered.ok & (following != 0)
            current, rows = following[going], rows[going]
        self.damaged.update(rows.tolist())


    def _follow_one(self, target: Target, head: int, row: int) -> None:
        """Do as :meth:`_follow` for one list."""
        base, size, cache = int(self._base[row]), int(self._size[row]), int(self.row[row])
        count, offset, first = int(self.counts[row]), int(self.layouts.offset[cache]), int(self.starts[row])
        random = int(self.layouts.random[cache])
        data, _fault = target.kernel.read_upto(base, count * size)
        for _ in range(count + 1):
            index, rest = divmod(head - base, size)
            if rest or not 0 <= index < count or self.state[first + index] != ALLOCATED:
                self.damaged.add(row)
                return
            self.state[first + index] = FREE
            at = index * size + offset
            word = data[at : at + 8]
            if len(word) < 8:  # behind a page that is not there, another may be
                word, fault = target.kernel.read_upto(base + at, 8)
                if fault is not None:
                    self.lost.add(row)
                    return
            head = int.from_bytes(word, "little")
            if self.layouts.hardened:
                head ^= random ^ int.from_bytes((base + at).to_bytes(8, "big"), "little")
            if not head:
                return


def heap(target: Target) -> Heap:
    """Return the objects of all slabs; they are found once for each state of the memory.

    :raises KshellError: the kernel has no SLUB, or its types do not tell
    """
    return kept(target, "heap", lambda target: Heap(target, all_slabs(target)))


def cache_objects(target: Target, cache: Value) -> Objects:
    """Return every object of the ``struct kmem_cache`` *cache*, allocated and free, by ascending slab.

    :raises Fault, KshellError: the cache cannot be read or is damaged
    """
    found = Heap(target, all_slabs(target).of(cache.address))
    for problem in found.strange.values():
        raise problem
    if not len(found.counts):
        cache.integer("size")  # says when there is no such cache
    pages = found.slabs.page
    return Objects(found.addresses(), found.state, pages[sorted(found.damaged)].tolist(),
                   pages[sorted(found.lost)].tolist())


def state_of(heap: Heap, row: int, index: int) -> str:
    """Return what object *index* of slab *row* is, in words."""
    state = int(heap.state[heap.starts[row] + index])
    cpu = int(heap.cpu[row])
    if state == ON_CPU and cpu >= 0:
        return f"free, in a slab that CPU {cpu} allocates from"
    if state == ON_PARTIAL and cpu >= 0:
        return f"free, in a slab on CPU {cpu}'s partial list"
    return STATES[state]

