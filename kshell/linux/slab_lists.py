"""The slabs of a cache one by one: how full each is and which list it is on; lists of nodes and CPUs.

Kernel source: mm/slub.c. Full slabs are on no list, so all are found by the page array (:mod:`kshell.linux.slub`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kshell.linux import slub_objects
from kshell.linux.lists import chase, member_offset
from kshell.linux.slab import partial_heads
from kshell.linux.slub import has_member, slab_type
from kshell.linux.slub_layout import MAX_LIST, per_cpu_rows
from kshell.linux.slub_objects import ALLOCATED

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from kshell.linux.slub_objects import Heap
    from kshell.target.target import Target

CACHE = "struct kmem_cache"


class SlabRow(NamedTuple):
    """A slab.

    :ivar slab: the ``struct slab`` (``struct page`` before 5.17); ``address``: of its memory
    :ivar inuse: objects that are allocated; ``objects``: all
    :ivar cpu: the CPU that allocates from it or has it on its partial list, -1 for none
    :ivar problem: "" or what is wrong with its free list
    """

    slab: int
    address: int
    inuse: int
    objects: int
    cpu: int
    problem: str

    @property
    def state(self) -> str:
        """Which list it is on, or would be: "cpu 1", "full", "partial", "empty"."""
        if self.cpu >= 0:
            return f"cpu {self.cpu}"
        return "full" if self.inuse == self.objects else "partial" if self.inuse else "empty"


class CacheSlabs(NamedTuple):
    """The slabs of a cache, counted: of each state, the objects, and slabs whose free list is damaged or not there."""

    slabs: int
    partial: int
    empty: int
    cpu: int
    objects: int
    unused: int
    damaged: int
    lost: int


def cache_slabs(target: Target, cache: int) -> list[SlabRow]:
    """Return the slabs of the ``struct kmem_cache`` at *cache*, by address.

    :raises KshellError: the cache cannot be read, or the kernel has no SLUB
    """
    heap = slub_objects.heap(target)
    if cache in heap.strange:
        raise heap.strange[cache]
    target.value(CACHE, cache).integer("size")  # says when there is no such cache
    inuse = _inuse(heap)
    rows = (heap.slabs.cache == cache).nonzero()[0].tolist()
    return [SlabRow(int(heap.slabs.page[row]), int(heap.slabs.address[row]), int(inuse[row]), int(heap.counts[row]),
                    int(heap.cpu[row]), _problem(heap, row)) for row in rows]


def counted(target: Target) -> dict[int, CacheSlabs]:
    """Return the numbers of slabs of every cache that has some, by the address of its ``struct kmem_cache``."""
    import numpy as np

    heap = slub_objects.heap(target)
    inuse, count = _inuse(heap), len(heap.layouts.cache)
    held = heap.cpu >= 0
    damaged = np.isin(np.arange(len(heap.counts)), list(heap.damaged))
    lost = np.isin(np.arange(len(heap.counts)), list(heap.lost - heap.damaged))

    def number(mask: object) -> list[int]:
        counts: list[int] = np.bincount(heap.row[mask], minlength=count).tolist()
        return counts

    columns = zip(
        number(heap.row >= 0), number(~held & (inuse > 0) & (inuse < heap.counts)), number(~held & (inuse == 0)),
        number(held), _sum(heap, heap.counts), _sum(heap, heap.counts - inuse), number(damaged), number(lost),
        strict=True)
    return {cache: CacheSlabs(*row) for cache, row in zip(heap.layouts.cache.tolist(), columns, strict=True) if row[0]}


def partial_list(target: Target, cache: int) -> list[int]:
    """Return the slabs on the nodes' lists of partial slabs of the ``struct kmem_cache`` at *cache*, in their order.

    :raises KshellError: the cache cannot be read, a list is damaged
    """
    kind = slab_type(target)
    # slab_list since 5.2 (916ac0527837 "slub: use slab_list instead of lru")
    at = member_offset(kind, "slab_list" if has_member(kind, "slab_list") else "lru")
    heads = partial_heads(target, target.value(CACHE, cache))
    return [node - at for head in heads for node in chase(target.kernel, head, 0, MAX_LIST)]


def cpu_caches(target: Target, cache: int) -> list[int]:
    """Return the ``struct kmem_cache_cpu`` of each possible CPU; none where a kernel has sheaves instead (7.1+)."""
    import numpy as np

    value = target.value(CACHE, cache)
    if not value.has("cpu_slab"):
        return []
    pointer = np.array([value.integer("cpu_slab")], np.uint64)
    found: list[int] = per_cpu_rows(target, pointer)[2].tolist()
    return found


def _inuse(heap: Heap) -> numpy.typing.NDArray[numpy.int64]:
    import numpy as np

    return np.bincount(heap.of_slab()[heap.state == ALLOCATED], minlength=len(heap.counts))


def _sum(heap: Heap, weights: numpy.typing.NDArray[numpy.int64]) -> list[int]:
    import numpy as np

    found: list[int] = np.bincount(heap.row, weights, len(heap.layouts.cache)).astype(np.int64).tolist()
    return found


def _problem(heap: Heap, row: int) -> str:
    if row in heap.damaged:
        return "its free list is damaged: it leads elsewhere, in a circle, or has not as many objects as are counted"
    return "its free list leads into memory that is not there" if row in heap.lost else ""
