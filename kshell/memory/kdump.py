"""kdump-compressed dumps: pages compressed one by one behind two bitmaps, as makedumpfile and QEMU write them.

makedumpfile: diskdump_mod.h (``struct disk_dump_header``, ``kdump_sub_header``, ``page_desc``) and IMPLEMENTATION. The
first bitmap says which pages exist, the second which are in the dump, so *outside RAM* and *excluded* are told apart.
Read only: a page that changes need not fit where it was.
"""

from __future__ import annotations

import errno
import os
import struct
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kshell.arch.model import MACHINES, arch_of_machine
from kshell.errors import Fault, FormatError, OpenError, Reason
from kshell.memory.model import Memory, Range, Window, merge_ranges
from kshell.memory.notes import Note, iter_notes
from kshell.memory.source import FLAT_MAGIC, FileSource, FlattenedSource, Source

SIGNATURES = (b"KDUMP   ", b"DISKDUMP")
HEADER = struct.Struct("<8si390s6x16sIiiIIIIII")
SUB_HEADER = struct.Struct("<Qii10Q")  # phys_base, dump_level, split, start_pfn ... max_mapnr_64 (version 6)
DESCRIPTOR = struct.Struct("<qIIQ")
ZLIB, LZO, SNAPPY, INCOMPLETE, ZSTD = 1, 2, 4, 8, 0x20
CODECS = {ZLIB: "zlib", LZO: "lzo", SNAPPY: "snappy", ZSTD: "zstd"}
MAX_BITMAP = 1 << 30  # a bit a page: 32 TiB of 4 KiB pages
MAX_NOTES = 64 << 20
BLOCK_BITS = 512  # pages for each entry of the rank index
CACHED_PAGES = 2048

Decoder = Callable[[bytes, int], bytes]


class Descriptor(NamedTuple):
    """Where a page lies, how long it is there, and how it is compressed."""

    offset: int
    size: int
    flags: int


class Kdump(Memory):
    """The physical memory in a kdump-compressed dump. Made by :func:`open_kdump`."""

    space = "physical"

    def __init__(self, path: str, source: Source) -> None:
        self.path, self.source = path, source
        self.notes: list[Note] = []
        self.vmcoreinfo: bytes | None = None
        self._pages: OrderedDict[int, bytes] = OrderedDict()
        self._decoders: dict[int, Decoder] = {}
        self._ranks: array[int] | None = None
        self._read_headers()

    # -- headers ---------------------------------------------------------------------------------------------------

    def _must(self, size: int, offset: int, what: str) -> bytes:
        data = self.source.pread(size, offset)
        if len(data) < size:
            raise OpenError(self.path, f"the file ends inside its {what}", kind="header")
        return data

    def _read_headers(self) -> None:
        (magic, version, names, _, status, block, sub_blocks, bitmap_blocks, max_mapnr, *_
         ) = HEADER.unpack(self._must(HEADER.size, 0, "header"))
        if magic not in SIGNATURES:
            raise OpenError(self.path, f"not a kdump-compressed dump (magic {magic!r})")
        if not 1 <= version <= 6:
            raise OpenError(self.path, f"kdump header version {version}: versions 1 to 6 are known", kind="version")
        machine = names[260:325].split(b"\0", 1)[0].decode("ascii", "replace")
        self.arch = arch_of_machine(machine or MACHINES[62])
        if block != self.arch.page_size or not 0 < sub_blocks < 1 << 20 or bitmap_blocks == 0:
            why = f"impossible header: pages of {block} bytes, {bitmap_blocks} bitmap blocks"
            raise OpenError(self.path, why, kind="header")
        self.version, self.status, self.page = version, status, block
        sub = self.source.pread(SUB_HEADER.size, block).ljust(SUB_HEADER.size, b"\0")
        (self.phys_base, self.level, split, _, _, info_at, info_size, notes_at, notes_size, _, _, self.first, self.last,
         max_mapnr_64) = (*SUB_HEADER.unpack(sub), 0)[:14]
        if version >= 6 and max_mapnr_64:
            max_mapnr = max_mapnr_64
        if split:
            raise OpenError(self.path, "one part of a split dump: not read yet", kind="unsupported",
                            hint="put the parts together with makedumpfile --reassemble")
        self._read_bitmaps((1 + sub_blocks) * block, bitmap_blocks * block, max_mapnr)
        if version >= 3 and 0 < info_size <= MAX_NOTES:
            self.vmcoreinfo = self._must(info_size, info_at, "VMCOREINFO")
        if version >= 4 and 0 < notes_size <= MAX_NOTES:
            self.notes = list(iter_notes(self._must(notes_size, notes_at, "notes")))

    def _read_bitmaps(self, at: int, size: int, max_mapnr: int) -> None:
        if size > MAX_BITMAP or max_mapnr > size * 8:
            raise OpenError(self.path, f"impossible bitmaps: {size} bytes for {max_mapnr} pages", kind="header")
        data = self._must(size, at, "bitmaps")
        self._existing, self._held = data[: size // 2], data[size // 2 :]
        self.frames = min(max_mapnr, size * 4)
        self._descriptors = at + size

    @property
    def complete(self) -> str | None:
        """What is missing because the dump was cut short; None when it is whole."""
        if isinstance(self.source, FlattenedSource) and not self.source.complete:
            return "the file ends early: the flattened dump has no end mark"
        count = int.from_bytes(self._held, "little").bit_count()
        if len(self.source.pread(DESCRIPTOR.size, self._descriptors + DESCRIPTOR.size * (count - 1))) < DESCRIPTOR.size:
            return "the file ends early: inside its table of pages"
        return None

    def describe(self) -> str:
        """Return one line: format, codec, size of RAM and how much of it is in the file."""
        total = int.from_bytes(self._existing, "little").bit_count() * self.page
        held = int.from_bytes(self._held, "little").bit_count() * self.page
        flat = "flattened " if isinstance(self.source, FlattenedSource) else ""
        level = f", dump level {self.level}" if self.version >= 2 and 0 < self.level < 64 else ""
        return (f"{flat}kdump-compressed dump ({self.arch.name}, {CODECS.get(self._first_flags(), 'uncompressed')}), "
                f"{total / (1 << 20):.0f} MiB of RAM, {held / (1 << 20):.0f} MiB of it held{level}")

    def _first_flags(self) -> int:
        """Return the codec of the first page that is compressed, of the first few."""
        data = self.source.pread(DESCRIPTOR.size * 64, self._descriptors)
        for at in range(0, len(data) - DESCRIPTOR.size + 1, DESCRIPTOR.size):
            flags = int(DESCRIPTOR.unpack_from(data, at)[2])
            if flags & sum(CODECS):
                return flags & sum(CODECS)
        return 0

    # -- pages -----------------------------------------------------------------------------------------------------

    def _bit(self, bitmap: bytes, frame: int) -> bool:
        return frame >> 3 < len(bitmap) and bool(bitmap[frame >> 3] >> (frame & 7) & 1)

    def _rank(self, frame: int) -> int:
        """Return how many held pages come before *frame*: the number of its descriptor."""
        if self._ranks is None:
            step, count = BLOCK_BITS // 8, 0
            self._ranks = array("Q", [0])
            for at in range(0, len(self._held), step):
                count += int.from_bytes(self._held[at : at + step], "little").bit_count()
                self._ranks.append(count)
        start = frame // BLOCK_BITS
        bits = int.from_bytes(self._held[start * BLOCK_BITS // 8 : (frame >> 3) + 1], "little")
        return self._ranks[start] + (bits & ((1 << frame % BLOCK_BITS) - 1)).bit_count()

    def _load(self, frame: int) -> bytes:
        """Return the page *frame*.

        :raises FormatError: it cannot be decompressed, or lies outside the file; the message says which
        """
        found = self._pages.get(frame)
        if found is not None:
            self._pages.move_to_end(frame)
            return found
        raw = self.source.pread(DESCRIPTOR.size, self._descriptors + DESCRIPTOR.size * self._rank(frame))
        if len(raw) < DESCRIPTOR.size:
            raise FormatError("its descriptor is past the end of the file")
        descriptor = Descriptor(*DESCRIPTOR.unpack(raw)[:3])
        if descriptor.flags & INCOMPLETE or descriptor.offset == 0:
            raise FormatError("makedumpfile ran out of room before it wrote this page")
        if not 0 < descriptor.size <= self.page:
            raise FormatError(f"its descriptor has an impossible size of {descriptor.size} bytes")
        data = self.source.pread(descriptor.size, descriptor.offset)
        if len(data) < descriptor.size:
            raise FormatError("its bytes are past the end of the file")
        codec = descriptor.flags & sum(CODECS)
        if codec:
            decoder = self._decoders.get(codec) or self._decoder(codec)
            try:
                data = decoder(data, self.page)
            except Exception as error:
                raise FormatError(f"{CODECS.get(codec, codec)}: {error}") from error
        if len(data) != self.page:
            raise FormatError(f"it decompresses to {len(data)} bytes instead of {self.page}")
        self._pages[frame] = data
        if len(self._pages) > CACHED_PAGES:
            self._pages.popitem(last=False)
        return data

    def _decoder(self, codec: int) -> Decoder:
        found = self._decoders[codec] = decoder_of(codec)
        return found

    def _absent(self, frame: int) -> tuple[Reason, str]:
        if self._bit(self._existing, frame) and frame < self.frames:
            return Reason.EXCLUDED, f"makedumpfile dump level {self.level}" if 0 < self.level < 64 else ""
        return Reason.OUTSIDE, ""

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        parts: list[bytes] = []
        done = 0
        while done < size:
            at = address + done
            frame, inside = divmod(at, self.page)
            reason, detail = Reason.CORRUPT, ""
            if not self._bit(self._held, frame):
                reason, detail = self._absent(frame)
            else:
                try:
                    page = self._load(frame)
                except FormatError as error:
                    early = "end of the file" in str(error) or "ran out" in str(error)
                    reason, detail = Reason.TRUNCATED if early else Reason.IO, str(error)
                else:
                    part = page[inside : inside + size - done]
                    parts.append(part)
                    done += len(part)
                    continue
            data = b"".join(parts)
            return data, Fault(at, size, reason, partial=data, space=self.space, detail=detail)
        return b"".join(parts), None

    def window(self, address: int) -> Window | None:
        frame = address // self.page
        if not self._bit(self._held, frame):
            return None
        try:
            data = self._load(frame)
        except FormatError:
            return None
        return Window(frame * self.page, (frame + 1) * self.page, memoryview(data))

    def ranges(self) -> Iterator[Range]:
        def rows() -> Iterator[Range]:
            for frame in range(min(self.frames, len(self._existing) * 8)):
                if self._bit(self._held, frame):
                    yield Range(frame * self.page, (frame + 1) * self.page)
                elif self._bit(self._existing, frame):
                    yield Range(frame * self.page, (frame + 1) * self.page, False, Reason.EXCLUDED)

        return merge_ranges(rows())

    def check(self) -> None:
        changed = self.source.changed()
        if changed is not None:
            raise FormatError(changed)

    def close(self) -> None:
        self._pages.clear()
        self.source.close()


def decoder_of(codec: int) -> Decoder:
    """Return the function (compressed, size) -> page of a codec; its library is imported now.

    :raises FormatError: no library here reads it
    """
    if codec == ZLIB:
        import zlib

        return lambda data, size: zlib.decompress(data, bufsize=size)
    try:
        if codec == LZO:
            from lzallright import LZOCompressor

            lzo = LZOCompressor()
            return lambda data, size: bytes(lzo.decompress(data, size))
        import cramjam
    except ImportError as error:
        name = "lzallright" if codec == LZO else "cramjam"
        raise FormatError(f"{CODECS[codec]} pages need the Python package {name}: pip install {name}") from error
    if codec == SNAPPY:
        return lambda data, size: bytes(cramjam.snappy.decompress_raw(data))
    if codec == ZSTD:
        return lambda data, size: bytes(cramjam.zstd.decompress(data))
    raise FormatError(f"pages are compressed in an unknown way (flags 0x{codec:x})")


def open_kdump(path: str, mode: str = "r") -> Kdump:
    """Open a kdump-compressed dump, flattened or not.

    :raises OpenError: it is none, it is damaged in its headers, or it was to be opened for writing
    """
    if mode == "r+":
        raise OpenError(path, "a compressed dump cannot be written in place", kind="permission",
                        hint="--cow keeps writes in memory instead")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        kind = "missing" if error.errno == errno.ENOENT else "permission"
        raise OpenError(path, f"cannot be opened: {error.strerror}", kind=kind) from error
    file = FileSource(path, descriptor)
    try:
        flat = file.pread(len(FLAT_MAGIC), 0) == FLAT_MAGIC
        return Kdump(path, FlattenedSource(file) if flat else file)
    except FormatError as error:
        file.close()
        raise OpenError(path, str(error), kind="header") from error
    except BaseException:
        file.close()
        raise
