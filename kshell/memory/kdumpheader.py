"""The headers of a kdump-compressed dump, versions 1 to 6: what they tell, and what in them cannot be true.

makedumpfile: diskdump_mod.h (``struct disk_dump_header``, ``kdump_sub_header``) and IMPLEMENTATION. Each version added
fields at the end of the sub-header; of an older one those are not looked at.
"""

from __future__ import annotations

import struct

from kshell.arch.model import MACHINES, Arch, arch_of_machine
from kshell.errors import OpenError
from kshell.memory.codecs import CODECS, INCOMPLETE
from kshell.memory.notes import Note, iter_notes
from kshell.memory.source import Source

SIGNATURES = (b"KDUMP   ", b"DISKDUMP")
HEADER = struct.Struct("<8si390s6x16sIiiIIIIII")
#: phys_base, dump_level, split, start_pfn, end_pfn, offset and size of VMCOREINFO, notes and erase info, then in
#: version 6 start_pfn_64, end_pfn_64, max_mapnr_64
SUB_HEADER = struct.Struct("<Qii11Q")
MAX_BITMAPS = 4 << 30  # bytes of both: 64 TiB of 4 KiB pages
MAX_PART = 64 << 20  # bytes of VMCOREINFO, notes or erase info
MAX_SUB_BLOCKS = 1 << 20
#: what makedumpfile's dump levels leave out, by bit
LEVELS = {1: "pages of zeroes", 2: "page cache", 4: "page cache with private data", 8: "user memory", 16: "free pages"}

#: what QEMU writes for a machine's name where it does not know its own (dump/dump.c, ELF_MACHINE_UNAME): QEMU 10 always
NAMELESS = ("", "Unknown")
#: what only this architecture's kernel writes into VMCOREINFO (arch_crash_save_vmcoreinfo: arch/x86/kernel/
#: vmcore_info_64.c, arch/arm64/kernel/vmcore_info.c, arch/riscv/kernel/vmcore_info.c)
TOLD_BY_VMCOREINFO = {
    b"NUMBER(phys_base)=": "x86_64", b"NUMBER(kimage_voffset)=": "aarch64", b"NUMBER(va_kernel_pa_offset)=": "riscv",
}
#: sizeof(struct elf_prstatus), of little-endian machines
TOLD_BY_PRSTATUS = {336: "x86_64", 392: "aarch64", 376: "riscv"}


class KdumpHeader:
    """What the headers tell.

    :ivar names: the six fields of uname, 65 bytes each
    :ivar status: codec bits, and whether makedumpfile gave up
    :ivar frames: page frames that the bitmaps speak of
    :ivar first: of one part of a split dump, the first frame it has pages of; ``last`` is behind the last
    :ivar bitmaps: offset of the first bitmap; the second is ``bitmap_size`` bytes behind it, 0 where there is but one;
        ``table`` is the offset of descriptors
    :ivar damage: what is told and cannot be had
    :ivar arch_by: what told the architecture, "" where the header names it
    """

    def __init__(self, version: int, names: bytes, stamp: bytes, status: int, arch: Arch, page: int) -> None:
        self.version, self.names, self.stamp, self.status, self.arch, self.page = (
            version, names, stamp, status, arch, page)
        self.frames = self.phys_base = self.level = self.first = self.last = 0
        self.bitmaps = self.bitmap_size = self.table = 0
        self.split = False
        self.vmcoreinfo: bytes | None = None
        self.notes: list[Note] = []
        self.erased = b""
        self.damage: list[str] = []
        self.arch_by = ""

    @property
    def incomplete(self) -> bool:
        """Whether makedumpfile says that it could not write all of it."""
        return bool(self.status & INCOMPLETE)

    @property
    def codec(self) -> str:
        """The codec of its pages as the header has it, "" when it tells none."""
        return CODECS.get(self.status & ~INCOMPLETE, "")

    def level_text(self) -> str:
        """Return the dump level with what it leaves out; "" when it is not known."""
        if not 0 < self.level < 32:
            return f"{self.level} (unknown)" if self.level else ""
        return f"{self.level} (leaves out {', '.join(word for bit, word in LEVELS.items() if self.level & bit)})"


def read_kdump_header(path: str, source: Source) -> KdumpHeader:
    """Return the headers at the beginning of *source*.

    :raises OpenError: they are none, or the dump cannot be read by them
    """
    data = source.pread(HEADER.size, 0)
    if len(data) < HEADER.size:
        raise OpenError(path, f"the file ends inside its header, at 0x{len(data):x}", kind="header")
    magic, version, names, stamp, status, block, sub_blocks, bitmap_blocks, max_mapnr, *_ = HEADER.unpack(data)
    if magic not in SIGNATURES:
        raise OpenError(path, f"not a kdump-compressed dump (magic {magic!r} at 0x0)")
    if not 1 <= version <= 6:
        raise OpenError(path, f"kdump header version {version} at 0x8: versions 1 to 6 are known", kind="version")
    machine = names[260:325].split(b"\0", 1)[0].decode("ascii", "replace")
    arch = arch_of_machine(MACHINES[62] if machine in NAMELESS else machine)
    if block != arch.page_size or not 0 < sub_blocks < MAX_SUB_BLOCKS or bitmap_blocks == 0:
        why = (f"impossible header: pages of {block} bytes (at 0x1ac), {sub_blocks} sub-header and {bitmap_blocks} "
               "bitmap blocks (at 0x1b0)")
        raise OpenError(path, why, kind="header")
    header = KdumpHeader(version, names, stamp, status, arch, block)
    sub = source.pread(SUB_HEADER.size, block).ljust(SUB_HEADER.size, b"\0")
    (header.phys_base, level, split, first, last, info_at, info_size, notes_at, notes_size, erased_at, erased_size,
     first_64, last_64, max_mapnr_64) = SUB_HEADER.unpack(sub)
    header.level = level if version >= 1 else 0
    header.split = version >= 2 and split != 0
    if version >= 6:
        max_mapnr = max_mapnr_64 or max_mapnr
        first, last = first_64, last_64
    _place_bitmaps(path, source, header, (1 + sub_blocks) * block, bitmap_blocks * block, max_mapnr)
    header.first, header.last = (first, min(last, header.frames)) if header.split else (0, header.frames)
    if header.first > header.last:
        raise OpenError(path, f"a part of a split dump from frame 0x{first:x} to 0x{last:x}: damaged", kind="header")
    if version >= 3:
        header.vmcoreinfo = _part(source, header, "VMCOREINFO", info_at, info_size) or None
    if version >= 4:
        header.notes = list(iter_notes(_part(source, header, "notes", notes_at, notes_size)))
    if version >= 5:
        header.erased = _part(source, header, "erase info", erased_at, erased_size)
    if machine in NAMELESS:
        _find_arch(path, header, machine)
    return header


def _find_arch(path: str, header: KdumpHeader, machine: str) -> None:
    """Note the architecture of a dump whose header does not name it.

    :raises OpenError: it is not one that kshell reads, or nothing tells it
    """
    lines = (header.vmcoreinfo or b"").splitlines()
    by_info = next((name for start, name in TOLD_BY_VMCOREINFO.items()
                    if any(line.startswith(start) for line in lines)), None)
    by_notes = next((TOLD_BY_PRSTATUS.get(len(note.desc)) for note in header.notes
                     if (note.name, note.type) == ("CORE", 1)), None)
    found = by_info or by_notes
    if found is None and machine:
        raise OpenError(path, f"its header calls the machine {machine} (at 0x110), and neither VMCOREINFO nor notes "
                        "of registers tell which it is", kind="unsupported",
                        hint="QEMU's dump in ELF format names the machine")
    header.arch = arch_of_machine(found or MACHINES[62])
    by = "VMCOREINFO" if by_info else "the size of the CPUs' notes" if by_notes else ""
    header.arch_by = f"{f'told by {by}' if by else 'taken for granted'}; the header has {machine or 'nothing'}"


def _place_bitmaps(path: str, source: Source, header: KdumpHeader, at: int, size: int, max_mapnr: int) -> None:
    """Note where the bitmaps are. They are read later, so all there is to see is that the file reaches that far."""
    if size > MAX_BITMAPS or not 0 < max_mapnr <= size * 8:
        raise OpenError(path, f"impossible bitmaps at 0x{at:x}: {size} bytes for {max_mapnr} pages", kind="header")
    if not source.pread(1, at + size - 1):
        damage = getattr(source, "damage", "")  # of a flattened file
        raise OpenError(path, f"the file ends inside its bitmaps (at 0x{at:x} to 0x{at + size:x})"
                        f"{f'; {damage}' if damage else ''}", kind="header")
    header.bitmaps, header.frames, header.table = at, max_mapnr, at + size
    # Where there is room for one only, as diskdump wrote it, that is of the pages held: so say crash (diskdump.c,
    # dump_is_partial) and libkdumpfile.
    needed = -(-max_mapnr // (8 * header.page)) * header.page
    header.bitmap_size = size // 2 if size >= 2 * needed else 0


def _part(source: Source, header: KdumpHeader, what: str, at: int, size: int) -> bytes:
    """Return a part that the sub-header tells of; what cannot be had is noted and costs that part only."""
    if size == 0:
        return b""
    data = source.pread(size, at) if size <= MAX_PART and at < 1 << 63 else b""
    if len(data) < size:
        header.damage.append(f"{what} ({size} bytes at 0x{at:x}, past the end of the file)" if size <= MAX_PART
                             else f"{what} (of impossible {size} bytes at 0x{at:x})")
    return data
