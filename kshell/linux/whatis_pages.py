"""What ``whatis`` says of objects in slabs and of pages: the cache, the object and its state; the use and the owner."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kshell.errors import KshellError
from kshell.linux import census, page_owner, slab, slub_objects, table_pages, whatis, whatis_index
from kshell.linux.kept import kept
from kshell.linux.page_types import PageTypes

if TYPE_CHECKING:
    from kshell.linux.slab import Cache
    from kshell.linux.whatis import Answer, Question
    from kshell.target.target import Target

#: names of the levels of page tables, from the pages up
LEVELS = {1: "PTE", 2: "PMD", 3: "PUD", 4: "P4D", 5: "PGD"}


def slab_answers(question: Question) -> Iterator[Answer]:
    """Yield the object of a slab that the address is in, or that it is between objects of one."""
    import numpy as np

    target, address = question.target, question.address
    heap = slub_objects.heap(target)
    row, index, offset = (int(found[0]) for found in heap.find(np.array([address], np.uint64)))
    if row < 0:
        return
    cache = cache_at(target, int(heap.slabs.cache[row]))
    name = cache.name if cache is not None else f"the cache at 0x{int(heap.slabs.cache[row]):x}"
    page = int(heap.slabs.page[row])
    damaged = ", whose freelist is damaged" if row in heap.damaged else ""
    if index < 0:
        start = int(heap.slabs.address[row])
        text = f"in a slab of {name}, but in no object of it (slab 0x{page:x}{damaged})"
        yield whatis.Answer("slab", start, address - start, text)
        return
    state = slub_objects.state_of(heap, row, index)
    type_name = slab.object_type(target, cache) if cache is not None else None
    member = whatis.member(question, target.type(type_name), offset) if type_name else ""
    kind = f" ({type_name})" if type_name and type_name != f"struct {name}" else ""
    text = (f"{state}, object {index} of {int(heap.counts[row])} in a slab of {name}{kind}{member} "
            f"(slab 0x{page:x}{damaged})")
    yield whatis.Answer("slab", address - offset, offset, text)


def slab_extent(target: Target, address: int) -> tuple[int, int] | None:
    """Return the address of the object of a slab that *address* is in, and its last byte's offset; None: in none."""
    import numpy as np

    heap = slub_objects.heap(target)
    row, index, _ = (int(found[0]) for found in heap.find(np.array([address], np.uint64)))
    if row < 0 or index < 0:
        return None
    start, size = heap.object(row, index)
    return start, size - 1


def cache_at(target: Target, address: int) -> Cache | None:
    """Return the cache whose kmem_cache is at *address*, None when it is on no list."""
    return kept(target, "caches", _caches).get(address)


def _caches(target: Target) -> dict[int, Cache]:
    found: dict[int, Cache] = {}
    try:
        for cache in slab.iter_caches(target):
            found[cache.address] = cache
    except KshellError:
        pass  # those after the damage have no name
    return found


def page_answers(question: Question, paddr: int, base: int) -> Iterator[Answer]:
    """Yield what the page at the physical address *paddr* is used for; ``base + paddr`` is the address asked for."""
    target = question.target
    types = kept(target, "page types", PageTypes)
    frame = paddr >> 12
    if frame >= types.array.frames:
        return
    taken = census.census(target)
    kind = int(taken.kind[frame])
    if kind == census.HOLE:
        return
    start = base + (frame << 12)
    text = f"in page {frame:x}, {', '.join(_told(target, types, frame, kind))}"
    yield whatis.Answer("page", start, question.address - start, text)


def page_text(target: Target, paddr: int) -> str:
    """Return what the page at *paddr* is, in one line: its number, struct page, use, owner and flags.

    :raises KshellError: the page array cannot be found
    """
    types = kept(target, "page types", PageTypes)
    frame = paddr >> 12
    if frame >= types.array.frames:
        return f"page {frame:x}, outside RAM"
    kind = int(census.census(target).kind[frame])
    if kind == census.HOLE:
        return f"page {frame:x}, no memory"
    flags = page_owner.read_page(target, types, frame).flags
    told = ", ".join(_told(target, types, frame, kind))
    address = types.array.start + frame * types.array.size
    return f"page {frame:x} at {address:x}, {told} ({','.join(types.flag_names(flags)) or 'no flags'})"


def struct_page_answers(question: Question) -> Iterator[Answer]:
    """Yield which page the struct page at the address describes."""
    types = kept(question.target, "page types", PageTypes)
    frame, offset = divmod(question.address - types.array.start, types.array.size)
    member = whatis.member(question, question.target.type("struct page"), offset)
    kind = int(census.census(question.target).kind[frame]) if frame < types.array.frames else census.HOLE
    told = ", ".join(_told(question.target, types, frame, kind)) if kind != census.HOLE else "of no memory"
    text = f"struct page of pfn {frame:x}{member}, {told}"
    yield whatis.Answer("region", question.address - offset, offset, text)


def _told(target: Target, types: PageTypes, frame: int, kind: int) -> Iterator[str]:
    """Yield what a page is and who has it, in pieces of a sentence."""
    try:
        page = page_owner.read_page(target, types, frame)
    except KshellError as error:
        yield f"{census.NAMES[kind]} ({error})"
        return
    if kind == census.FREE:
        block = page_owner.free_block(target, types, frame)
        yield f"free, in a block of order {block[1]} from page {block[0]:x} on" if block else "free"
    elif kind in (census.TABLE, census.UPPER):
        yield _table(target, frame)
    elif kind in (census.ANONYMOUS, census.FILE, census.SHMEM, census.BUFFERS):
        yield from page_owner.owner(target, page, kind)
    elif kind in (census.STACK, census.VMALLOC, census.PERCPU):
        yield census.NAMES[kind]
        yield from _area(target, frame)
    else:
        yield census.NAMES[kind]
    array = types.array
    if page.head != page.address:
        yield f"part of a compound page from page {(page.head - array.start) // array.size:x} on"


def _area(target: Target, frame: int) -> Iterator[str]:
    """Yield where vmalloc space maps the page, and for whom."""
    import numpy as np

    pages = whatis_index.area_pages(target)
    at = int(np.searchsorted(pages.frame, frame))
    if at == len(pages.frame) or int(pages.frame[at]) != frame:
        return
    address, area = int(pages.address[at]), whatis_index.vmalloc_areas(target).areas[int(pages.area[at])]
    yield f"mapped at {address:x}"
    stack = whatis_index.task_index(target).stacks.find(address)
    if stack is not None:
        yield f"of {whatis.who(target, stack[2])}"
    elif area.caller:
        found = target.symbolize(area.caller)
        yield f"allocated by {found[0].name}+0x{found[1]:x}" if found else f"allocated by {area.caller:x}"


def _table(target: Target, frame: int) -> str:
    found = table_pages.table_owners(target).find(frame)
    if found is None:
        return "page table"
    level, mm = found
    owner = page_owner.processes_by_mm(target).get(mm)
    who = f"{owner[1]} (pid {owner[0]})" if owner else f"mm_struct 0x{mm:x}"
    return f"page table ({LEVELS.get(level, 'PGD')}) of {who}"
