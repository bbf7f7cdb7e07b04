"""Where memory went: every page of RAM counted once, by what it is used for.

The rows add up to MemTotal of /proc/meminfo (``totalram_pages()``): all pages but those that the kernel reserved when
it booted. Kernel source: fs/proc/meminfo.c, mm/vmstat.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError
from kshell.linux import census, slub_objects, zones
from kshell.linux.page_types import enumerators
from kshell.value import Vector

if TYPE_CHECKING:
    from kshell.target.target import Target

#: _SLAB_RECLAIM_ACCOUNT before 6.9 (cc61eb851461 "mm, slab: move slab flags to an enum")
RECLAIMABLE = 0x2_0000


class Share(NamedTuple):
    """What some pages are used for.

    :ivar meminfo: what /proc/meminfo calls just these, "" for nothing
    :ivar counted: pages by the kernel's own counter, None where it has none, or the reason it cannot be read
    """

    name: str
    pages: int
    meminfo: str
    counted: int | KshellError | None


class Memory(NamedTuple):
    """All shares; ``total`` pages of them are what the kernel calls MemTotal, ``reserved`` are not part of it.

    :ivar told: totalram_pages as the kernel has it
    """

    shares: list[Share]
    total: int
    reserved: int
    told: int
    problems: list[str]


#: (kind, name, field of /proc/meminfo, counter); of SLAB there are two
_ROWS: tuple[tuple[int, str, str, str], ...] = (
    (census.FREE, "free", "MemFree", "NR_FREE_PAGES"), (census.CPU_FREE, "free, on CPUs' lists", "", "pcp"),
    (census.ANONYMOUS, "anonymous", "AnonPages", "NR_ANON_MAPPED"), (census.FILE, "page cache", "", ""),
    (census.BUFFERS, "block devices", "Buffers", ""), (census.SHMEM, "shared memory and tmpfs", "Shmem", "NR_SHMEM"),
    (census.HUGETLB, "huge pages", "Hugetlb", ""), (census.SLAB, "slab, reclaimable", "SReclaimable", ""),
    (census.SLAB, "slab, unreclaimable", "", ""), (census.COMPOUND, "large kmalloc", "", ""),
    (census.STACK, "kernel stacks", "KernelStack", "NR_KERNEL_STACK_KB"),
    (census.TABLE, "page tables", "PageTables", "NR_PAGETABLE"), (census.UPPER, "page tables, upper levels", "", ""),
    (census.VMALLOC, "vmalloc", "", ""), (census.PERCPU, "per-CPU memory", "", ""),
    (census.MOVED, "zsmalloc and balloons", "", ""), (census.OFFLINE, "offline", "", ""),
    (census.LOST, "struct page not readable", "", ""), (census.KERNEL, "kernel, other", "", ""),
)


def memory(target: Target) -> Memory:
    """Return what all of RAM is used for.

    :raises KshellError: the page array cannot be found or read
    """
    import numpy as np

    taken = census.census(target)
    counts = np.bincount(taken.kind, minlength=len(census.NAMES)).tolist()
    problems = list(taken.problems)
    counts[census.KERNEL] += counts[census.MORE]
    try:
        reclaimable = _reclaimable(target)
    except KshellError as error:
        reclaimable = 0
        problems.append(f"slabs count as unreclaimable: {error}")
    shares = []
    for kind, name, meminfo, counter in _ROWS:
        pages = counts[kind]
        if kind == census.SLAB:
            first = name == "slab, reclaimable"
            pages = min(reclaimable, pages) if first else pages - min(reclaimable, pages)
        shares.append(Share(name, pages, meminfo, _counted(target, counter, name)))
    told = target.kernel.u64(target.symbol("_totalram_pages").address)
    return Memory(shares, sum(share.pages for share in shares), counts[census.RESERVED], told, problems)


def _counted(target: Target, counter: str, name: str) -> int | KshellError | None:
    """Return what the kernel itself counts."""
    if name == "slab, reclaimable":
        counter = "NR_SLAB_RECLAIMABLE_B"  # 5.9 (d42f3245c7e2 "mm: memcg: convert vmstat slab counters to bytes")
    if not counter:
        return None
    try:
        if counter == "pcp":
            return sum(sum(zone.cpu_free) for zone in zones.iter_zones(target))
        # page tables were counted by zone until 5.11 (f0c0c115fb81 "mm: memcontrol: account pagetables per node")
        by_zone = counter in enumerators(target, "enum zone_stat_item")
        found = zones.zone_counter(target, counter) if by_zone else zones.node_counter(target, counter)
        return found // 4 if counter.endswith("_KB") else found
    except KshellError as error:
        return error


def _reclaimable(target: Target) -> int:
    """Return the pages of slabs whose caches are reclaimable."""
    import numpy as np

    heap = slub_objects.heap(target)
    caches = heap.layouts.cache
    flags = Vector(target, target.type("struct kmem_cache"), caches.tolist()).column("flags")
    bit = enumerators(target, "enum _slab_flag_bits").get("_SLAB_RECLAIM_ACCOUNT")
    mask = RECLAIMABLE if bit is None else 1 << bit
    good = np.array([isinstance(flag, int) and bool(flag & mask) for flag in flags], np.bool_)
    return int(heap.bytes[good[heap.row]].sum()) >> 12
