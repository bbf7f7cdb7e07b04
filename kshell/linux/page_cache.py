"""Mapped files of a process as far as the page cache has them: what it would read where no page is mapped yet.

The pages of the [vdso] come from the kernel's image of it in the same way (``vdso_fault`` in
arch/x86/entry/vdso/vma.c).

A page of a private mapping that was never touched, or was given back, has an empty page-table entry; the kernel takes
it from the page cache when it is touched (``filemap_fault`` in mm/filemap.c). One that was written is mapped, or
swapped out, and never taken from there. ``struct address_space`` and ``struct folio`` in include/linux.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kshell.errors import Fault, KshellError, Reason
from kshell.linux.lists import member_offset
from kshell.linux.pages import PageArray, page_array
from kshell.linux.xarray import xa_load
from kshell.memory.model import Memory

if TYPE_CHECKING:
    from kshell.linux.mm import Vma
    from kshell.target.target import Target

PAGE = 4096


class CachedFiles(Memory):
    """The user memory *below* of a process with *vmas*, and behind it the page cache. Cannot be written."""

    space = "user"

    def __init__(self, target: Target, below: Memory, vmas: Sequence[Vma]) -> None:
        self.target, self.below = target, below
        self.vmas = sorted(vmas, key=lambda one: one.start)
        self._array: PageArray | None = None
        self._pages: dict[tuple[int, int], bytes | None] = {}  # of (struct file, or vm_area_struct of [vdso]; index)

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        data, fault = self.below.read_upto(address, size)
        if fault is None or fault.reason is not Reason.NOT_MAPPED:
            return data, fault
        parts = [data]
        done = len(data)
        while done < size:
            at = address + done
            here = min(PAGE - at % PAGE, size - done)
            piece, fault = self.below.read_upto(at, here)
            if fault is not None and fault.reason is Reason.NOT_MAPPED and not piece:
                page = self._page(at)
                if page is not None:
                    piece, fault = page[at % PAGE : at % PAGE + here], None
            parts.append(piece)
            done += len(piece)
            if fault is not None:
                break
        return b"".join(parts), fault

    def _page(self, address: int) -> bytes | None:
        """Return the page at *address* as the page cache has it, None when it has not."""
        at = bisect_right(self.vmas, address, key=lambda one: one.start) - 1
        if at < 0 or address >= self.vmas[at].end:
            return None
        vma = self.vmas[at]
        if not vma.file and vma.name != "[vdso]":
            return None
        key = vma.file or vma.address, ((vma.offset if vma.file else 0) + address - vma.start) // PAGE
        if key not in self._pages:
            try:
                self._pages[key] = self._read(*key) if vma.file else self._of_vdso(*key)
            except KshellError:
                self._pages[key] = None  # what below says is told: not mapped
        return self._pages[key]

    def _of_vdso(self, vma: int, index: int) -> bytes | None:
        image = self.target.value("struct vm_area_struct", vma)["vm_mm->context.vdso_image"].deref()
        if index * PAGE >= image.integer("size"):
            return None
        return self.target.kernel.read(image.integer("data") + index * PAGE, PAGE)

    def _read(self, file: int, index: int) -> bytes | None:
        target = self.target
        mapping = target.value("struct file", file)["f_mapping"]
        kind = target.type("struct address_space")
        entry = xa_load(target, mapping.integer() + member_offset(kind, "i_pages"), index)
        if not entry or entry & 3:
            return None  # a shadow of what was there, or swapped out
        if self._array is None:
            self._array = page_array(target)
        page = target.value("struct page", entry)
        # 6.16+ (acc53a0b4c15 "mm: rename page->index to page->__folio_index")
        first = page.integer("index" if page.has("index") else "__folio_index")
        entry += (index - first) * self._array.size  # of a large folio the first page is told
        return target.kernel.read(self._array.address(entry), PAGE)
