"""ELF cores: physical memory by PT_LOAD segments, as QEMU, /proc/vmcore, makedumpfile -E and virsh write it.

p_filesz < p_memsz is memory left out of the dump. Segments may come in any order and overlap: /proc/vmcore shows the
kernel image twice, once by its virtual address. Held bytes win over absent ones, then the earlier segment wins, as in
crash(8); drgn takes the later one, and the bytes are the same where a kernel wrote both.
"""

from __future__ import annotations

from kshell.errors import OpenError, Reason
from kshell.memory.elfheaders import (
    EHDR,
    ET_CORE,
    MAX_SEGMENTS,
    PHDR,
    PN_XNUM,
    PT_LOAD,
    PT_NOTE,
    SHDR,
    Segment,
    read_elf_headers,
)
from kshell.memory.file import FileMemory, open_file, size_of
from kshell.memory.fileimage import FileImage
from kshell.memory.pieces import PieceMemory
from kshell.memory.pread import pread_all
from kshell.memory.segments import Segments
from kshell.memory.source import FlattenedSource


class ElfCore(FileImage):
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
            try:
                self._size = size_of(descriptor)
            except OSError as error:
                raise OpenError(path, f"cannot be read: {error.strerror}", kind="format") from error
            self.headers = headers = read_elf_headers(path, self._size, self._pread)
            self.machine, self.arch, self.segments = headers.machine, headers.arch, headers.segments
            self.notes, self.is_user_core = headers.notes, headers.is_user_core
            super().__init__(path, descriptor, Segments(headers.physical_pieces(live=live)), writable=writable,
                             live=live)
            self.virtual = FileMemory(
                path, descriptor, Segments(headers.virtual_pieces(live=live)),
                space="user" if self.is_user_core else "kernel", writable=writable, beyond=Reason.NOT_MAPPED, live=live,
            )
            self.virtual.epoch = self.epoch
        except BaseException:
            super().close()
            raise
        tables = self.virtual if self.is_user_core else self
        self._missing = [*headers.missing, *_lost(tables._segments)]

    def _pread(self, size: int, offset: int) -> bytes:
        if offset >= self._size or size <= 0:
            return b""  # the caller says what is missing
        try:
            return pread_all(self._fd, min(size, self._size - offset), offset)
        except OSError as error:
            raise OpenError(self.path, f"cannot be read at 0x{offset:x}: {error.strerror}", kind="format") from error

    @property
    def complete(self) -> str | None:
        """What is missing because the file ends early; None when it is complete."""
        return f"the file ends early: {', '.join(self._missing)} missing" if self._missing else None

    def describe(self) -> str:
        """Return one line: format, size of RAM and how much of it is in the file."""
        return self.headers.describe(self._segments.total(), self._segments.held())

    def close(self) -> None:
        self.virtual._fd = -1  # shared: its number may be another file's soon
        super().close()


class FlatElfCore(PieceMemory):
    """The physical memory in an ELF core that makedumpfile -F -E wrote flattened, read in place."""

    def __init__(self, path: str, source: FlattenedSource) -> None:
        """:raises OpenError: it is no core that can be read"""
        self.headers = headers = read_elf_headers(path, source.size, source.pread)
        super().__init__(path, source, Segments(headers.physical_pieces()))
        self.arch, self.notes = headers.arch, headers.notes
        self._missing = [*headers.missing, *_lost(self._segments)]
        self._how = source.how
        if not source.complete:
            self._missing.append("the flattened dump's end mark")
        self._damage = f"; {source.damage}" if source.damage else ""

    @property
    def complete(self) -> str | None:
        """What is missing because the file ends early; None when it is complete."""
        if not self._missing:
            return None
        return f"the file ends early: {', '.join(self._missing)} missing{self._damage}"

    def describe(self) -> str:
        """Return one line: format, size of RAM and how much of it is in the file."""
        return self.headers.describe(self._segments.total(), self._segments.held(), "flattened ")

    def facts(self) -> dict[str, str]:
        """Return how the records were found."""
        return {"flattened": self._how}


def _lost(segments: Segments) -> list[str]:
    """Return, in words, how much memory is past the end of the file; nothing when none is."""
    lost = sum(piece.end - piece.start for piece in segments.pieces if piece.reason is Reason.TRUNCATED)
    return [f"{lost} bytes of memory ({lost / (1 << 20):.1f} MiB)"] if lost else []


def open_elfcore(path: str, mode: str = "r", *, live: bool = False) -> ElfCore:
    """Open an ELF core; mode "r" or "r+" (writes go into the file).

    :raises OpenError: it is not there, may not be read or written, or is no core that can be read
    """
    return ElfCore(path, open_file(path, mode), writable=mode == "r+", live=live)


__all__ = [
    "EHDR", "ET_CORE", "MAX_SEGMENTS", "PHDR", "PN_XNUM", "PT_LOAD", "PT_NOTE", "SHDR", "ElfCore", "FlatElfCore",
    "Segment", "open_elfcore",
]
