"""Memory zones: how many pages each has, its watermarks, its free blocks, and the free pages that CPUs keep.

Kernel source: ``struct zone``, ``struct per_cpu_pages`` in include/linux/mmzone.h, mm/page_alloc.c, mm/vmstat.c
(``zoneinfo_show_print``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import FormatError
from kshell.linux.kernel import require_kernel
from kshell.linux.page_types import enumerators
from kshell.linux.percpu import per_cpu_ptr
from kshell.linux.slab import node_count
from kshell.types.model import ArrayType, StructType

if TYPE_CHECKING:
    from kshell.target.target import Target
    from kshell.types.model import CType
    from kshell.value import Value

MAX_NODES = 1024
#: free lists of one order for each migrate type that a CPU keeps pages of: MIGRATE_PCPTYPES
PCP_TYPES = 3
#: PAGE_ALLOC_COSTLY_ORDER; lists of higher orders are of whole page blocks
COSTLY, BLOCK = 3, 9


class Zone(NamedTuple):
    """A zone; counts are pages.

    :ivar watermark: min, low, high
    :ivar free: pages in the buddy allocator; ``blocks``: free blocks of each order
    :ivar cpu_free: free pages on the lists of each CPU
    """

    address: int
    node: int
    name: str
    start: int
    spanned: int
    present: int
    managed: int
    watermark: tuple[int, int, int]
    free: int
    blocks: list[int]
    cpu_free: list[int]


def iter_nodes(target: Target) -> Iterator[Value]:
    """Yield the ``struct pglist_data`` of each NUMA node."""
    require_kernel(target)
    kind = target.type("struct pglist_data")
    many = target.symbols.get("node_data")
    if many is None:
        yield target.value(kind, target.symbol("contig_page_data").address)
        return
    for number in range(min(node_count(target), MAX_NODES)):
        address = target.kernel.u64(many.address + 8 * number)
        if address:
            yield target.value(kind, address)


def iter_zones(target: Target) -> Iterator[Zone]:
    """Yield the zones that have memory.

    :raises Fault, SymbolNotFoundError: the nodes cannot be found or read
    """
    for node in iter_nodes(target):
        count = node.integer("nr_zones")
        zones = node["node_zones"]
        if not 0 <= count <= len(zones):
            raise FormatError(f"struct pglist_data at 0x{node.address:x} is damaged: {count} zones")
        for number in range(count):
            zone = zones[number]
            if zone.integer("present_pages"):
                yield _zone(target, zone, node.integer("node_id"))


def _zone(target: Target, zone: Value, node: int) -> Zone:
    marks = zone["_watermark"] if zone.has("_watermark") else zone["watermark"]  # 5.0 (1c30844d2dfe)
    areas = zone["free_area"]
    blocks = [areas[order].integer("nr_free") for order in range(len(areas))]
    # 4.20 (9705bea5f833 "mm: convert zone->managed_pages to atomic variable")
    managed = zone.integer("managed_pages.counter")
    watermark = tuple(marks[level].integer() for level in range(3))
    counts = [pcp.integer("count") for pcp in _pcps(target, zone)]
    return Zone(zone.address, node, zone["name"].string(), zone.integer("zone_start_pfn"),
                zone.integer("spanned_pages"), zone.integer("present_pages"), managed,
                (watermark[0], watermark[1], watermark[2]), sum(count << order for order, count in enumerate(blocks)),
                blocks, counts)


def _pcps(target: Target, zone: Value) -> Iterator[Value]:
    """Yield the ``struct per_cpu_pages`` of each possible CPU."""
    # 5.14 (28f836b6777b "mm/page_alloc: split per cpu page lists and zone stats"); before, in struct per_cpu_pageset
    new = zone.has("per_cpu_pageset")
    pointer = zone.integer("per_cpu_pageset" if new else "pageset")
    kind = target.type("struct per_cpu_pages" if new else "struct per_cpu_pageset")
    for cpu in target.cpu_numbers("possible"):
        value = target.value(kind, per_cpu_ptr(target, pointer, cpu))
        yield value if new else value["pcp"]


def pcp_heads(target: Target, zone: Zone) -> Iterator[tuple[int, int]]:
    """Yield (list head, order of the pages on it) of each CPU's lists of free pages in *zone*."""
    for pcp in _pcps(target, target.value("struct zone", zone.address)):
        lists = pcp["lists"]
        for number in range(len(lists)):
            # 5.13 (44042b449872 "mm/page_alloc: allow high-order pages to be stored on the per-cpu lists")
            order = number // PCP_TYPES
            yield lists[number].address, order if order <= COSTLY else BLOCK


def zone_counter(target: Target, name: str) -> int:
    """Return a counter of all zones, with what the CPUs have not added yet: ``NR_FREE_PAGES``.

    :raises FormatError: this kernel has no such counter
    """
    return _counter(target, "enum zone_stat_item", name, "vm_zone_stat", [
        (zone.address, target.type("struct zone")) for zone in iter_zones(target)], "vm_stat_diff")


def node_counter(target: Target, name: str) -> int:
    """Return a counter of all nodes, with what the CPUs have not added yet: ``NR_ANON_MAPPED``."""
    return _counter(target, "enum node_stat_item", name, "vm_node_stat", [
        (node.address, node.type) for node in iter_nodes(target)], "vm_node_stat_diff")


def _counter(
    target: Target, enum: str, name: str, symbol: str, places: list[tuple[int, CType]], member: str,
) -> int:
    number = enumerators(target, enum).get(name)
    if number is None:
        raise FormatError(f"this kernel has no counter {name}")
    at = target.symbol(symbol).address + 8 * number
    total = int.from_bytes(target.kernel.read(at, 8), "little", signed=True)
    for address, kind in places:
        bare = kind.strip()
        assert isinstance(bare, StructType)
        names = ("per_cpu_zonestats", "pageset") if member == "vm_stat_diff" else ("per_cpu_nodestats",)
        holder = next(one for one in names if bare.has(one))
        found = target.value(kind, address)[holder]
        for cpu in target.cpu_numbers("online"):
            value = found.deref()
            there = target.value(value.type, per_cpu_ptr(target, found.integer(), cpu))
            diffs = there[member]
            array = diffs.type.strip()
            if isinstance(array, ArrayType) and number < array.count:
                total += int.from_bytes(
                    target.kernel.read(diffs.address + number * (array.target.size or 1), array.target.size or 1),
                    "little", signed=True)
    return total


