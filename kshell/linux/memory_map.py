"""The kernel's address space: what lies where, and the areas that vmalloc() gave out.

Kernel source: Documentation/arch/x86/x86_64/mm.rst, arch/x86/include/asm/pgtable_64_types.h, arch/x86/mm/kaslr.c,
mm/vmalloc.c. The bases that KASLR moves are read from ``page_offset_base``, ``vmalloc_base`` and ``vmemmap_base``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import FormatError, KshellError
from kshell.linux.kernel import require_kernel
from kshell.linux.lists import chase, member_offset, visited_before
from kshell.linux.vtop import page_tables
from kshell.target.image import find_image
from kshell.value import Vector

if TYPE_CHECKING:
    from kshell.target.target import Target

TB = 1 << 40
TOP = 1 << 64


class Region(NamedTuple):
    """A part of the kernel's address space: ``start <= address < end``. ``kind`` is short, ``name`` is for people."""

    start: int
    end: int
    kind: str
    name: str


class VmallocArea(NamedTuple):
    """An area of vmalloc space.

    :ivar vm: address of its ``vm_struct``, 0 for areas without one (vm_map_ram())
    :ivar end: the first address behind it, its guard page included
    :ivar flags: VM_ALLOC, VM_IOREMAP, ...; ``caller``: the function that asked for it
    :ivar array: address of the array of its struct pages, 0 for none
    """

    start: int
    end: int
    vm: int
    flags: int
    pages: int
    physical: int
    caller: int
    array: int = 0


# Places that KASLR does not move: (start, end, kind, name) with 4 levels of page tables and with 5.
_FIXED = (
    (0xFFFF_FE00_0000_0000, 0xFFFF_FE80_0000_0000, "cpu_entry_area", "CPU entry areas"),
    (0xFFFF_FF00_0000_0000, 0xFFFF_FF80_0000_0000, "espfix", "espfix stacks"),
    (0xFFFF_FFEF_0000_0000, 0xFFFF_FFFF_0000_0000, "efi", "EFI runtime services"),
)
_FIXMAP = (0xFFFF_FFFF_FF00_0000, TOP - 0x20_0000, "fixmap", "fixmap")


def levels(target: Target) -> int:
    """Return the number of page-table levels, 4 or 5."""
    number = target.vmcoreinfo.number("pgtable_l5_enabled") if target.vmcoreinfo else 0
    return 5 if number else 4


def regions(target: Target) -> list[Region]:
    """Return the regions of the kernel's half, ascending; those whose place cannot be told are left out.

    :raises KshellError: not even the kernel image can be placed
    """
    require_kernel(target)
    five = levels(target) == 5
    found = [Region(*fixed) for fixed in _FIXED]
    # LDT remap: 4.19+ (d52888aa2753 "x86/mm: Move LDT remap out of KASLR region on 5-level paging")
    ldt = 0xFF10_0000_0000_0000 if five else 0xFFFF_8800_0000_0000
    found.append(Region(ldt, ldt + ((TB // 2) if not five else 256 * TB), "ldt", "LDT of processes (PTI)"))
    base = _pointer(target, "page_offset_base", 0xFF11_0000_0000_0000 if five else 0xFFFF_8880_0000_0000)
    frames = _pointer(target, "max_pfn", 0)
    found.append(Region(base, base + (frames << 12 if frames else 64 * TB), "direct", "direct map of all memory"))
    start = _pointer(target, "vmalloc_base", 0xFFA0_0000_0000_0000 if five else 0xFFFF_C900_0000_0000)
    # VMALLOC_SIZE_TB_L4, _L5
    found.append(Region(start, start + (12800 if five else 32) * TB, "vmalloc", "vmalloc and ioremap"))
    start = _pointer(target, "vmemmap_base", 0xFFD4_0000_0000_0000 if five else 0xFFFF_EA00_0000_0000)
    page = target.types.get("struct page")
    size = (frames or 1 << 34) * ((page.size if page else None) or 64)
    found.append(Region(start, start + size, "vmemmap", "struct page of all memory"))
    found += _image(target)
    found.append(Region(*_FIXMAP))
    return sorted(region for region in found if region.end > region.start)


def _image(target: Target) -> Iterator[Region]:
    """Yield the parts of the kernel image and the room of the modules behind it."""
    text, end = image_range(target)
    marks = (("_text", "_etext", "text"), ("__start_rodata", "__end_rodata", "rodata"), ("_sdata", "_edata", "data"),
             ("__init_begin", "__init_end", "init"), ("__bss_start", "__bss_stop", "bss"))
    for low, high, kind in marks:
        first, last = target.symbols.get(low), target.symbols.get(high)
        if first is not None and last is not None and text <= first.address < last.address <= end:
            yield Region(first.address, last.address, kind, f"kernel {kind}")
    # KERNEL_IMAGE_SIZE: 1 GiB with KASLR, 512 MiB without; modules begin behind it
    size = target.vmcoreinfo.number("KERNEL_IMAGE_SIZE") if target.vmcoreinfo else None
    modules = 0xFFFF_FFFF_8000_0000 + (size or 1 << 30)
    yield Region(modules, 0xFFFF_FFFF_FF00_0000, "modules", "modules")


def image_range(target: Target) -> tuple[int, int]:
    """Return where the kernel image begins and ends; without a symbol that tells, where page tables no longer map it.

    :raises KshellError: neither symbols nor page tables tell
    """
    start = target.symbols.own("_text") or target.symbol("_stext")
    end = target.symbols.own("_end")
    return start.address, find_image(page_tables(target.kernel)).end if end is None else end.address


def _pointer(target: Target, symbol: str, default: int) -> int:
    """Return the number in the kernel variable *symbol*; *default* where the kernel has no such variable."""
    found = target.symbols.get(symbol)
    return default if found is None else int.from_bytes(target.kernel.read(found.address, 8), "little")


def region_of(target: Target, address: int) -> Region | None:
    """Return the region that holds *address*, the smallest where they lie in one another, or None."""
    holding = [region for region in regions(target) if region.start <= address < region.end]
    return min(holding, key=lambda region: region.end - region.start, default=None)


def iter_vmalloc(target: Target) -> Iterator[VmallocArea]:
    """Yield the areas of vmalloc space that are in use, ascending.

    Where a list is damaged, the objects of the slab cache make up for it.

    :raises KshellError: the kernel's symbols or types do not tell where they are; or, after those that can be read, a
        list or an area is damaged
    """
    require_kernel(target)
    kind = target.type("struct vmap_area")
    offset = member_offset(kind, "list")
    nodes, problem = _vmap_lists(target)
    found = [address - offset for address in nodes]
    if problem is not None:
        found = list(dict.fromkeys(found + _vmap_objects(target)))
    areas = Vector(target, kind, found)
    starts, ends, vms = areas.columns("va_start", "va_end", "vm")
    order = sorted(range(len(areas)), key=lambda row: starts[row] if isinstance(starts[row], int) else 0)
    known = [vms[row] if isinstance(vms[row], int) else 0 for row in order]
    structs = Vector(target, target.type("struct vm_struct"), known)
    details = zip(*structs.columns("flags", "nr_pages", "phys_addr", "caller", "pages"), strict=True)
    for row, cells in zip(order, details, strict=True):
        start, end, vm = starts[row], ends[row], vms[row]
        bad = next((cell for cell in (start, end, vm) if isinstance(cell, KshellError)), None)
        if bad is not None or not start < end:
            problem = problem or bad or FormatError(f"a vmalloc area is damaged: from 0x{start:x} to 0x{end:x}")
            continue
        flags, pages, physical, caller, array = (cell if vm and isinstance(cell, int) else 0 for cell in cells)
        yield VmallocArea(start, end, vm, flags, pages, physical, caller, array)
    if problem is not None:
        raise problem


def _vmap_lists(target: Target) -> tuple[list[int], KshellError | None]:
    """Return the list nodes of the areas in use, as far as the lists can be followed, and why one could not be."""
    if target.symbols.get("vmap_nodes") is not None:
        # 6.9+ (d093602919ad "mm: vmalloc: remove global vmap_area_root rb-tree"): several nodes with a list each
        array = _pointer(target, "vmap_nodes", 0)
        count = int.from_bytes(target.kernel.read(target.symbol("nr_vmap_nodes").address, 4), "little")
        node = target.type("struct vmap_node")
        if not 0 < count <= 1 << 16 or not node.size:
            raise FormatError(f"the vmalloc areas are damaged: {count} nodes")
        busy = member_offset(node, "busy.head")
        heads = [array + number * node.size + busy for number in range(count)]
    else:
        heads = [target.address_of("vmap_area_list")]
    nodes: list[int] = []
    problem: KshellError | None = None
    for head in heads:
        try:
            nodes += chase(target.kernel, head)
        except KshellError as error:
            nodes += visited_before(error)
            problem = problem or error
    return nodes, problem


def _vmap_objects(target: Target) -> list[int]:
    """Return the areas in use by the slab cache of struct vmap_area: those that their vm_struct confirms."""
    from kshell.linux import slab, slub_objects

    try:
        cache = target.value("struct kmem_cache", slab.find_cache(target, "vmap_area").address)
        objects = slub_objects.cache_objects(target, cache)
    except KshellError:
        return []
    addresses = objects.address[objects.allocated].tolist()
    starts, places = Vector(target, target.type("struct vmap_area"), addresses).columns("va_start", "vm->addr")
    rows = zip(addresses, starts, places, strict=True)
    return [address for address, start, place in rows if isinstance(place, int) and start == place]

