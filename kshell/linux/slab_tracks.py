"""Who allocated an object of a slab: what SLUB keeps behind each object with ``slub_debug=U``.

Kernel source: ``struct track``, ``get_track``, ``get_info_end`` in mm/slub.c; lib/stackdepot.c for the stacks (5.18+,
5cf909c553e9 "mm/slub: use stackdepot to save stack trace in objects"); before, the addresses are in the track itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError
from kshell.linux.lists import member_offset
from kshell.linux.page_types import enumerators
from kshell.types.model import ArrayType, StructType
from kshell.value import Vector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kshell.target.target import Target

#: SLAB_STORE_USER before 6.9 (cc61eb851461 "mm, slab: move slab flags to an enum")
STORE_USER = 0x1_0000
#: frames of a stack that is kept: CONFIG_STACKDEPOT_MAX_FRAMES
MAX_FRAMES = 64
#: DEPOT_STACK_ALIGN
ALIGN = 4


class Track(NamedTuple):
    """Who allocated an object.

    :ivar address: that called the allocator; ``stack``: of the allocation, the innermost first, () where it is not kept
    :ivar pid, when: of the task, and the time in jiffies
    """

    address: int
    stack: tuple[int, ...]
    pid: int
    when: int


def alloc_tracks(target: Target, cache: int, objects: Sequence[int]) -> list[Track | None] | None:
    """Return who allocated each of *objects* of the ``kmem_cache`` at *cache*; None where that is not known.

    None in place of the list: the cache does not keep it.

    :raises Fault: the cache cannot be read
    """
    value = target.value("struct kmem_cache", cache)
    bit = enumerators(target, "enum _slab_flag_bits").get("_SLAB_STORE_USER")
    if not value.integer("flags") & (STORE_USER if bit is None else 1 << bit):
        return None
    offset, inuse = value.integer("offset"), value.integer("inuse")
    behind = inuse + 8 if offset >= inuse else inuse
    kind = target.type("struct track")
    bare = kind.strip()
    assert isinstance(bare, StructType)
    vector = Vector(target, kind, [address + behind for address in objects])
    addresses, pids, whens = vector.columns("addr", "pid", "when")
    if bare.has("handle"):
        stacks = _depot_stacks(target, vector.column("handle"))
    elif bare.has("addrs"):
        stacks = _own_stacks(target, [address + behind for address in objects])
    else:
        stacks = [()] * len(objects)
    return [Track(address, stack, pid, when)
            if isinstance(address, int) and address >= target.arch.kernel_half and isinstance(pid, int)
            and isinstance(when, int) else None
            for address, stack, pid, when in zip(addresses, stacks, pids, whens, strict=True)]


def _own_stacks(target: Target, tracks: list[int]) -> list[tuple[int, ...]]:
    kind = target.type("struct track")
    bare = kind.strip()
    assert isinstance(bare, StructType)
    array = bare.member("addrs").type.strip()
    count = array.count if isinstance(array, ArrayType) else 0
    rows = target.kernel.read_many([track + member_offset(kind, "addrs") for track in tracks], 8 * count)
    return [_entries(target, row or b"") for row in rows]


def _entries(target: Target, data: bytes) -> tuple[int, ...]:
    words = memoryview(data).cast("Q").tolist() if len(data) % 8 == 0 else []
    found: list[int] = []
    for word in words:
        if word < target.arch.kernel_half or word == (1 << 64) - 1:
            break
        found.append(word)
    return tuple(found)


def _depot_stacks(target: Target, handles: list[object]) -> list[tuple[int, ...]]:
    """Return the stacks behind stackdepot's handles; () for those that cannot be found."""
    known: dict[object, tuple[int, ...]] = {0: ()}
    for handle in set(handles):
        if isinstance(handle, int) and handle:
            try:
                known[handle] = _depot_stack(target, handle)
            except KshellError:
                known[handle] = ()
    return [known.get(handle, ()) for handle in handles]


def _depot_stack(target: Target, handle: int) -> tuple[int, ...]:
    parts = _handle_parts(target)
    # 6.9 counts pools from 1 (dc2cf7b4f9e1 and around it); they were slabs before 6.4 (424cafee5f70)
    plus = 1 if "pool_index_plus_1" in parts else 0
    pool = next((parts[name] for name in ("pool_index_plus_1", "pool_index", "slabindex") if name in parts), None)
    place = parts.get("offset")
    symbol = target.symbols.get("stack_pools") or target.symbols.get("stack_slabs")
    if pool is None or place is None or symbol is None:
        raise KshellError("the kernel's types do not tell where stacks are kept")
    number, offset = (handle >> bit & (1 << width) - 1 for bit, width in (pool, place))
    array = symbol.address if symbol.size > 8 else target.kernel.u64(symbol.address)
    record = target.kernel.u64(array + 8 * (number - plus)) + (offset << ALIGN)
    kind = target.type("struct stack_record")
    value = target.value(kind, record)
    size = value.integer("size")
    if value.integer("handle.handle") & (1 << pool[1] + place[1]) - 1 != handle & (1 << pool[1] + place[1]) - 1:
        raise KshellError(f"no stack record of handle 0x{handle:x} at 0x{record:x}")
    return _entries(target, target.kernel.read(record + member_offset(kind, "entries"), 8 * min(size, MAX_FRAMES)))


def _handle_parts(target: Target) -> dict[str, tuple[int, int]]:
    """Return (first bit, bits) of each part of a handle."""
    found: dict[str, tuple[int, int]] = {}
    bare = target.type("union handle_parts").strip()
    assert isinstance(bare, StructType)
    for name, type, _bits, _width in bare.members:
        inner = type.strip()
        if name is None and isinstance(inner, StructType):
            found.update({part: (bits, width) for part, _, bits, width in inner.members
                          if part is not None and width is not None})
    return found
