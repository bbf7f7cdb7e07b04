"""Memory maps of processes: ``struct vm_area_struct``, as /proc/PID/maps shows them.

Kernel source: include/linux/mm_types.h, fs/proc/task_mmu.c (``show_map_vma``), mm/util.c, arch/x86/entry/vsyscall.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import Fault, FormatError, KshellError
from kshell.linux.lists import chain, member_offset
from kshell.linux.maple import maple_for_each
from kshell.linux.paths import Paths, path_or_error
from kshell.linux.rbtree import rbtree_for_each_entry
from kshell.types.model import StructType
from kshell.value import Vector

if TYPE_CHECKING:
    from kshell.target.target import Target

VM_READ, VM_WRITE, VM_EXEC, VM_SHARED, VM_MAYSHARE = 0x1, 0x2, 0x4, 0x8, 0x80
#: ``enum { EMULATE, XONLY, NONE } vsyscall_mode``, arch/x86/entry/vsyscall/vsyscall_64.c (NATIVE for XONLY before 5.3)
VSYSCALL_NONE = 2
VSYSCALL = 0xFFFF_FFFF_FF60_0000


class Vma(NamedTuple):
    """One mapping of a process: ``start <= address < end``.

    :ivar address: of its ``vm_area_struct``
    :ivar flags: VM_*; ``permissions``: as in /proc/PID/maps (``r-xp``)
    :ivar offset: in the file, bytes; ``device``: (major, minor); ``inode``: of the file, 0 for none
    :ivar file: address of its ``struct file``, 0 for none
    :ivar name: path, ``[heap]``, ``[stack]``, ``[vdso]``, ... or ""; an error where the path cannot be read
    """

    address: int
    start: int
    end: int
    flags: int
    offset: int
    device: tuple[int, int]
    inode: int
    file: int
    name: str | KshellError

    @property
    def permissions(self) -> str:
        flags = self.flags
        return "".join((
            "r" if flags & VM_READ else "-", "w" if flags & VM_WRITE else "-", "x" if flags & VM_EXEC else "-",
            "s" if flags & VM_MAYSHARE else "p"))


def vma_addresses(target: Target, mm: int) -> list[int]:
    """Return the ``vm_area_struct`` of each mapping of the ``mm_struct`` at *mm*, ascending.

    :raises Fault, FormatError: the tree is damaged
    """
    kind = target.type("struct mm_struct").strip()
    assert isinstance(kind, StructType)
    if kind.has("mm_mt"):  # 6.1+ (d4af56c5c7c6 "mm: start tracking VMAs with maple tree")
        return [entry.entry for entry in maple_for_each(target, mm + kind.member("mm_mt").offset)]
    if kind.has("mmap"):  # before 6.1 (763ecb035029 "mm: remove the vma linked list"): ->vm_next
        first = int.from_bytes(target.kernel.read(mm + kind.member("mmap").offset, 8), "little")
        return chain(target, first, member_offset(target.type("struct vm_area_struct"), "vm_next"))
    root = mm + kind.member("mm_rb").offset
    return [int(address) for address in rbtree_for_each_entry(target, "struct vm_area_struct", root, "vm_rb").addresses]


def iter_vmas(target: Target, mm: int) -> Iterator[Vma]:
    """Yield the mappings of the ``mm_struct`` at *mm*, ascending, with their names; the vsyscall page last.

    :raises Fault, FormatError: the tree or a mapping is damaged
    """
    namer = _Namer(target, mm)
    kind = target.type("struct vm_area_struct")
    vector = Vector(target, kind, vma_addresses(target, mm))
    columns = vector.columns("vm_start", "vm_end", "vm_flags", "vm_pgoff", "vm_file")
    for address, *cells in zip(vector.addresses, *columns, strict=True):
        for cell in cells:
            if isinstance(cell, Fault):
                raise cell
        yield namer.vma(int(address), *cells)
    gate = _gate(target)
    if gate is not None:
        yield gate


def find_vma(target: Target, mm: int, address: int) -> Vma | None:
    """Return the mapping of the ``mm_struct`` at *mm* that holds the user address *address*, or None."""
    return next((vma for vma in iter_vmas(target, mm) if vma.start <= address < vma.end), None)


class _Namer:
    """Makes :class:`Vma` records of one mm: reads what names depend on once."""

    def __init__(self, target: Target, mm: int) -> None:
        self.target = target
        self.paths = Paths(target)
        value = target.value("struct mm_struct", mm)
        self.start_brk, self.brk = value.integer("start_brk"), value.integer("brk")
        self.start_stack = value.integer("start_stack")
        self.files: dict[int, tuple[tuple[int, int], int, str | KshellError]] = {}
        self.operations: dict[int, str] = {}

    def vma(self, address: int, start: int, end: int, flags: int, pgoff: int, file: int) -> Vma:
        device, inode, name = (0, 0), 0, ""
        if file:
            device, inode, path = self._file(file)
            return Vma(address, start, end, flags, pgoff << 12, device, inode, file, self._annotation(address, path))
        name = self._special(address) or self._region(start, end) or self._anonymous(address, "anon")
        # /proc shows the offset of file mappings only
        return Vma(address, start, end, flags, 0, device, inode, 0, name)

    def _file(self, file: int) -> tuple[tuple[int, int], int, str | KshellError]:
        """Return device, inode number and path of the ``struct file`` at *file*."""
        found = self.files.get(file)
        if found is None:
            inode = self.target.value("struct file", file)["f_inode"].deref()
            device = inode["i_sb"].deref().integer("s_dev")
            # MAJOR() and MINOR() of a kernel dev_t: 20 bits of minor, include/linux/kdev_t.h
            found = (device >> 20, device & 0xFFFFF), inode.integer("i_ino"), path_or_error(self.paths, file)
            self.files[file] = found
        return found

    def _annotation(self, address: int, path: str | KshellError) -> str | KshellError:
        # 6.2+ (d09e8ca6cb93 "mm: anonymous shared memory naming"): a name given with prctl() replaces the path
        return self._anonymous(address, "anon_shmem") or path

    def _anonymous(self, address: int, word: str) -> str:
        vma = self.target.value("struct vm_area_struct", address)
        if not vma.has("anon_name"):
            return ""
        pointer = vma.integer("anon_name")
        if not pointer:
            return ""
        # Before 6.1 (5c26f6ac9416) anon_name shared its place with shared.rb of file mappings: only of use without one.
        if word == "anon_shmem" and not self._separate_name():
            return ""
        return f"[{word}:{self.target.value('struct anon_vma_name', pointer)['name'].string(256)}]"

    def _separate_name(self) -> bool:
        kind = self.target.type("struct vm_area_struct").strip()
        assert isinstance(kind, StructType)
        shared = kind.member("shared") if kind.has("shared") else None
        return shared is None or kind.member("anon_name").offset != shared.offset

    def _special(self, address: int) -> str:
        """Return the name of a special mapping ([vdso], [vvar], ...), "" for others."""
        vma = self.target.value("struct vm_area_struct", address)
        operations = vma.integer("vm_ops")
        if not operations:
            return ""
        if operations not in self.operations:
            function = self.target.value("struct vm_operations_struct", operations).integer("name")
            found = self.target.symbolize(function) if function else None
            self.operations[operations] = found[0].name if found else ""
        if self.operations[operations] != "special_mapping_name":
            return ""
        return self.target.value("struct vm_special_mapping", vma.integer("vm_private_data"))["name"].string(64)

    def _region(self, start: int, end: int) -> str:
        # As 6.6+ ("mm: factor out VMA stack and heap checks") has it; before, a mapping that only touches
        # the heap's end was called [heap] too.
        if start < self.brk and end > self.start_brk:
            return "[heap]"
        if start <= self.start_stack <= end:
            return "[stack]"
        return ""


def _gate(target: Target) -> Vma | None:
    """Return the vsyscall page, which belongs to every 64-bit process unless the kernel has it switched off."""
    gate, mode = target.symbols.get("gate_vma"), target.symbols.get("vsyscall_mode")
    if gate is None or mode is None:
        return None
    if int.from_bytes(target.kernel.read(mode.address, 4), "little") >= VSYSCALL_NONE:
        return None
    value = target.value("struct vm_area_struct", gate.address)
    start, end, flags = value.integer("vm_start"), value.integer("vm_end"), value.integer("vm_flags")
    if start != VSYSCALL or end <= start:
        raise FormatError(f"gate_vma is damaged: 0x{start:x}-0x{end:x}")
    return Vma(gate.address, start, end, flags, 0, (0, 0), 0, 0, "[vsyscall]")


def parse_maps(line: str) -> Vma:
    """Return the mapping that a line of /proc/PID/maps tells; addresses of kernel structures are not known: 0.

    :raises FormatError: it is no such line
    """
    fields = line.split(None, 5)
    try:
        start, end = (int(number, 16) for number in fields[0].split("-"))
        major, minor = (int(number, 16) for number in fields[3].split(":"))
        offset, inode = int(fields[2], 16), int(fields[4])
    except (ValueError, IndexError) as error:
        raise FormatError(f"not a line of /proc/PID/maps: {line[:80]!r}") from error
    bits = zip(fields[1], (VM_READ, VM_WRITE, VM_EXEC, VM_SHARED | VM_MAYSHARE), "rwxs", strict=False)
    flags = sum(bit for letter, bit, meant in bits if letter == meant)
    return Vma(0, start, end, flags, offset, (major, minor), inode, 0, fields[5] if len(fields) > 5 else "")
