"""The headers of ELF cores, of 64 bits and of 32: which bytes of the file are which memory, and the notes.

System V ABI chapter 5. A core of a 64-bit kernel may have 32-bit headers: kexec writes them for
``--elf32-core-headers`` (kexec-tools: crashdump-elf.c), with the machine x86_64 in them. Big counts are in
section 0 (PN_XNUM).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kshell.arch.model import MACHINES, Arch, arch_of_elf, arch_of_program
from kshell.errors import OpenError, Reason
from kshell.memory.model import TOP
from kshell.memory.notes import Note, iter_notes
from kshell.memory.segments import Piece

EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
PHDR = struct.Struct("<IIQQQQQQ")
SHDR = struct.Struct("<IIQQQQIIQQ")
EHDR32 = struct.Struct("<16sHHIIIIIHHHHHH")
PHDR32 = struct.Struct("<8I")
SHDR32 = struct.Struct("<10I")
ET_CORE, PT_LOAD, PT_NOTE, PN_XNUM = 4, 1, 4, 0xFFFF
EM_386, EM_X86_64 = 3, 62
NT_AUXV, NT_FILE = 6, 0x46494C45
MAX_SEGMENTS = 1 << 20
MAX_NOTES_SIZE = 64 << 20

#: reads at most so many bytes at an offset, fewer where the file ends
Pread = Callable[[int, int], bytes]


class Segment(NamedTuple):
    """One program header of type PT_LOAD."""

    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int


class Layout(NamedTuple):
    """The structures of one ELF class; ``row`` picks offset, vaddr, paddr, filesz, memsz of a program header."""

    bits: int
    header: struct.Struct
    program: struct.Struct
    section: struct.Struct
    row: tuple[int, int, int, int, int]


WIDE = Layout(64, EHDR, PHDR, SHDR, (2, 3, 4, 5, 6))
NARROW = Layout(32, EHDR32, PHDR32, SHDR32, (1, 2, 3, 4, 5))


class ElfHeaders:
    """What the headers of a core say.

    :ivar size: bytes of the file
    :ivar missing: what of the headers is past the end of the file, in words
    """

    def __init__(
        self, path: str, size: int, bits: int, machine: int, arch: Arch, segments: list[Segment],
    ) -> None:
        self.path, self.size, self.bits, self.machine, self.arch, self.segments = (
            path, size, bits, machine, arch, segments)
        self.notes: list[Note] = []
        self.missing: list[str] = []

    @property
    def is_user_core(self) -> bool:
        """Whether this is the core of a process: an auxiliary vector or a list of files, and no kernel's notes.

        NT_PRSTATUS and NT_PRPSINFO are no sign: /proc/kcore has them too.
        """
        names = {(note.name, note.type) for note in self.notes}
        kernel = any(name in ("VMCOREINFO", "QEMU", "XEN", "Xen", "VBCORE") for name, _ in names)
        return not kernel and any(name == "CORE" and kind in (NT_AUXV, NT_FILE) for name, kind in names)

    @property
    def maker(self) -> str:
        """Who wrote it, by its notes."""
        names = {note.name for note in self.notes}
        return "QEMU" if "QEMU" in names else "VirtualBox" if "VBCORE" in names else "kdump"

    def physical_pieces(self, *, live: bool = False) -> Iterator[Piece]:
        """Yield where physical memory is in the file. A user core, and /proc/kcore before 4.11, tells of none."""
        if self.is_user_core or (len(self.segments) > 1 and not any(segment.paddr for segment in self.segments)):
            return
        for segment in self.segments:
            # the word of /proc/kcore for virtual memory that is no run of physical memory (since 4.11)
            if segment.paddr != TOP - 1:
                yield from self._pieces(segment, segment.paddr, live)

    def virtual_pieces(self, *, live: bool = False) -> Iterator[Piece]:
        """Yield where virtual memory is in the file: all of a user core, the kernel half of a kernel's."""
        for segment in self.segments:
            # QEMU writes p_vaddr 0 unless it was asked for paging
            if self.is_user_core or segment.vaddr >= 1 << 63:
                yield from self._pieces(segment, segment.vaddr, live)

    def _pieces(self, segment: Segment, start: int, live: bool) -> Iterator[Piece]:
        """Yield what the file holds of *segment*, what is missing at its end, and what was left out."""
        end = min(start + segment.memsz, TOP)
        held = min(segment.filesz, segment.memsz, TOP - start)
        present = held if live else max(0, min(held, self.size - segment.offset))
        yield Piece(start, start + present, segment.offset)
        yield Piece(start + present, start + held, 0, Reason.TRUNCATED)
        yield Piece(start + held, end, 0, Reason.EXCLUDED)

    def describe(self, total: int, held: int, prefix: str = "") -> str:
        """Return one line: format, size of RAM and how much of it is in the file."""
        width = "" if self.bits == 64 else "32-bit "
        machine = MACHINES.get(self.machine, self.machine)
        text = f"{prefix}{width}ELF vmcore ({self.maker}, {machine}), {total / (1 << 20):.0f} MiB of RAM"
        return text if held == total else f"{text}, {held / (1 << 20):.0f} MiB of it held"


def read_elf_headers(path: str, size: int, pread: Pread) -> ElfHeaders:
    """Return the headers of the core of *size* bytes that *pread* reads.

    :raises OpenError: it is no core that can be read
    """
    head = pread(EHDR.size, 0)
    layout = _layout(path, head)
    (_, kind, machine, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, _, _) = layout.header.unpack_from(head)
    if kind != ET_CORE and (layout is WIDE or phentsize == PHDR32.size):
        hint = "name the dump first and this file second: kshell DUMP VMLINUX" if kind in (2, 3) else None
        raise OpenError(path, "an ELF file, but not a core (an executable or an object)", hint=hint)
    if layout is NARROW and machine not in (EM_X86_64, EM_386):
        raise _narrow_kernel(path, machine)
    arch = arch_of_program(machine, path) if layout is NARROW else arch_of_elf(machine, path)
    if phentsize != layout.program.size:
        word = "" if layout is WIDE else "a 32-bit ELF file whose "
        place = 0x36 if layout is WIDE else 0x2A
        raise OpenError(path, f"{word}program headers of {phentsize} bytes instead of {layout.program.size} "
                        f"(at 0x{place:x})", kind="header" if layout is WIDE else "wordsize")
    if phnum == PN_XNUM:
        section = pread(layout.section.size, shoff) if shoff else b""
        if shentsize != layout.section.size or len(section) < layout.section.size:
            raise OpenError(path, f"the number of program headers (PN_XNUM, at 0x{shoff:x}) cannot be read",
                            kind="header")
        phnum = int(layout.section.unpack(section)[7])
    if phnum == 0 and layout is WIDE and b".xen_" in _section_names(pread, head, shoff):
        raise OpenError(path, "a core of a Xen domain (xl dump-core): recognised, but not read by kshell",
                        kind="unsupported", hint="crash(8) reads it; a kdump of the domain's own kernel is read")
    if not 0 < phnum <= MAX_SEGMENTS:
        place = 0x38 if layout is WIDE else 0x2C
        raise OpenError(path, f"{phnum} program headers (at 0x{place:x}): no memory, or a damaged header",
                        kind="header")
    table = pread(phnum * layout.program.size, phoff)
    whole = len(table) // layout.program.size
    if whole == 0:
        raise OpenError(path, f"the file ends before its program headers at 0x{phoff:x}", kind="header")
    rows = list(layout.program.iter_unpack(table[: whole * layout.program.size]))
    a, b, c, d, e = layout.row
    segments = [Segment(r[a], r[b], r[c], r[d], r[e]) for r in rows if r[0] == PT_LOAD]
    headers = ElfHeaders(path, size, layout.bits, machine, arch, segments)
    if whole < phnum:
        headers.missing.append(f"{phnum - whole} of {phnum} program headers")
    room = MAX_NOTES_SIZE
    for row in rows:
        if row[0] == PT_NOTE:
            data = pread(min(row[d], room), row[a])
            room -= len(data)
            if len(data) < row[d] and "notes" not in headers.missing:
                headers.missing.append("notes")
            headers.notes += iter_notes(data)
    if machine == EM_386 and not headers.is_user_core:
        raise _narrow_kernel(path, machine)
    return headers


def _narrow_kernel(path: str, machine: int) -> OpenError:
    return OpenError(path, f"a 32-bit ELF file of {MACHINES.get(machine, f'machine {machine}')} (at 0x12): "
                     "only 64-bit kernels are read, and cores of i386 programs", kind="wordsize")


def _section_names(pread: Pread, head: bytes, shoff: int) -> bytes:
    """Return the names of the sections of a 64-bit file, joined by NULs; nothing where there are none."""
    number = int(EHDR.unpack_from(head)[13])
    row = pread(SHDR.size, shoff + number * SHDR.size) if shoff else b""
    return pread(min(SHDR.unpack(row)[5], 1 << 16), SHDR.unpack(row)[4]) if len(row) == SHDR.size else b""


def _layout(path: str, head: bytes) -> Layout:
    """Return the structures that the file's first bytes ask for."""
    if head[:4] != b"\x7fELF"[: len(head[:4])] or len(head) < 4:
        raise OpenError(path, "not an ELF file", kind="format")
    if len(head) < EHDR.size:
        raise OpenError(path, f"the file ends inside the ELF header, after {len(head)} bytes", kind="header")
    if head[4] not in (1, 2) or head[5] not in (1, 2):
        raise OpenError(path, "an ELF file of unknown class or byte order (at 0x4 and 0x5)", kind="header")
    if head[5] == 2:
        width = "32-bit " if head[4] == 1 else ""
        raise OpenError(path, f"a {width}big-endian ELF file: only little-endian ones are read", kind="wordsize")
    return WIDE if head[4] == 2 else NARROW
