"""The headers of a kdump-compressed dump, versions 1 to 6: what they tell, and what in them cannot be true.

makedumpfile: diskdump_mod.h (``struct disk_dump_header``, ``kdump_sub_header``) and IMPLEMENTATION. Each version added
fields at the end of the sub-header; of an older one those are not looked at.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

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


@dataclass
class KdumpHeader:
    """What the headers tell.

    :ivar names: the six fields of uname, 65 bytes each
    :ivar status: codec bits, and whether makedumpfile gave up
    :ivar frames: page frames that the bitmaps speak of
    :ivar first: of one part of a split dump, the first frame it has pages of; ``last`` is behind the last
    :ivar bitmaps: offset of the first bitmap; ``bitmap_size`` bytes of each; ``table`` is the offset of descriptors
    :ivar damage: what is told and cannot be had
    """

    version: int
    names: bytes
    stamp: bytes
    status: int
    arch: Arch
    page: int
    frames: int = 0
    phys_base: int = 0
    level: int = 0
    split: bool = False
    first: int = 0
    last: int = 0
    bitmaps: int = 0
    bitmap_size: int = 0
    table: int = 0
    vmcoreinfo: bytes | None = None
    notes: list[Note] = field(default_factory=list)
    erased: bytes = b""
    damage: list[str] = field(default_factory=list)

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
        raise OpenError(path, "the file ends inside its header", kind="header")
    magic, version, names, stamp, status, block, sub_blocks, bitmap_blocks, max_mapnr, *_ = HEADER.unpack(data)
    if magic not in SIGNATURES:
        raise OpenError(path, f"not a kdump-compressed dump (magic {magic!r})")
    if not 1 <= version <= 6:
        raise OpenError(path, f"kdump header version {version} at 0x8: versions 1 to 6 are known", kind="version")
    machine = names[260:325].split(b"\0", 1)[0].decode("ascii", "replace")
    arch = arch_of_machine(machine or MACHINES[62])
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
    return header


def _place_bitmaps(path: str, source: Source, header: KdumpHeader, at: int, size: int, max_mapnr: int) -> None:
    """Note where the bitmaps are. They are read later, so all there is to see is that the file reaches that far."""
    if size > MAX_BITMAPS or not 0 < max_mapnr <= size * 8:
        raise OpenError(path, f"impossible bitmaps at 0x{at:x}: {size} bytes for {max_mapnr} pages", kind="header")
    if not source.pread(1, at + size - 1):
        raise OpenError(path, f"the file ends inside its bitmaps (0x{at:x} to 0x{at + size:x})", kind="header")
    header.bitmaps, header.bitmap_size, header.table = at, size // 2, at + size
    header.frames = min(max_mapnr, size * 4)


def _part(source: Source, header: KdumpHeader, what: str, at: int, size: int) -> bytes:
    """Return a part that the sub-header tells of; what cannot be had is noted and costs that part only."""
    if size == 0:
        return b""
    data = source.pread(size, at) if size <= MAX_PART and at < 1 << 63 else b""
    if len(data) < size:
        header.damage.append(f"{what} ({size} bytes at 0x{at:x}, past the end of the file)" if size <= MAX_PART
                             else f"{what} (of impossible {size} bytes at 0x{at:x})")
    return data
