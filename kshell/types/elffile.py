"""An ELF file with its sections: their bytes uncompressed and, in object files, relocated. System V ABI chapters 4, 5.

pyelftools reads the headers. Bytes are read with pread(2), part by part: the ``.debug_info`` of a vmlinux has 200 MB.
Compressed sections: SHF_COMPRESSED (zlib, zstd) and GNU's older ``.zdebug_*``.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from kshell.arch.model import MACHINES
from kshell.errors import FormatError
from kshell.memory.notes import iter_notes

MAX_SECTION = 1 << 31
MAX_HEADERS = 1 << 16
NT_GNU_BUILD_ID = 3
ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4
SHT_RELA, SHT_NOBITS, SHT_REL = 4, 8, 9
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_COMPRESSED = 1, 2, 4, 0x800
SHN_UNDEF, SHN_ABS = 0, 0xFFF1
PT_LOAD, PT_DYNAMIC, PT_NOTE = 1, 2, 4
CHDR, CHDR32 = struct.Struct("<IIQQ"), struct.Struct("<III")
RELA, REL32 = struct.Struct("<QQq"), struct.Struct("<II")
SYM, SYM32 = struct.Struct("<IBBHQQ"), struct.Struct("<IIIBBH")
EM_386, EM_X86_64 = 3, 62
#: relocations of x86-64 that sections of debugging data have: bytes that are written (psABI 4.4)
RELOCATIONS = {1: 8, 10: 4, 11: 4, 17: 8, 21: 4}  # R_X86_64_64, 32, 32S, DTPOFF64, DTPOFF32
RELOCATIONS_386 = {1: 4, 32: 4}  # R_386_32, R_386_TLS_LDO_32
TYPES = {0: "no file type", ET_REL: "object file", ET_EXEC: "executable", ET_DYN: "shared object", ET_CORE: "core"}


class Section(NamedTuple):
    """One section header; ``address`` is sh_addr, ``offset`` and ``size`` say where it lies in the file."""

    number: int
    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int


class Segment(NamedTuple):
    """One program header."""

    type: int
    flags: int
    offset: int
    vaddr: int
    filesz: int
    memsz: int


class ElfFile:
    """An opened ELF file of 64 bits, or of 32 bits for i386; little-endian.

    :ivar real: its path without links, as it was when it was opened: links in /proc/PID end with the process
    :ivar bits: 64 or 32; :ivar type: e_type; :ivar machine: e_machine; :ivar entry: e_entry
    """

    def __init__(self, path: str, data: bytes | None = None) -> None:
        """Open the file at *path*, or take *data* as its bytes.

        :raises FormatError: it cannot be read, or is no ELF file of this kind
        """
        self.path = self.real = path
        self._data, self._fd = data, -1
        try:
            if data is None:
                self.real = os.path.realpath(path)
                self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            self.size = len(data) if data is not None else os.lseek(self._fd, 0, os.SEEK_END)
            self._read_headers()
        except OSError as error:
            self.close()
            raise FormatError(f"{path}: {error.strerror}") from error
        except BaseException:
            self.close()
            raise

    def _read_headers(self) -> None:
        from elftools.elf.elffile import ELFFile

        head = self.pread(64, 0)
        if head[:4] != b"\x7fELF":
            raise FormatError(f"{self.path}: not an ELF file")
        if len(head) < 64:
            raise FormatError(f"{self.path}: not an ELF file that can be read: it ends inside its header")
        self.bits = 32 if head[4] == 1 else 64
        self.type, self.machine = struct.unpack_from("<HH", head, 16)
        if head[4] not in (1, 2) or head[5] != 1:
            raise FormatError(f"{self.path}: a big-endian ELF file, or of an unknown class: not supported")
        if self.bits == 32 and self.machine != EM_386:
            name = MACHINES.get(self.machine, f"machine {self.machine}")
            raise FormatError(f"{self.path}: a 32-bit ELF file of {name}: of 32 bits only those of i386 are read")
        file = io.BytesIO(self._data) if self._data is not None else os.fdopen(os.dup(self._fd), "rb")
        try:
            with file:
                elf = ELFFile(file)
                self.entry: int = elf["e_entry"]
                if elf.num_sections() > MAX_HEADERS or elf.num_segments() > MAX_HEADERS:
                    raise FormatError(f"{self.path}: an impossible number of headers")
                self.segments = [_segment(elf.get_segment(number).header) for number in range(elf.num_segments())]
                self.sections = [_section(number, found) for number, found in enumerate(elf.iter_sections())]
        except (OSError, FormatError):
            raise
        except Exception as error:  # pyelftools raises what comes on damaged files: its own, KeyError, struct.error
            why = error or type(error).__name__
            raise FormatError(f"{self.path}: not an ELF file that can be read: {why}") from error
        if self.type == ET_REL:
            self.sections = _placed(self.sections, self.size)
        self._by_name = {section.name: section for section in reversed(self.sections)}

    def pread(self, size: int, offset: int) -> bytes:
        """Return at most *size* bytes of the file at *offset*."""
        if self._data is not None:
            return self._data[offset : offset + size]
        if offset < 0 or offset >= 1 << 63:
            return b""
        return os.pread(self._fd, size, offset)

    def close(self) -> None:
        """Close the file. A second close does nothing."""
        descriptor, self._fd = self._fd, -1
        if descriptor >= 0:
            os.close(descriptor)

    # -- sections --------------------------------------------------------------------------------------------------

    def section(self, name: str) -> Section | None:
        """Return the first section *name*; ``.debug_x`` is also found as ``.zdebug_x``."""
        found = self._by_name.get(name)
        if found is None and name.startswith(".debug_"):
            found = self._by_name.get(f".z{name[1:]}")
        return found

    def plain(self, section: Section) -> bool:
        """Whether the section's bytes are those in the file: neither compressed nor to be relocated."""
        packed = section.flags & SHF_COMPRESSED or section.name.startswith(".zdebug_")
        return not packed and not (self.type == ET_REL and self._relocations(section))

    def content(self, section: Section | str, limit: int = MAX_SECTION) -> bytes:
        """Return the bytes of a section, uncompressed and relocated; b"" of one that is not there.

        :raises FormatError: it lies outside the file, or has more than *limit* bytes
        """
        found = self.section(section) if isinstance(section, str) else section
        if found is None:
            return b""
        self._check(found)
        if found.size > limit:
            raise FormatError(f"{self.path}: section {found.name} has an impossible size of {found.size} bytes")
        data = self.pread(found.size, found.offset)
        if found.flags & SHF_COMPRESSED:
            data = self._unpack(found, data, *_header(found, data, self.bits), limit)
        elif found.name.startswith(".zdebug_"):
            if data[:4] != b"ZLIB" or len(data) < 12:
                raise FormatError(f"{self.path}: section {found.name} is not compressed as its name says")
            data = self._unpack(found, data, 1, int.from_bytes(data[4:12], "big"), 12, limit)
        if self.type == ET_REL:
            data = self._relocated(found, data)
        return data

    def _check(self, section: Section) -> None:
        if section.type == SHT_NOBITS or section.offset + section.size > self.size:
            raise FormatError(f"{self.path}: section {section.name} lies outside the file: it is cut or damaged")

    def _unpack(self, section: Section, data: bytes, method: int, size: int, start: int, limit: int) -> bytes:
        if size > limit:
            raise FormatError(f"{self.path}: section {section.name} has an impossible size of {size} bytes")
        try:
            if method == 1:
                out = zlib.decompressobj().decompress(data[start:], size + 1)
            elif method == 2:
                import cramjam

                buffer = bytearray(size)
                count = cramjam.zstd.decompress_into(data[start:], buffer)
                out = bytes(buffer[:count])
            else:
                raise FormatError(f"{self.path}: section {section.name}: compression {method} is not known")
        except FormatError:
            raise
        except Exception as error:  # zlib.error, cramjam.DecompressionError
            raise FormatError(f"{self.path}: section {section.name} cannot be decompressed: {error}") from error
        if len(out) != size:
            raise FormatError(f"{self.path}: section {section.name} has not the size that it says")
        return out

    def _relocations(self, section: Section) -> list[Section]:
        kind = SHT_RELA if self.bits == 64 else SHT_REL
        return [found for found in self.sections if found.type == kind and found.info == section.number
                and found.number]

    def _relocated(self, section: Section, data: bytes) -> bytes:
        """Return *data* with the relocations of an object file applied; those for other machines are left alone."""
        tables = self._relocations(section)
        if not tables or self.machine not in (EM_X86_64, EM_386):
            return data
        widths = RELOCATIONS if self.bits == 64 else RELOCATIONS_386
        out = bytearray(data)
        bases = {found.number: found.address for found in self.sections}
        for table in tables:
            if not table.link < len(self.sections):
                raise FormatError(f"{self.path}: section {table.name} names no symbol table")
            symbols = list(iter_symbols(self.content(self.sections[table.link]), self.bits))
            for offset, kind, number, addend in self._relocation_rows(self.content(table)):
                width = widths.get(kind)
                if width is None or offset + width > len(out) or number >= len(symbols):
                    continue
                if addend is None:  # it lies where the sum goes
                    addend = int.from_bytes(out[offset : offset + width], "little")
                _, _, _, home, value, _ = symbols[number]
                value = (bases.get(home, 0) + value + addend) % (1 << 8 * width)
                out[offset : offset + width] = value.to_bytes(width, "little")
        return bytes(out)

    def _relocation_rows(self, rows: bytes) -> Iterator[tuple[int, int, int, int | None]]:
        """Yield (offset, type, number of the symbol, addend) of each row of a table of relocations."""
        if self.bits == 64:
            for offset, info, addend in RELA.iter_unpack(rows[: len(rows) // RELA.size * RELA.size]):
                yield offset, info & 0xFFFF_FFFF, info >> 32, addend
        else:
            for offset, info in REL32.iter_unpack(rows[: len(rows) // REL32.size * REL32.size]):
                yield offset, info & 0xFF, info >> 8, None

    # -- what it says of itself ------------------------------------------------------------------------------------

    @property
    def build_id(self) -> str | None:
        """The build id in hexadecimal: a vmlinux has it in .notes, among Xen's of the same type; others alone."""
        for name in (".notes", ".note.gnu.build-id"):
            section = self.section(name)
            if section is None or section.type == SHT_NOBITS:
                continue
            found = build_id_of(self.content(section, 1 << 20))
            if found is not None:
                return found
        for segment in self.segments:  # stripped of its section headers
            if segment.type == PT_NOTE:
                found = build_id_of(self.pread(min(segment.filesz, 1 << 16), segment.offset))
                if found is not None:
                    return found
        return None

    def describe(self) -> str:
        """Return what kind of ELF file it is, in two or three words."""
        if self.type == ET_DYN and self.section(".interp") is not None:
            return "executable (position-independent)"
        if self.type == ET_REL and self.section(".modinfo") is not None:
            return "kernel module"
        return TYPES.get(self.type, f"ELF file of type {self.type}")

    def loads(self) -> Iterator[Segment]:
        """Yield the segments that are loaded."""
        return (segment for segment in self.segments if segment.type == PT_LOAD)


def iter_symbols(data: bytes, bits: int) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Return (st_name, st_info, st_other, st_shndx, st_value, st_size) of each row of a symbol table."""
    if bits == 64:
        return SYM.iter_unpack(data[: len(data) // SYM.size * SYM.size])
    rows = SYM32.iter_unpack(data[: len(data) // SYM32.size * SYM32.size])
    return ((name, info, other, home, value, size) for name, value, size, info, other, home in rows)


def build_id_of(notes: bytes) -> str | None:
    """Return the build id among *notes*, in hexadecimal, or None."""
    found = (note.desc.hex() for note in iter_notes(notes) if note.name == "GNU" and note.type == NT_GNU_BUILD_ID)
    return next(found, None)


def _header(section: Section, data: bytes, bits: int) -> tuple[int, int, int]:
    """Return (compression, size, where the data begins) of a compressed section."""
    layout = CHDR if bits == 64 else CHDR32
    if len(data) < layout.size:
        raise FormatError(f"section {section.name} is too short to be compressed")
    found = layout.unpack_from(data)
    return found[0], found[2] if bits == 64 else found[1], layout.size


def _placed(sections: list[Section], size: int) -> list[Section]:
    """Give the sections of an object file addresses, for it has none: those of the file, and what has no bytes there
    one behind the other at its end.
    """
    placed: list[Section] = []
    end = -(-size // 4096) * 4096
    for section in sections:
        if section.flags & SHF_ALLOC and section.address == 0:
            if section.type != SHT_NOBITS:
                section = section._replace(address=section.offset)
            elif section.size < 1 << 40:
                align = section.align if 0 < section.align <= 4096 else 1
                start = -(-end // align) * align
                section, end = section._replace(address=start), start + section.size
        placed.append(section)
    return placed


def _section(number: int, found: Any) -> Section:
    header = found.header
    kind = header["sh_type"]
    if isinstance(kind, str):
        kind = {"SHT_NOBITS": SHT_NOBITS, "SHT_RELA": SHT_RELA, "SHT_REL": SHT_REL, "SHT_NULL": 0, "SHT_SYMTAB": 2,
                "SHT_DYNSYM": 11, "SHT_NOTE": 7, "SHT_PROGBITS": 1}.get(kind, 0x7FFF_FFFF)
    return Section(number, found.name, kind, header["sh_flags"], header["sh_addr"], header["sh_offset"],
                   header["sh_size"], header["sh_link"], header["sh_info"], header["sh_addralign"])


def _segment(header: Any) -> Segment:
    kind = header["p_type"]
    if isinstance(kind, str):
        kind = {"PT_LOAD": PT_LOAD, "PT_DYNAMIC": PT_DYNAMIC, "PT_NOTE": PT_NOTE}.get(kind, 0)
    return Segment(kind, header["p_flags"], header["p_offset"], header["p_vaddr"], header["p_filesz"],
                   header["p_memsz"])
