"""``::memstat``, ``::page``, ``::zone``, ``::vmap``, ``::swap``: what memory is used for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    COUNT,
    DECIMAL,
    HEX,
    Column,
    Flag,
    Items,
    KshellError,
    Note,
    NotFoundError,
    Option,
    Output,
    Row,
    Session,
    Table,
    Text,
    UsageError,
    Warn,
    dcmd,
    near_names,
    walker,
)
from kshell.linux import census, memory_map, memstat, page_owner, page_types, swap, zones
from kshell.linux.vtop import page_tables

#: short words for the kinds of the census
WORDS = {
    "reserved": census.RESERVED, "free": census.FREE, "cpufree": census.CPU_FREE, "anon": census.ANONYMOUS,
    "file": census.FILE, "block": census.BUFFERS, "shmem": census.SHMEM, "huge": census.HUGETLB, "slab": census.SLAB,
    "table": census.TABLE, "upper": census.UPPER, "stack": census.STACK, "vmalloc": census.VMALLOC,
    "percpu": census.PERCPU, "moved": census.MOVED, "offline": census.OFFLINE, "compound": census.COMPOUND,
    "kernel": census.KERNEL, "lost": census.LOST,
}


@dcmd("memstat", columns=(
    Column("WHAT", 26), Column("PAGES", 10, COUNT), Column("KIB", 11, COUNT), Column("PERCENT", 7, COUNT),
    Column("COUNTED", 10, COUNT), Column("MEMINFO")), group="Memory")
def memstat_(session: Session) -> Iterator[Output]:
    """Show what all memory is used for: each page once, so that the rows add up to MemTotal of /proc/meminfo.

    Every struct page is looked at, and the lists that say more. COUNTED is what the kernel's own counter says, MEMINFO
    the field of /proc/meminfo that means just these pages. Slabs that cannot be freed and large kmalloc() are
    SUnreclaim together, page cache, block devices and shared memory are Cached and Buffers. What the kernel reserved
    when it booted (itself, the struct pages) is no part of MemTotal.

    Examples:
      ::memstat
      ::memstat ! sort -k2 -rn
    """
    found = memstat.memory(session.target)
    for share in found.shares:
        if share.pages or share.counted:
            percent = round(100 * share.pages / found.total) if found.total else 0
            yield Row(None, (share.name, share.pages, share.pages << 2, percent, share.counted, share.meminfo))
    yield Row(None, ("total", found.total, found.total << 2, 100, found.told, "MemTotal"))
    yield Note(f"beside that, {found.reserved << 2} KiB are reserved")
    if found.total != found.told:
        yield Warn(f"the kernel counts {found.told} pages in all: {found.told - found.total:+d}")
    for problem in found.problems:
        yield Note(problem)


PAGE_COLUMNS = (
    Column("PAGE", kind=ADDRESS), Column("PFN", 9, HEX, ">"), Column("REFS", 5, DECIMAL), Column("MAPS", 5, DECIMAL),
    Column("MAPPING", kind=ADDRESS), Column("INDEX", 10, HEX, ">"), Column("KIND", 20), Column("FLAGS"),
)


@dcmd("page", columns=PAGE_COLUMNS, yields="struct page", group="Memory")
def page(
    session: Session, address: int | None,
    physical: Annotated[bool, Flag("-p", "the address is physical")],
    frame: Annotated[bool, Flag("-f", "the address is the number of a page frame")],
    kind: Annotated[str | None, Option("-k", "kind", "all pages of a kind: slab, anon, file, table, free, ...")],
) -> Iterator[Output]:
    """Show pages of memory: references, mappings, flags, what each is used for, and who has it.

    The address is that of a struct page, or of memory: any address that the kernel or the process context maps. With
    -k all pages of a kind are listed: anon, block, compound, cpufree, file, free, huge, kernel, lost, moved, offline,
    percpu, reserved, shmem, slab, stack, table, upper, vmalloc. Into a pipe go the struct pages.

    Examples:
      init_task::page
      100000::page -p
      ::page -k table | ::head -3
      ::page -k slab | ::print struct page _refcount ! sort | uniq -c
    """
    if (address is None) == (kind is None):
        raise UsageError("an address, or -k KIND")
    types = page_types.PageTypes(session.target)
    taken = census.census(session.target)
    if kind is not None:
        for number in taken.frames(*_kinds(kind)).tolist():
            yield _row(session, types, taken, number)
        return
    assert address is not None
    number = _frame(session, types, address, physical, frame)
    yield _row(session, types, taken, number)
    found = page_owner.read_page(session.target, types, number)
    what = int(taken.kind[number])
    if what == census.FREE:
        block = page_owner.free_block(session.target, types, number)
        if block is not None:
            yield Note(f"in a free block of order {block[1]} from page 0x{block[0]:x} on")
    for sentence in page_owner.owner(session.target, found, what):
        yield Note(sentence)


def _kinds(word: str) -> list[int]:
    if word not in WORDS:
        raise NotFoundError("kind of page", word, near_names(word, list(WORDS)), hint=f"kinds are {', '.join(WORDS)}")
    return [WORDS[word], census.MORE] if word == "kernel" else [WORDS[word]]


def _frame(session: Session, types: page_types.PageTypes, address: int, physical: bool, frame: bool) -> int:
    array = types.array
    if array.start <= address < array.start + array.frames * array.size and not (frame or physical):
        return (address - array.start) // array.size
    if not frame and not physical:
        address = page_tables(session.space(address)).translate(address)
    number = address if frame else address >> 12
    if number >= array.frames:
        raise KshellError(f"no page 0x{number:x}: memory ends with page 0x{array.frames - 1:x}")
    return number


def _row(session: Session, types: page_types.PageTypes, taken: census.Census, number: int) -> Row:
    address = types.array.start + number * types.array.size
    try:
        found = page_owner.read_page(session.target, types, number)
    except KshellError as error:
        return Row(address, (address, number, *[error] * 6))
    name = census.NAMES[int(taken.kind[number])]
    if found.head != address:
        name += ", tail"
    flags = ",".join(types.flag_names(found.flags))
    cells = (address, number, found.refcount, found.mapcount, found.mapping or None, found.pgoff, name, flags)
    return Row(address, cells)


@walker("page", yields="struct page")
def walk_page(session: Session) -> Iterator[Output]:
    """Walk the struct pages of all memory that there is."""
    taken, types = census.census(session.target), page_types.PageTypes(session.target)
    yield Items(taken.pages(types.array).tolist(), "struct page")


@walker("allpages", yields="struct page")
def walk_allpages(session: Session) -> Iterator[Output]:
    """Walk the struct pages of all memory that there is: mdb's name of the walker page."""
    yield from walk_page.function(session)


ZONE_COLUMNS = (
    Column("ADDR", kind=ADDRESS), Column("NODE", 4, DECIMAL), Column("NAME", 8), Column("START", 9, HEX, ">"),
    Column("SPANNED", 10, COUNT), Column("PRESENT", 10, COUNT), Column("MANAGED", 10, COUNT), Column("FREE", 10, COUNT),
    Column("CPUFREE", 8, COUNT), Column("MIN", 7, COUNT), Column("LOW", 7, COUNT), Column("HIGH", 7, COUNT),
)


@dcmd("zone", columns=ZONE_COLUMNS, yields="struct zone", group="Memory")
def zone(
    session: Session, blocks: Annotated[bool, Flag("-v", "the free blocks of each order instead, as /proc/buddyinfo")],
) -> Iterator[Output]:
    """List the memory zones: their pages, how many are free, and the watermarks.

    START is a page frame, the others count pages. CPUFREE are free pages that CPUs keep. Below LOW the kernel reclaims
    pages, below MIN only those who free memory get some.

    Examples:
      ::zone
      ::zone -v
    """
    first = True
    for one in zones.iter_zones(session.target):
        if blocks:
            if first:
                orders = tuple(Column(f"2^{order}", 6, COUNT) for order in range(len(one.blocks)))
                yield Table((Column("NODE", 4, DECIMAL), Column("NAME", 8), *orders), "struct zone")
            yield Row(one.address, (one.node, one.name, *one.blocks))
        else:
            cells = (one.address, one.node, one.name, one.start, one.spanned, one.present, one.managed, one.free,
                     sum(one.cpu_free), *one.watermark)
            yield Row(one.address, cells)
        first = False


#: VM_*, include/linux/vmalloc.h
VM_FLAGS = ((1, "ioremap"), (2, "vmalloc"), (4, "vmap"), (8, "user"), (0x10, "dma"), (0x1000, "sparse"))


@dcmd("vmap", columns=(
    Column("START", kind=ADDRESS), Column("END", kind=ADDRESS), Column("SIZE", 10, HEX, ">"), Column("PAGES", 7, COUNT),
    Column("KIND", 10), Column("PHYS", 12, HEX, ">"), Column("CALLER")), group="Memory")
def vmap(session: Session, address: int | None) -> Iterator[Output]:
    """List the areas of vmalloc space, with who asked for each; with an address the one that holds it.

    END is behind the guard page. PHYS is what an ioremap leads to. Areas without a kind are of vm_map_ram(). Into a
    pipe go the start addresses.

    Examples:
      ::vmap ! head -5
      ::vmap ! grep ioremap
    """
    some = False
    for area in memory_map.iter_vmalloc(session.target):
        if address is not None and not area.start <= address < area.end:
            continue
        some = True
        kind = ",".join(name for bit, name in VM_FLAGS if area.flags & bit) or ("" if area.vm else "map_ram")
        caller = session.name_of(area.caller) if area.caller else ""
        yield Row(area.start, (area.start, area.end, area.end - area.start, area.pages, kind, area.physical or None,
                               caller))
    if address is not None and not some:
        raise KshellError(f"no vmalloc area holds 0x{address:x}")


@dcmd("swap", columns=(
    Column("ADDR", kind=ADDRESS), Column("NAME", 24), Column("TYPE", 10), Column("SIZE", 10, COUNT, key="size_kib"),
    Column("USED", 10, COUNT, key="used_kib"), Column("PRIO", 5, DECIMAL)), yields="struct swap_info_struct",
    group="Memory")
def swap_(session: Session) -> Iterator[Output]:
    """List the swap areas, as /proc/swaps; SIZE and USED are KiB.

    Examples:
      ::swap
    """
    some = False
    for area in swap.iter_swap(session.target):
        some = True
        yield Row(area.address, (area.address, area.path, area.kind, area.size >> 10, area.used >> 10, area.priority))
    if not some:
        yield Text("no swap area is in use")
