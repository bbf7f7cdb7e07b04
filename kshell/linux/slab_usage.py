"""How much of each slab cache is in use: what /proc/slabinfo and slabtop tell, and where the free objects are.

Kernel source: ``get_slabinfo`` in mm/slub.c, which calls objects active that are free but kept for a CPU: only those
in slabs on the nodes' partial lists count as free there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kshell.linux import slub_objects
from kshell.linux.slab import Cache, iter_caches
from kshell.linux.slub_objects import ALLOCATED, FREE, IN_SHEAF, ON_CPU, ON_PARTIAL

if TYPE_CHECKING:
    from kshell.target.target import Target

STATES = 5


class Usage(NamedTuple):
    """The objects of a cache, by what they are.

    :ivar cache: the cache, None for slabs whose cache is not on the list of caches; ``address`` of the kmem_cache
    :ivar allocated: in use; ``free``: in slabs that no CPU holds; ``partial``: in slabs on CPUs' partial lists
    :ivar cpu: in slabs that CPUs allocate from; ``sheaf``: in sheaves of CPUs and nodes
    :ivar slabs: how many; ``memory``: bytes of them
    :ivar damaged: slabs whose freelist is damaged; ``lost``: those whose freelist leads into missing memory
    """

    cache: Cache | None
    address: int
    allocated: int
    free: int
    partial: int
    cpu: int
    sheaf: int
    slabs: int
    memory: int
    damaged: int
    lost: int

    @property
    def total(self) -> int:
        """All objects."""
        return self.allocated + self.free + self.partial + self.cpu + self.sheaf

    @property
    def slack(self) -> int:
        """Free objects that are kept for a CPU: /proc/slabinfo calls them active."""
        return self.partial + self.cpu + self.sheaf

    @property
    def active(self) -> int:
        """What /proc/slabinfo calls active."""
        return self.allocated + self.slack


def slab_usage(target: Target) -> list[Usage]:
    """Return the usage of every cache, in the order of the list of caches; caches that are on no list last.

    :raises KshellError: the list of caches is damaged, or the kernel has no SLUB
    """
    import numpy as np

    heap = slub_objects.heap(target)
    caches = {cache.address: cache for cache in iter_caches(target)}
    rows = len(heap.layouts.cache)
    kind = heap.row[heap.of_slab()] * STATES + heap.state
    counts = np.bincount(kind, minlength=rows * STATES).reshape(rows, STATES)
    slabs = np.bincount(heap.row, minlength=rows)
    memory = np.bincount(heap.row, heap.bytes.astype(np.float64), rows).astype(np.int64)
    damaged = np.bincount(heap.row[sorted(heap.damaged)], minlength=rows)
    lost = np.bincount(heap.row[sorted(heap.lost)], minlength=rows)
    found: dict[int, Usage] = {}
    for row, address in enumerate(heap.layouts.cache.tolist()):
        if address in caches or slabs[row]:
            allocated, free, partial, cpu, sheaf = (
                int(counts[row, state]) for state in (ALLOCATED, FREE, ON_PARTIAL, ON_CPU, IN_SHEAF))
            found[address] = Usage(caches.get(address), address, allocated, free, partial, cpu, sheaf, int(slabs[row]),
                                   int(memory[row]), int(damaged[row]), int(lost[row]))
    none = {address: Usage(cache, address, *[0] * 9) for address, cache in caches.items() if address not in found}
    listed = [found.get(address) or none[address] for address in caches]
    return listed + [usage for address, usage in found.items() if address not in caches]
