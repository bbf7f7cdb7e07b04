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
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kshell.arch.model import MACHINES, arch_of_machine
from kshell.errors import Fault, FormatError, OpenError, Reason
from kshell.memory.codecs import CODEC_BITS, CODECS
from kshell.memory.image import Image
from kshell.memory.model import Gathered, Range, Window, merge_ranges
from kshell.memory.notes import Note, iter_notes
from kshell.memory.pages import DESCRIPTOR, MANY, PageError, Pages
from kshell.memory.source import FLAT_MAGIC, FileSource, FlattenedSource, Source

if TYPE_CHECKING:
    from kshell.memory.model import Addresses

SIGNATURES = (b"KDUMP   ", b"DISKDUMP")
HEADER = struct.Struct("<8si390s6x16sIiiIIIIII")
SUB_HEADER = struct.Struct("<Qii10Q")  # phys_base, dump_level, split, start_pfn ... max_mapnr_64 (version 6)
MAX_BITMAP = 1 << 30  # a bit a page: 32 TiB of 4 KiB pages
MAX_NOTES = 64 << 20
BLOCK_BITS = 512  # pages for each entry of the rank index
MAX_READ = 16 << 20


class Kdump(Image):
    """The physical memory in a kdump-compressed dump. Made by :func:`open_kdump`."""

    space = "physical"

    def __init__(self, path: str, source: Source) -> None:
        self.path, self.source = path, source
        self.notes: list[Note] = []
        self.vmcoreinfo: bytes | None = None
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
        self.pages = Pages(self.source, self._descriptors, self.page)

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
            if flags & CODEC_BITS:
                return flags & CODEC_BITS
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

    def _run(self, frame: int, limit: int) -> int:
        """Return how many pages from *frame* on the dump holds without a gap, at most *limit*."""
        count = 0
        while count < limit:
            at = frame + count
            bits = int.from_bytes(self._held[at >> 3 : (at >> 3) + BLOCK_BITS // 8], "little") >> (at & 7)
            ones = (~bits & (bits + 1)).bit_length() - 1
            count += ones
            if ones == 0 or ones + (at & 7) < BLOCK_BITS:
                break
        return min(count, limit)

    def _absent(self, frame: int) -> tuple[Reason, str]:
        if self._bit(self._existing, frame) and frame < self.frames:
            return Reason.EXCLUDED, f"makedumpfile dump level {self.level}" if 0 < self.level < 64 else ""
        return Reason.OUTSIDE, ""

    def _load(self, frame: int) -> bytes:
        """Return the page *frame*.

        :raises PageError: it is not in the dump, or cannot be had
        """
        if not self._bit(self._held, frame):
            reason, detail = self._absent(frame)
            raise PageError(detail, reason)
        return self.pages.load(self._rank(frame))

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        parts: list[bytes] = []
        done = 0
        while done < size:
            at, want = address + done, min(size - done, MAX_READ)
            frame, inside = divmod(at, self.page)
            fault = None
            if inside + want <= self.page:
                try:
                    parts.append(self._load(frame)[inside : inside + want])
                except PageError as error:
                    fault = Fault(at, want, error.reason, space=self.space, detail=str(error))
            else:
                if want > MANY * self.page:  # a buffer for what is there, not for what is asked
                    want = max(min(want, self._run(frame, -(-want // self.page)) * self.page - inside), 1)
                buffer = bytearray(want)
                with memoryview(buffer) as view:
                    fault = self.read_into(at, view)
                parts.append(bytes(buffer) if fault is None else bytes(buffer[: fault.done]))
            if fault is not None:
                data = b"".join(parts)
                return data, Fault(fault.address, size, fault.reason, partial=data, space=self.space,
                                   detail=fault.detail)
            done += len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts), None

    def read_into(self, address: int, buffer: memoryview) -> Fault | None:
        done, size = 0, len(buffer)
        while done < size:
            frame, inside = divmod(address + done, self.page)
            try:
                if inside == 0 and size - done >= MANY * self.page:
                    run = self._run(frame, (size - done) // self.page)
                    if run >= MANY:
                        filled, failed = self.pages.fill(self._rank(frame), buffer[done : done + run * self.page])
                        done += filled * self.page
                        if failed is not None:
                            raise failed
                        continue
                piece = self._load(frame)[inside : inside + size - done]
            except PageError as error:
                return Fault(address + done, size, error.reason, done=done, space=self.space, detail=str(error))
            buffer[done : done + len(piece)] = piece
            done += len(piece)
        return None

    def read_many(self, addresses: Sequence[int], size: int) -> list[bytes | None]:
        self._prefetch(addresses)
        return super().read_many(addresses, size)

    def gather(self, addresses: Addresses, size: int) -> Gathered:
        self._prefetch([int(address) for address in addresses])
        return super().gather(addresses, size)

    def _prefetch(self, addresses: Sequence[int]) -> None:
        if len(addresses) >= MANY:
            frames = {address // self.page for address in addresses}
            self.pages.prefetch(self._rank(frame) for frame in frames if self._bit(self._held, frame))

    def window(self, address: int) -> Window | None:
        frame = address // self.page
        try:
            data = self._load(frame)
        except PageError:
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
        self.pages.close()
        self.source.close()


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
