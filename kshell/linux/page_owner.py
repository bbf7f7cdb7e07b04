"""One page: what its ``struct page`` says, and who has it: the processes and addresses that map it, the file it is of.

Kernel source: mm/rmap.c (``rmap_walk_anon``, ``rmap_walk_file``), include/linux/rmap.h, include/linux/fs.h. A page of
anonymous memory leads to its anon_vma, a page of a file to its address_space; both hold a tree of mappings, in which
the page's index tells the address. Each is checked against the page tables of its process.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import Fault, FormatError, KshellError
from kshell.linux import census
from kshell.linux.kept import kept
from kshell.linux.lists import member_offset
from kshell.linux.page_types import ANON, KSM, PageTypes
from kshell.linux.paths import Paths
from kshell.linux.rbtree import rbtree_for_each
from kshell.linux.task_stacks import every_task
from kshell.linux.tasks import task_type
from kshell.value import Vector

if TYPE_CHECKING:
    from kshell.target.target import Target

#: mappings of a page that are looked at, and those that are told
MAX_LOOKED, MAX_TOLD = 4096, 8
S_IFMT, S_IFBLK = 0o170000, 0o060000


class Page(NamedTuple):
    """What a ``struct page`` says.

    :ivar address: of it; ``head``: of the first page of the compound page it is part of, itself when it is none
    :ivar flags: PG_*; ``type``: name of its page type, "" for none; ``mapcount``: times it is mapped, 0 for page types
    :ivar mapping, pgoff: of the head (``page->index``), counted on for the others
    :ivar order: of a free block, 0 for others
    """

    address: int
    frame: int
    head: int
    flags: int
    type: str
    refcount: int
    mapcount: int
    mapping: int
    pgoff: int
    order: int


def read_page(target: Target, types: PageTypes, frame: int) -> Page:
    """Return what the struct page of *frame* says.

    :raises Fault: it cannot be read
    :raises FormatError: there is no such frame
    """
    array = types.array
    if not 0 <= frame < array.frames:
        raise FormatError(f"no page 0x{frame:x}: memory ends with page 0x{array.frames - 1:x}")
    address = array.start + frame * array.size
    data = target.kernel.read(address, array.size)

    def number(name: str, size: int = 8, *, signed: bool = False) -> int:
        return int.from_bytes(data[types.at[name] : types.at[name] + size], "little", signed=signed)

    link = number("compound_head")
    word = number("_mapcount", 4)
    kind = types.type_name(word)
    flags, refcount = number("flags"), number("_refcount", 4, signed=True)
    count = 0 if kind else number("_mapcount", 4, signed=True) + 1
    order = number("private") if kind == "buddy" else 0
    if link & 1 and not flags >> types.flags.get("PG_reserved", 63) & 1:
        head = link - 1
        behind, rest = divmod(head - array.start, array.size)
        if rest or not 0 <= behind < frame:
            raise FormatError(f"struct page at 0x{address:x} is damaged: part of a compound page at 0x{head:x}")
        first = read_page(target, types, behind)
        return first._replace(address=address, frame=frame, head=first.head, mapcount=max(count, 0),
                              pgoff=first.pgoff + frame - behind)
    return Page(address, frame, address, flags, kind, refcount, max(count, 0), number("mapping"), number("index"),
                order)


def free_block(target: Target, types: PageTypes, frame: int) -> tuple[int, int] | None:
    """Return (first frame, order) of the free block that *frame* is in, None when it is in none."""
    for order in range(census.MAX_ORDER + 1):
        first = frame & -(1 << order)
        try:
            page = read_page(target, types, first)
        except KshellError:
            continue
        if page.type == "buddy" and page.order <= census.MAX_ORDER and frame < first + (1 << page.order):
            return first, page.order
    return None


class Mapped(NamedTuple):
    """A place where a process maps a page: the ``mm_struct``, pid and name, the address, the vm_area_struct."""

    mm: int
    pid: int
    comm: str
    address: int
    vma: int


def mapped_by(target: Target, page: Page) -> Iterator[Mapped]:
    """Yield where processes map *page*, as far as their page tables say so.

    :raises KshellError: the tree of mappings is damaged; what was yielded before stands
    """
    low = page.mapping & 3
    if low == KSM or page.mapping < target.arch.kernel_half:
        return
    if low == ANON:
        kind = target.type("struct anon_vma_chain")
        root = page.mapping - ANON + member_offset(target.type("struct anon_vma"), "rb_root")
        at = member_offset(kind, "rb")
        vmas = Vector(target, kind, [node - at for node in _nodes(target, root)]).column("vma")
    else:
        root = page.mapping + member_offset(target.type("struct address_space"), "i_mmap")
        at = member_offset(target.type("struct vm_area_struct"), "shared.rb")
        vmas = [node - at for node in _nodes(target, root)]
    tasks: dict[int, tuple[int, str]] | None = None
    addresses = [vma for vma in vmas if isinstance(vma, int)]
    vector = Vector(target, target.type("struct vm_area_struct"), addresses)
    for vma, start, end, first, mm in zip(
            addresses, *vector.columns("vm_start", "vm_end", "vm_pgoff", "vm_mm"), strict=True):
        if not all(isinstance(cell, int) for cell in (start, end, first, mm)) or page.pgoff < first:
            continue
        address = start + (page.pgoff - first << 12)
        if address >= end or not _maps(target, mm, address, page.frame):
            continue
        tasks = processes_by_mm(target) if tasks is None else tasks
        pid, comm = tasks.get(mm, (0, ""))
        yield Mapped(mm, pid, comm, address, vma)


def _nodes(target: Target, root: int) -> list[int]:
    return list(islice(rbtree_for_each(target, root), MAX_LOOKED))


def _maps(target: Target, mm: int, address: int, frame: int) -> bool:
    try:
        return target.user_space(mm).translate(address) >> 12 == frame
    except KshellError:
        return False


def processes_by_mm(target: Target) -> dict[int, tuple[int, str]]:
    """Return pid and name of the process that has each mm_struct; the first one where several share it."""
    return kept(target, "processes by mm", _processes)


def _processes(target: Target) -> dict[int, tuple[int, str]]:
    columns = Vector(target, task_type(target), every_task(target)).columns("mm", "pid", "tgid", "comm")
    found: dict[int, tuple[int, str]] = {}
    for mm, pid, tgid, comm in zip(*columns, strict=True):
        if isinstance(mm, int) and mm and isinstance(tgid, int) and isinstance(comm, str) and (
                mm not in found or (pid == tgid and found[mm][0] != tgid)):
            found[mm] = tgid, comm
    return found


def file_of(target: Target, mapping: int) -> str:
    """Return the path of the file whose ``address_space`` is at *mapping*, or what is known instead.

    :raises Fault: the mapping or its inode cannot be read
    """
    inode = target.value("struct address_space", mapping)["host"].deref()
    number, block = inode.integer("i_ino"), inode["i_sb"].deref()
    what = f"inode {number} of {block['s_type'].deref()['name'].string()}"
    node = inode.integer("i_dentry.first")
    device = inode.integer("i_rdev")
    if device and inode.integer("i_mode") & S_IFMT == S_IFBLK:
        return f"device {device >> 20}:{device & 0xFFFFF}"  # MAJOR() and MINOR(), include/linux/kdev_t.h
    if not node:
        return what
    dentry = node - member_offset(target.type("struct dentry"), "d_u.d_alias")
    try:
        mount_type = target.type("struct mount")
        mount = block.integer("s_mounts.next") - member_offset(mount_type, "mnt_instance")
        if block.integer("s_mounts.next") == block["s_mounts"].address:  # a mount of the kernel's own, or none
            return f"{target.value('struct dentry', dentry)['d_name.name'].string()} ({what})"
        return Paths(target).of_path(mount + member_offset(mount_type, "mnt"), dentry)
    except KshellError as error:
        return f"{what}, whose path cannot be told: {error}"


def owner(target: Target, page: Page, kind: int) -> Iterator[str]:
    """Yield who has *page*, a sentence each; *kind* is what the census says."""
    low = page.mapping & 3
    if kind == census.ANONYMOUS:
        yield "anonymous memory, merged by KSM" if low == KSM else "anonymous memory"
    elif kind in (census.FILE, census.SHMEM, census.BUFFERS):
        try:
            name = file_of(target, page.mapping)
        except KshellError as error:
            name = f"a file that cannot be told: {error}"
        yield f"{census.NAMES[kind]}: {name}, offset 0x{page.pgoff << 12:x}"
    else:
        return
    try:
        found = list(islice(mapped_by(target, page), MAX_TOLD + 1))
    except (Fault, FormatError) as error:
        yield f"who maps it cannot be told: {error}"
        return
    for place in found[:MAX_TOLD]:
        who = f"{place.comm} (pid {place.pid})" if place.pid else f"mm_struct 0x{place.mm:x}"
        yield f"mapped by {who} at 0x{place.address:x}"
    if len(found) > MAX_TOLD:
        yield "and by more"
