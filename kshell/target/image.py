"""The kernel image in an address space that nothing but page tables tells about: where it is, its bytes, its banner.

x86-64 maps it between ``__START_KERNEL_map`` and the modules (Documentation/arch/x86/x86_64/mm.rst), in one run of
physical memory. Bounded for hostile tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from kshell.errors import FormatError
from kshell.target.space import AddressSpace
from kshell.types.kallsyms_scan import Run

START, END = 0xFFFF_FFFF_8000_0000, 0xFFFF_FFFF_C000_0000
MAX_MAPPINGS = 1 << 14
MAX_IMAGE = 512 << 20
BANNER = re.compile(rb"Linux version (\d[^ \0]{1,64}) [^\0\n]{1,512}\n\0")


class Image(NamedTuple):
    """Where the image lies: virtual ``start`` to ``end``, ``delta`` is virtual minus physical; ``runs`` are mapped."""

    start: int
    end: int
    delta: int
    runs: list[tuple[int, int]]

    @property
    def phys_base(self) -> int:
        """``phys_base`` of the kernel: an address of the image, less the start of the map, plus this is physical."""
        return START - self.delta


def find_image(space: AddressSpace) -> Image:
    """Return where the kernel image is, by its page tables alone.

    :raises FormatError: nothing is mapped where it belongs
    :raises Fault: a page table cannot be read
    """
    runs: list[tuple[int, int]] = []
    delta = None
    for number, mapping in enumerate(space.mappings(START, END)):
        if number >= MAX_MAPPINGS:
            break
        if delta is None:
            delta = mapping.start - mapping.paddr
        if mapping.start - mapping.paddr != delta or sum(end - start for start, end in runs) > MAX_IMAGE:
            continue
        if runs and runs[-1][1] == mapping.start:
            runs[-1] = (runs[-1][0], mapping.end)
        else:
            runs.append((mapping.start, mapping.end))
    if delta is None:
        raise FormatError("the page tables map no kernel image")
    return Image(runs[0][0], runs[-1][1], delta, runs)


def image_bytes(space: AddressSpace, image: Image) -> Iterator[Run]:
    """Yield the image's bytes; what cannot be read is left out."""
    for start, end in image.runs:
        at = start
        while at < end:
            data, fault = space.read_upto(at, min(end, at + MAX_IMAGE) - at)
            if data:
                yield Run(at, data)
            at += len(data)
            if fault is not None:
                at = (at // 4096 + 1) * 4096


def looks(space: AddressSpace, image: Image) -> Iterator[list[Run]]:
    """Yield the bytes to look through for tables: the image's constants, and where that does not do all of them.

    Constants are neither written nor executed. They are a quarter of the image, and its tables are there, unless it
    died before it had made them read-only (mark_rodata_ro).
    """
    runs: list[tuple[int, int]] = []
    for mapping in space.mappings(image.start, image.end):
        if mapping.flags.startswith("r--") and mapping.start - mapping.paddr == image.delta:
            if runs and runs[-1][1] == mapping.start:
                runs[-1] = runs[-1][0], mapping.end
            else:
                runs.append((mapping.start, mapping.end))
    for several in (runs, image.runs):
        if several:
            yield list(image_bytes(space, image._replace(runs=several)))


def banner(runs: list[Run], *, at_start: bool = False) -> str | None:
    """Return ``linux_banner``'s text, or None: the release is its third word.

    :param at_start: it begins with the first byte of a run
    """
    for run in runs:
        found = BANNER.match(run.data) if at_start else BANNER.search(run.data)
        if found is not None:
            return found[0].rstrip(b"\n\0").decode("utf-8", "replace")
    return None
