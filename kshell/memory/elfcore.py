"""ELF cores: physical memory by PT_LOAD segments, as QEMU, /proc/vmcore, makedumpfile -E and virsh write it.

System V ABI chapter 5; p_filesz < p_memsz is memory left out of the dump. Segments may come in any order and overlap:
/proc/vmcore shows the kernel image twice, once by its virtual address. Held bytes win over absent ones, then the
earlier segment wins, as in crash(8); drgn takes the later one, and the bytes are the same where a kernel wrote both.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from kshell.arch.model import MACHINES, Arch, arch_of_elf
from kshell.errors import OpenError, Reason
from kshell.memory.file import FileMemory, size_of
from kshell.memory.model import TOP
from kshell.memory.notes import Note, iter_notes
from kshell.memory.segments import Piece, Segments

EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
PHDR = struct.Struct("<IIQQQQQQ")
SHDR = struct.Struct("<IIQQQQIIQQ")
ET_CORE, PT_LOAD, PT_NOTE, PN_XNUM = 4, 1, 4, 0xFFFF
NT_AUXV, NT_FILE = 6, 0x46494C45
MAX_SEGMENTS = 1 << 20
MAX_NOTES_SIZE = 64 << 20


class Segment(NamedTuple):
    """One program header of type PT_LOAD."""

    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int


class ElfCore(FileMemory):
    """The physical memory in an ELF core. Made by :func:`open_elfcore`.

    :ivar is_user_core: whether it is the core of a process rather than of a kernel
    :ivar virtual: the same bytes by p_vaddr: all of a user core, the kernel half of a kernel's
    """

    def __init__(self, path: str, descriptor: int, *, writable: bool = False, live: bool = False) -> None:
        """Take over *descriptor*, which is closed when this fails.

        :raises OpenError: it is no core that can be read
        """
        self.path, self._fd, self.writable, self.live = path, descriptor, writable, live
        try:
            self._read_headers()
            super().__init__(path, descriptor, Segments(self._physical_pieces()), writable=writable, live=live)
            self.virtual = FileMemory(
                path, descriptor, Segments(self._virtual_pieces()), space="user" if self.is_user_core else "kernel",
                writable=writable, beyond=Reason.NOT_MAPPED, live=live,
            )
            self.virtual.epoch = self.epoch
        except BaseException:
            super().close()
            raise
        tables = self.virtual if self.is_user_core else self
        lost = sum(p.end - p.start for p in tables._segments.pieces if p.reason is Reason.TRUNCATED)
        if lost:
            self._missing.append(f"{lost} bytes of memory ({lost / (1 << 20):.1f} MiB)")

    # -- headers ---------------------------------------------------------------------------------------------------

    def _read_headers(self) -> None:
        try:
            self._size = size_of(self._fd)
            head = os.pread(self._fd, EHDR.size, 0)
        except OSError as error:
            raise OpenError(self.path, f"cannot be read: {error.strerror}", kind="format") from error
        if head[:4] != b"\x7fELF"[: len(head[:4])] or len(head) < 4:
            raise OpenError(self.path, "not an ELF file", kind="format")
        if len(head) < EHDR.size:
            raise OpenError(self.path, f"the file ends inside the ELF header, after {len(head)} bytes", kind="header")
        if head[4] != 2 or head[5] != 1:
            what = ("32-bit " if head[4] == 1 else "") + ("big-endian " if head[5] == 2 else "")
            if not what:
                raise OpenError(self.path, "an ELF file of unknown class or byte order", kind="header")
            raise OpenError(self.path, f"a {what}ELF file: only 64-bit little-endian ones are read", kind="wordsize")
        (_, kind, machine, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, _, _) = EHDR.unpack(head)
        self.machine = machine
        if kind != ET_CORE:
            hint = "name the dump first and this file second: kshell DUMP VMLINUX" if kind in (2, 3) else None
            raise OpenError(self.path, "an ELF file, but not a core (an executable or an object)", hint=hint)
        self.arch: Arch = arch_of_elf(machine, self.path)
        if phentsize != PHDR.size:
            raise OpenError(self.path, f"program headers of {phentsize} bytes instead of {PHDR.size}", kind="header")
        if phnum == PN_XNUM:
            phnum = self._extended_count(shoff, shentsize)
        if not 0 < phnum <= MAX_SEGMENTS:
            raise OpenError(self.path, f"{phnum} program headers: no memory, or a damaged header", kind="header")
        table = self._pread(phoff, phnum * PHDR.size)
        whole = len(table) // PHDR.size
        if whole == 0:
            raise OpenError(self.path, "the file ends before its program headers", kind="header")
        rows = [PHDR.unpack_from(table, index * PHDR.size) for index in range(whole)]
        self.segments = [Segment(r[2], r[3], r[4], r[5], r[6]) for r in rows if r[0] == PT_LOAD]
        self.notes: list[Note] = []
        self._missing = [f"{phnum - whole} of {phnum} program headers"] if whole < phnum else []
        room = MAX_NOTES_SIZE
        for row in rows:
            if row[0] == PT_NOTE:
                data = self._pread(row[2], min(row[5], room))
                room -= len(data)
                if len(data) < row[5] and "notes" not in self._missing:
                    self._missing.append("notes")
                self.notes += iter_notes(data)
        self.is_user_core = self._has_process_notes()

    def _extended_count(self, shoff: int, shentsize: int) -> int:
        """More than 65534 segments: the count is in sh_info of section 0."""
        data = self._pread(shoff, SHDR.size)
        if shoff == 0 or shentsize != SHDR.size or len(data) < SHDR.size:
            raise OpenError(self.path, "the number of program headers (PN_XNUM) cannot be read", kind="header")
        return int(SHDR.unpack(data)[7])

    def _pread(self, offset: int, size: int) -> bytes:
        if offset >= self._size or size <= 0:
            return b""  # the caller says what is missing
        try:
            return os.pread(self._fd, min(size, self._size - offset), offset)
        except OSError as error:
            raise OpenError(self.path, f"cannot be read: {error.strerror}", kind="format") from error

    def _physical_pieces(self) -> Iterator[Piece]:
        # a user core, and /proc/kcore before Linux 4.11, has no physical addresses: all are 0
        if self.is_user_core or (len(self.segments) > 1 and not any(segment.paddr for segment in self.segments)):
            return
        for segment in self.segments:
            # the word of /proc/kcore for virtual memory that is no run of physical memory (since 4.11)
            if segment.paddr != TOP - 1:
                yield from self._pieces(segment, segment.paddr)

    def _virtual_pieces(self) -> Iterator[Piece]:
        for segment in self.segments:
            # QEMU writes p_vaddr 0 unless it was asked for paging
            if self.is_user_core or segment.vaddr >= 1 << 63:
                yield from self._pieces(segment, segment.vaddr)

    def _pieces(self, segment: Segment, start: int) -> Iterator[Piece]:
        """Yield what the file holds of *segment*, what is missing at its end, and what was left out."""
        end = min(start + segment.memsz, TOP)
        held = min(segment.filesz, segment.memsz, TOP - start)
        present = held if self.live else max(0, min(held, self._size - segment.offset))
        yield Piece(start, start + present, segment.offset)
        yield Piece(start + present, start + held, 0, Reason.TRUNCATED)
        yield Piece(start + held, end, 0, Reason.EXCLUDED)

    @property
    def complete(self) -> str | None:
        """What is missing because the file ends early; None when it is complete."""
        return f"the file ends early: {', '.join(self._missing)} missing" if self._missing else None

    def _has_process_notes(self) -> bool:
        """Whether this is the core of a process: it has an auxiliary vector or a list of files, and no kernel's notes.

        NT_PRSTATUS and NT_PRPSINFO are no sign: /proc/kcore has them too.
        """
        names = {(note.name, note.type) for note in self.notes}
        kernel = any(name in ("VMCOREINFO", "QEMU", "XEN", "Xen") for name, _ in names)
        return not kernel and any(name == "CORE" and kind in (NT_AUXV, NT_FILE) for name, kind in names)

    def describe(self) -> str:
        """Return one line: format, size of RAM and how much of it is in the file."""
        total = sum(piece.end - piece.start for piece in self._segments.pieces)
        held = self._segments.held()
        maker = "QEMU" if any(note.name == "QEMU" for note in self.notes) else "kdump"
        text = f"ELF vmcore ({maker}, {MACHINES.get(self.machine, self.machine)}), {total / (1 << 20):.0f} MiB of RAM"
        return text if held == total else f"{text}, {held / (1 << 20):.0f} MiB of it held"

    def close(self) -> None:
        self.virtual._fd = -1  # shared: its number may be another file's soon
        super().close()


def open_elfcore(path: str, mode: str = "r", *, live: bool = False) -> ElfCore:
    """Open an ELF core; mode "r" or "r+" (writes go into the file).

    :raises OpenError: it is not there, may not be read or written, or is no core that can be read
    """
    flags = os.O_RDWR if mode == "r+" else os.O_RDONLY
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        kind = "missing" if error.errno == errno.ENOENT else "permission" if denied else "format"
        verb = "opened for writing" if mode == "r+" else "opened"
        hint = "--cow keeps writes in memory instead" if denied and mode == "r+" else None
        raise OpenError(path, f"cannot be {verb}: {error.strerror}", kind=kind, hint=hint) from error
    return ElfCore(path, descriptor, writable=mode == "r+", live=live)
