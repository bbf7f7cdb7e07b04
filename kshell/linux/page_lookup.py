"""The page cache of one file: which pages of it are in memory, and where.

Kernel source: ``struct address_space`` in include/linux/fs.h, mm/filemap.c (``filemap_get_entry``),
include/linux/swapops.h. A large folio is told by its first page.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError
from kshell.linux.lists import member_offset
from kshell.linux.pages import PageArray, page_array
from kshell.linux.vnodes import identify
from kshell.linux.xarray import xa_for_each, xa_load

if TYPE_CHECKING:
    from kshell.target.target import Target

HUGETLBFS_MAGIC = 0x9584_58F6
SHMEM_MAGIC = 0x0102_1994


class Cached(NamedTuple):
    """What the page cache holds for page *number* of a file.

    :ivar page: the ``struct page``, 0 when the page is not in memory; ``note`` says then where it is
    """

    number: int
    page: int
    frame: int
    note: str


def address_space(target: Target, address: int) -> int:
    """Return the ``struct address_space`` of the file, inode, dentry, path or address_space at *address*.

    :raises KshellError: it is none of them, has no inode, or its pages are not counted by 4 KiB
    """
    found = identify(target, address)
    if found.kind == "address_space":
        mapping = address
    elif not found.inode:
        raise KshellError(f"the dentry at 0x{address:x} has no inode: there is no such file")
    else:
        mapping = target.value("struct inode", found.inode).integer("i_mapping")
    if _magic(target, mapping) == HUGETLBFS_MAGIC:
        raise KshellError("a file of hugetlbfs: its pages are counted by huge pages or by 4 KiB, as the kernel is",
                          hint="::page -k huge lists huge pages")
    return mapping


def cached_pages(target: Target, mapping: int) -> Iterator[Cached]:
    """Yield what the page cache has of the ``struct address_space`` at *mapping*, by index; what is absent too."""
    reader = _Reader(target, mapping)
    for index, entry in xa_for_each(target, reader.tree):
        yield reader.cached(index, entry)


def lookup(target: Target, mapping: int, index: int) -> Cached | None:
    """Return what the page cache has for page *index* of the address_space at *mapping*, None for nothing."""
    reader = _Reader(target, mapping)
    entry = xa_load(target, reader.tree, index)
    return reader.cached(index, entry) if entry else None


class _Reader:
    def __init__(self, target: Target, mapping: int) -> None:
        self.target, self.mapping = target, mapping
        self.tree = mapping + member_offset(target.type("struct address_space"), "i_pages")
        self.array: PageArray = page_array(target)
        self.shmem = _magic(target, mapping) == SHMEM_MAGIC

    def cached(self, index: int, entry: int) -> Cached:
        if entry & 3:
            return Cached(index, 0, 0, "swapped out" if self.shmem else "reclaimed")
        page = self.target.value("struct page", entry)
        # 6.16+ (acc53a0b4c15 "mm: rename page->index to page->__folio_index")
        first = page.integer("index" if page.has("index") else "__folio_index")
        entry += (index - first) * self.array.size
        return Cached(index, entry, (entry - self.array.start) // self.array.size, "")


def _magic(target: Target, mapping: int) -> int:
    host = target.value("struct address_space", mapping)["host"].deref()
    return host["i_sb"].deref().integer("s_magic")
