"""LiME and AVML images: one header and the bytes of a run of memory after the other.

LiME: doc/README.md and src/lime.h, ``lime_mem_range_header`` (magic, version 1, first and last address). AVML: an
image not compressed is LiME's; a compressed one has a magic of its own, version 2, and behind each header a stream in
snappy's framing format (google/snappy: framing_format.txt), then the number of bytes of the stream.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections import OrderedDict
from typing import NamedTuple

from kshell.arch.x86_64 import X86_64
from kshell.errors import FormatError, OpenError, Reason
from kshell.memory.codecs import framed_snappy
from kshell.memory.file import open_file, size_of
from kshell.memory.fileimage import FileImage
from kshell.memory.pieces import PieceMemory
from kshell.memory.segments import Piece, Segments
from kshell.memory.source import FileSource

HEADER = struct.Struct("<IIQQQ")
LIME, AVML = 0x4C694D45, 0x4C4D5641
MAX_RUNS = 1 << 20
MAX_CHUNK = 1 << 16  # bytes that a chunk of snappy's framing holds when it is decompressed
KEPT = 128  # decompressed chunks kept
WINDOW = 1 << 20
IDENTIFIER = b"\xff\x06\x00\x00sNaPpY"


class Lime(FileImage):
    """The physical memory in a LiME image, or an AVML one that is not compressed. Made by :func:`open_lime`."""

    def __init__(self, path: str, descriptor: int, *, writable: bool = False) -> None:
        """Take over *descriptor*, which is closed when this fails."""
        self.path, self._fd, self.arch = path, descriptor, X86_64()
        source = FileSource(path, descriptor)
        try:
            self._pieces, self._trouble = _lime_pieces(path, source, size_of(descriptor))
            super().__init__(path, descriptor, Segments(self._pieces), writable=writable)
        except BaseException:
            source.close()
            raise

    @property
    def complete(self) -> str | None:
        """What is missing because the file ends early, or is damaged."""
        return self._trouble

    def describe(self) -> str:
        """Return one line: format, runs, size of memory."""
        return (f"LiME image (x86_64, {len([p for p in self._pieces if not p.reason])} runs), "
                f"{self._segments.total() / (1 << 20):.0f} MiB of RAM")


def _lime_pieces(path: str, source: FileSource, size: int) -> tuple[list[Piece], str | None]:
    """Return what the headers tell, and what is wrong behind them."""
    pieces: list[Piece] = []
    at = 0
    while at < size:
        try:
            found = _header(source, at)
        except FormatError as error:  # the medium cannot be read there
            if not pieces:
                raise
            return pieces, f"{error}: what is behind it is not known"
        if isinstance(found, str) or found.magic != LIME or len(pieces) >= MAX_RUNS:
            why = found if isinstance(found, str) else "a header of another format"
            if not pieces:
                raise OpenError(path, f"not a LiME image: {why} at 0x{at:x}", kind="header")
            return pieces, f"damaged at 0x{at:x} ({why}): what is behind it is not read"
        at += HEADER.size
        held = min(found.end - found.start, size - at)
        pieces.append(Piece(found.start, found.start + held, at))
        if held < found.end - found.start:
            pieces.append(Piece(found.start + held, found.end, 0, Reason.TRUNCATED))
            lost = found.end - found.start - held
            return pieces, f"the file ends early: {lost} bytes of memory ({lost / (1 << 20):.1f} MiB) missing"
        at += held
    return pieces, None


class Header(NamedTuple):
    """A header: memory from ``start`` up to and without ``end``."""

    magic: int
    start: int
    end: int


def _header(source: FileSource, at: int) -> Header | str:
    """Return the header at the offset *at*, or what is wrong with it."""
    data = source.pread(HEADER.size, at)
    if len(data) < HEADER.size:
        return "a header that is cut"
    if not any(data):
        return "zeroes, as behind the end of an image on a block device"
    magic, version, start, last, _ = HEADER.unpack(data)
    if (magic, version) not in ((LIME, 1), (AVML, 2)):
        return f"magic 0x{magic:x}, version {version}"
    if last < start or last - start > 1 << 56:
        return f"an impossible run of memory, 0x{start:x} to 0x{last:x}"
    return Header(magic, start, last + 1)


class AvmlSource:
    """The streams of a compressed AVML image as if decompressed, one behind the other: an index of their chunks."""

    def __init__(self, below: FileSource) -> None:
        self.below = below
        self.size = 0
        self._starts, self._places = array("Q"), array("Q")
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    def add(self, at: int, size: int) -> tuple[int, str | None]:
        """Index the stream at *at* that holds *size* bytes; return the offset behind it, and what is wrong with it."""
        end = self.size + size
        window, base = b"", 0
        while self.size < end:
            if not base <= at <= base + len(window) - 16:
                try:
                    window, base = self.below.pread(WINDOW, at), at
                except FormatError as error:  # it may give what is before the place that cannot be read
                    try:
                        window, base = self.below.pread(16, at), at
                    except FormatError:
                        return at, str(error)
            head = window[at - base : at - base + 16]
            if len(head) < 4:
                return at, "the file ends early"
            kind, length = head[0], int.from_bytes(head[1:4], "little")
            if kind == 0:
                count = _varint(head[8:])
            elif kind == 1:
                count = length - 4
            elif kind >= 0x80:  # the identifier, padding, and what may be skipped
                count = 0
            else:
                return at, f"a chunk of the unknown type 0x{kind:x} at 0x{at:x}"
            if kind <= 1 and not (0 < count <= MAX_CHUNK and 4 < length <= MAX_CHUNK + (1 << 14)):
                return at, f"a chunk of impossible size at 0x{at:x}"
            if kind <= 1:
                if at + 4 + length > self.below.size:
                    return at, "the file ends early"
                self._starts.append(self.size)
                self._places.append(at)
                self.size += count
            at += 4 + length
        return at, None if self.size == end else f"a stream that is longer than its memory, before 0x{at:x}"

    def pread(self, size: int, offset: int) -> bytes:
        """As of the streams decompressed.

        :raises FormatError: a chunk cannot be decompressed
        """
        parts: list[bytes] = []
        while size > 0 and 0 <= offset < self.size:
            number = bisect_right(self._starts, offset) - 1
            chunk = self._chunk(number)
            part = chunk[offset - self._starts[number] :][:size]
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)

    def _chunk(self, number: int) -> bytes:
        found = self._kept.get(number)
        if found is None:
            place = self._places[number]
            head = self.below.pread(4, place)
            data = head + self.below.pread(int.from_bytes(head[1:4], "little"), place + 4)
            following = self._starts[number + 1] if number + 1 < len(self._starts) else self.size
            found = framed_snappy(IDENTIFIER + data, following - self._starts[number], place)
            self._kept[number] = found
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(number)
        return found

    def changed(self) -> str | None:
        return self.below.changed()

    def key(self) -> str | None:
        """Return the key of the file's content, None when nothing found in it may be kept."""
        return self.below.key()

    def close(self) -> None:
        self._kept.clear()
        self.below.close()


def _varint(data: bytes) -> int:
    value = 0
    for number, byte in enumerate(data[:5]):
        value |= (byte & 0x7F) << 7 * number
        if byte < 0x80:
            return value
    return -1


class Avml(PieceMemory):
    """The physical memory in a compressed AVML image, decompressed as it is read. Made by :func:`open_avml`."""

    def __init__(self, path: str, below: FileSource) -> None:
        source = AvmlSource(below)
        self.arch = X86_64()
        self._trouble: str | None = None
        super().__init__(path, source, Segments(self._runs(path, source)))
        self.damage = self._trouble or ""

    def _runs(self, path: str, source: AvmlSource) -> list[Piece]:
        pieces: list[Piece] = []
        at, size = 0, source.below.size
        while at < size and self._trouble is None:
            try:
                found = _header(source.below, at)
            except FormatError as error:
                if not pieces:
                    raise
                self._trouble = f"{error}: what is behind it is not known"
                break
            if isinstance(found, str) or found.magic != AVML or len(pieces) >= MAX_RUNS:
                why = found if isinstance(found, str) else "a header of another format"
                if not pieces:
                    raise OpenError(path, f"not an AVML image: {why} at 0x{at:x}", kind="header")
                self._trouble = f"damaged at 0x{at:x} ({why}): what is behind it is not read"
                break
            begun = source.size
            at, trouble = source.add(at + HEADER.size, found.end - found.start)
            held = min(source.size - begun, found.end - found.start)
            pieces.append(Piece(found.start, found.start + held, begun))
            if trouble is not None:
                early = trouble == "the file ends early"
                pieces.append(Piece(found.start + held, found.end, 0, Reason.TRUNCATED if early else Reason.IO))
                self._trouble = f"{trouble}: what is behind it is not read"
            at += 8  # how many bytes the stream has
        return pieces

    @property
    def complete(self) -> str | None:
        """What is missing because the file ends early, or is damaged."""
        return self._trouble

    def describe(self) -> str:
        """Return one line: format, size of memory."""
        return f"AVML image (x86_64, snappy), {self._segments.total() / (1 << 20):.0f} MiB of RAM"


def open_lime(path: str, mode: str = "r") -> Lime:
    """Open a LiME image, or an AVML image that is not compressed; mode "r" or "r+".

    :raises OpenError: it is none, or may not be read or written
    """
    return Lime(path, open_file(path, mode), writable=mode == "r+")


def open_avml(path: str, mode: str = "r") -> Avml:
    """Open a compressed AVML image.

    :raises OpenError: it is none, may not be read, or was to be opened for writing
    """
    if mode == "r+":
        raise OpenError(path, "a compressed image cannot be written in place", kind="permission",
                        hint="--cow keeps writes in memory instead")
    below = FileSource(path, open_file(path))
    try:
        return Avml(path, below)
    except FormatError as error:
        below.close()
        raise OpenError(path, str(error).removeprefix(f"{path}: "), kind="header") from error
    except BaseException:
        below.close()
        raise
