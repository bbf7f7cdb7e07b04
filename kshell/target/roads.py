"""The roads to a kernel that no VMCOREINFO tells of, in order: a CPU's registers, then a look for its page tables.

Either gives an address space; its page tables tell where the kernel image is, the image's text which kernel it is, and
its kallsyms (:mod:`kshell.target.places`) where everything else is. What was found is written down as VMCOREINFO
would have it, so that all above works alike; ``Target.findings`` tells how it was found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kshell.arch.model import Arch
from kshell.errors import KshellError
from kshell.memory.model import Memory
from kshell.target.formats import Progress
from kshell.target.image import START, Image, find_image
from kshell.target.places import shape_of
from kshell.target.space import AddressSpace
from kshell.target.target import Cpu
from kshell.target.toplevel import kernel_roots, kernel_space
from kshell.target.vmcoreinfo import Vmcoreinfo

LA57 = 1 << 12  # of CR4
PTI_USER = 1 << 12  # of CR3: the half of the two top tables that user code runs on
FRAME = 0x000F_FFFF_FFFF_F000
LINKED = 0xFFFF_FFFF_8100_0000  # where x86-64 kernels are linked to, CONFIG_PHYSICAL_START being 16 MiB everywhere


class Road(NamedTuple):
    """A kernel found: its address space, ``info`` as its VMCOREINFO would be, how it was found, and its kallsyms."""

    space: AddressSpace
    info: Vmcoreinfo
    how: str
    told: str


def iter_roads(physical: Memory, arch: Arch, cpus: list[Cpu], progress: Progress) -> Iterator[Road]:
    """Yield the kernels in *physical* that are found without VMCOREINFO, each image once, the best road first."""
    seen: set[int] = set()
    for space, image, how in _spaces(physical, arch, cpus, progress):
        if image.delta in seen:
            continue
        road = _road(physical, space, image, how)
        if road is not None:
            seen.add(image.delta)
            yield road


def road_to(physical: Memory, arch: Arch, root: int, levels: int) -> Road | None:
    """Return the kernel whose top table is at *root*, None when there is none: it was found there once."""
    try:
        space = kernel_space(physical, arch, root, levels)
        return _road(physical, space, find_image(space), "their place, which was found before")
    except KshellError:
        return None


def _road(physical: Memory, space: AddressSpace, image: Image, how: str) -> Road | None:
    shape = shape_of(physical, space, image)
    if shape is None:
        return None
    told = f"not found: {shape.problem}" if shape.problem else "by the shape of its tables"
    return Road(space, _describe(space, image, shape.text, shape.places), how, told)


def spaces_of_cpus(
    physical: Memory, arch: Arch, cpus: list[Cpu]
) -> Iterator[tuple[AddressSpace, Image, str]]:
    """Yield (kernel's half of a CPU's address space, where the image is in it, how it was found)."""
    for cpu in cpus:
        if not cpu.registers.get("cr3"):
            continue
        levels = 5 if cpu.registers.get("cr4", 0) & LA57 else 4
        root = cpu.registers["cr3"] & FRAME
        for top in dict.fromkeys((root, root & ~PTI_USER)):
            try:
                space = kernel_space(physical, arch, top, levels)
                image = find_image(space)
            except KshellError:
                continue
            yield space, image, f"CR3 of CPU {cpu.number}"


def _spaces(
    physical: Memory, arch: Arch, cpus: list[Cpu], progress: Progress
) -> Iterator[tuple[AddressSpace, Image, str]]:
    """Yield (address space, where the image is in it, how it was found), the best road first."""
    for space, image, how in spaces_of_cpus(physical, arch, cpus):
        low, high = image.start - image.delta, image.end - image.delta
        # this is the table of the task that runs there: the kernel's own is in the image
        for own, where in kernel_roots(physical, arch, low, high):
            yield own, where, how
        yield space, image, f"{how}, the page tables of the task on it"
    for own, where in kernel_roots(physical, arch, progress=progress):
        yield own, where, "the looks of their top table"


def _describe(space: AddressSpace, image: Image, text: str, places: dict[str, int]) -> Vmcoreinfo:
    """Return what the kernel's own VMCOREINFO would have told of what was found."""
    offset = image.start - LINKED
    lines = [f"OSRELEASE={text.split()[2]}", f"NUMBER(phys_base)={image.phys_base}",
             f"NUMBER(pgtable_l5_enabled)={int(space.format.levels == 5)}",
             f"KERNELOFFSET={offset if offset > 0 else 0:x}"]
    if "swapper_pg_dir" not in places and image.start <= space.root + image.delta < image.end:
        lines.append(f"SYMBOL(swapper_pg_dir)={space.root - image.phys_base + START:x}")
    lines += [f"SYMBOL({name})={address:x}" for name, address in places.items()]
    return Vmcoreinfo("\n".join(lines).encode())
