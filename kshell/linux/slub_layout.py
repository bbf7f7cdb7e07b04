"""SLUB: what reading the objects of each cache takes, and where each CPU and node keeps slabs and free objects.

Kernel source: ``struct kmem_cache`` and ``struct kmem_cache_cpu`` in mm/slab.h and mm/slub.c
(include/linux/slub_def.h before 6.8), ``struct slab_sheaf`` in mm/slub.c (6.18+).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kshell.errors import Fault, KshellError
from kshell.linux.lists import chase, member_offset, visited_before
from kshell.linux.slub import has_member, slab_type
from kshell.value import Vector

if TYPE_CHECKING:
    import numpy.typing

    from kshell.target.target import Target

    Words = numpy.typing.NDArray[numpy.uint64]
    Rows = numpy.typing.NDArray[numpy.int64]

CACHE = "struct kmem_cache"
SLAB_RED_ZONE = 0x400
OO_SHIFT, OO_MASK = 16, 0xFFFF
#: bytes of an object, and slabs or sheaves on a list, beyond which a structure is taken for damaged
MAX_SIZE, MAX_LIST, MAX_SHEAF = 1 << 23, 1 << 16, 1 << 12


class Layouts(NamedTuple):
    """One row a cache, by ascending address; a cache that cannot be read, or is damaged, has the size 0.

    :ivar size: bytes from one object to the next; ``pad``: before the first one (a red zone on its left)
    :ivar offset: of the pointer to the next free object; ``random``: what it is mixed with
    :ivar limit: the most objects a slab may have; ``oo``, ``min``: order << 16 | objects of slabs as they are made, and
        of those made when memory is short
    :ivar cpu_slab, cpu_sheaves: the per-CPU pointers, 0 for none; ``capacity``: objects of a sheaf
    :ivar problems: of the caches that could not be read
    """

    cache: Words
    size: Words
    pad: Words
    offset: Words
    random: Words
    limit: Words
    oo: Words
    min: Words
    cpu_slab: Words
    cpu_sheaves: Words
    capacity: Words
    hardened: bool
    problems: dict[int, KshellError]


def read_layouts(target: Target, caches: Words) -> Layouts:
    """Return the layouts of the ``struct kmem_cache`` at *caches* (distinct, ascending).

    :raises MemberError: the types are not those of SLUB
    """
    import numpy as np

    kind = target.type(CACHE)
    wanted = {"size": "size", "offset": "offset", "flags": "flags", "oo": "oo.x", "min": "min.x"}
    # CONFIG_SLAB_FREELIST_HARDENED (4.14+); max until 6.0; cpu_slab until 7.1; sheaves from 6.18 on
    optional = {"pad": "red_left_pad", "random": "random", "max": "max.x", "cpu_slab": "cpu_slab",
                "cpu_sheaves": "cpu_sheaves", "capacity": "sheaf_capacity"}
    wanted |= {name: path for name, path in optional.items() if has_member(kind, path.split(".")[0])}
    columns = dict(zip(wanted, Vector(target, kind, caches).columns(*wanted.values()), strict=True))
    problems: dict[int, KshellError] = {}

    def column(name: str) -> Words:
        cells = columns.get(name, [0] * len(caches))
        for cache, cell in zip(caches.tolist(), cells, strict=True):
            if isinstance(cell, Fault):
                problems.setdefault(cache, cell)
        return np.array([cell & (1 << 64) - 1 if isinstance(cell, int) else 0 for cell in cells], np.uint64)

    size, offset = column("size"), column("offset")
    pad = np.where(column("flags") & np.uint64(SLAB_RED_ZONE) != 0, column("pad"), np.uint64(0))
    limit = np.zeros(len(caches), np.uint64)
    for name in ("oo", "min", "max"):
        limit = np.maximum(limit, column(name) & np.uint64(OO_MASK))
    bad = (size > MAX_SIZE) | (offset >= size) | (pad >= size)
    for row in bad.nonzero()[0].tolist():
        address = int(caches[row])
        problems.setdefault(address, KshellError(
            f"struct kmem_cache at 0x{address:x} is damaged: objects of {int(size[row])} bytes"))
        size[row] = 0
    return Layouts(caches, size, pad, offset, column("random"), limit, column("oo"), column("min"),
                   column("cpu_slab"), column("cpu_sheaves"), column("capacity"), "random" in columns, problems)


class CpuSlabs(NamedTuple):
    """What each CPU keeps of each cache, one row each.

    :ivar row: of the cache in :class:`Layouts`; ``cpu``: its number
    :ivar slab: address of the ``struct slab`` allocated from, 0 for none; ``freelist``: its own free objects
    :ivar partial: the first slab of the CPU's partial list, 0 for none
    """

    row: Rows
    cpu: Rows
    slab: Words
    freelist: Words
    partial: Words


def per_cpu_rows(target: Target, pointers: Words) -> tuple[Rows, Rows, Words]:
    """Return (row, CPU, address) of each CPU's copy behind each per-CPU pointer of *pointers* that is not 0."""
    import numpy as np

    cpus = target.cpu_numbers("possible")
    rows = np.repeat(pointers.nonzero()[0], len(cpus))
    numbers = np.tile(np.array(cpus, np.int64), len(rows) // max(len(cpus), 1))
    bases = np.array([target.percpu_base(cpu) for cpu in cpus], np.uint64)
    return rows, numbers, pointers[rows] + np.tile(bases, len(rows) // max(len(cpus), 1))


def read_cpu_slabs(target: Target, layouts: Layouts) -> CpuSlabs:
    """Return what the CPUs keep; nothing where there is no ``struct kmem_cache_cpu`` (7.1+)."""
    import numpy as np

    rows, cpus, addresses = per_cpu_rows(target, layouts.cpu_slab)
    none = np.zeros(len(rows), np.uint64)
    if not len(rows):
        return CpuSlabs(rows, cpus, none, none, none)
    kind = target.type("struct kmem_cache_cpu")
    slab = "slab" if has_member(kind, "slab") else "page"  # 5.17 (bb192ed9aa71 "mm/slub: Convert most struct page")
    paths = [slab, "freelist"] + (["partial"] if has_member(kind, "partial") else [])
    columns = Vector(target, kind, addresses).columns(*paths)
    words = [np.array([cell if isinstance(cell, int) else 0 for cell in column], np.uint64) for column in columns]
    return CpuSlabs(rows, cpus, words[0], words[1], words[2] if len(words) > 2 else none)


def partial_slabs(target: Target, held: CpuSlabs) -> tuple[Rows, Words]:
    """Return the slabs on the CPUs' partial lists: (row of *held*, address of the ``struct slab``)."""
    import numpy as np

    at = np.uint64(member_offset(slab_type(target), "next"))
    rows = held.partial.nonzero()[0]
    current = held.partial[rows]
    found_rows: list[Any] = []
    found: list[Any] = []
    total = 0
    while len(current) and total < MAX_LIST * 16:
        found_rows.append(rows)
        found.append(current)
        total += len(current)
        gathered = target.kernel.gather(current + at, 8)
        following = gathered.data.reshape(-1).view("<u8")
        going = gathered.ok & (following != 0)
        current, rows = following[going], rows[going]
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.uint64)
    return np.concatenate(found_rows), np.concatenate(found)


def sheaf_objects(target: Target, layouts: Layouts) -> tuple[Rows, Words]:
    """Return the free objects that are kept in sheaves: (row of *layouts*, address).

    6.18+ (2d517aa09bbc "slab: add opt-in caching layer of percpu sheaves"): arrays of free objects, main and spare
    and those that wait for RCU of each CPU, full ones in the barn of each node.
    """
    import numpy as np

    kind = target.types.get("struct slab_sheaf")
    sheaves: list[tuple[int, int]] = []
    if kind is not None and layouts.cpu_sheaves.any():
        rows, _, addresses = per_cpu_rows(target, layouts.cpu_sheaves)
        own = Vector(target, target.type("struct slub_percpu_sheaves"), addresses)
        for column in own.columns("main", "spare", "rcu_free"):
            sheaves += [(int(row), cell) for row, cell in zip(rows, column, strict=True)
                        if isinstance(cell, int) and cell]
        sheaves += _barns(target, layouts, member_offset(kind, "barn_list"))
    if kind is None or not sheaves:
        return np.zeros(0, np.int64), np.zeros(0, np.uint64)
    at = np.array([sheaf for _, sheaf in sheaves], np.uint64)
    sizes = [size if isinstance(size, int) else 0 for size in Vector(target, kind, at).column("size")]
    room = np.minimum(np.where(layouts.capacity > 0, layouts.capacity, np.uint64(MAX_SHEAF)), np.uint64(MAX_SHEAF))
    row = np.array([row for row, _ in sheaves], np.int64)
    counts = np.minimum(np.array(sizes, np.uint64), room[row]).astype(np.int64)
    starts = np.concatenate(([0], np.cumsum(counts)))
    number = np.arange(int(starts[-1]), dtype=np.int64) - np.repeat(starts[:-1], counts)
    slot = np.repeat(at, counts) + (number * 8 + member_offset(kind, "objects")).astype(np.uint64)
    gathered = target.kernel.gather(slot, 8)
    return np.repeat(row, counts)[gathered.ok], gathered.data.reshape(-1).view("<u8")[gathered.ok]


def _barns(target: Target, layouts: Layouts, node_at: int) -> list[tuple[int, int]]:
    """Return (row, sheaf) of the full sheaves in the nodes' barns."""
    from kshell.linux.slab import cache_nodes

    found: list[tuple[int, int]] = []
    full = member_offset(target.type("struct node_barn"), "sheaves_full")
    for row in layouts.cpu_sheaves.nonzero()[0].tolist():
        for barn in cache_nodes(target, target.value(CACHE, int(layouts.cache[row])), "barn"):
            try:
                nodes = chase(target.kernel, barn + full, 0, MAX_LIST)
            except KshellError as error:
                nodes = visited_before(error)
            found += [(row, node - node_at) for node in nodes]
    return found
