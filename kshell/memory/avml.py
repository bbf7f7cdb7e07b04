"""Compressed AVML images: like LiME's, but behind each header a stream of compressed chunks.

They have a magic of their own and version 2; the stream is in snappy's framing format (google/snappy:
framing_format.txt), and behind it is the number of its bytes. One pass makes an index of the chunks, which is kept.

AVML (src/image.rs, ``copy_if_nonzero``) leaves out blocks of up to 16 MiB that are all zeroes: the file tells nothing
of them, so they are outside RAM here.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections import OrderedDict
from itertools import pairwise

from kshell import cache
from kshell.arch.x86_64 import X86_64
from kshell.errors import FormatError, OpenError, Reason
from kshell.memory.codecs import framed_snappy
from kshell.memory.file import open_file
from kshell.memory.lime import AVML, HEADER, MAX_RUNS, read_header
from kshell.memory.pieces import PieceMemory
from kshell.memory.segments import Piece, Segments
from kshell.memory.source import FileSource

MAX_CHUNK = 1 << 16  # bytes that a chunk of snappy's framing holds when it is decompressed
KEPT = 128  # decompressed chunks kept
WINDOW = 1 << 20
IDENTIFIER = b"\xff\x06\x00\x00sNaPpY"
KIND, VERSION = "avml", 1  # of the index in the cache
FACTS = struct.Struct("<2Q")  # size of the streams decompressed, number of chunks
PIECE = struct.Struct("<3Q")


class AvmlSource:
    """The streams of a compressed AVML image as if decompressed, one behind the other: an index of their chunks."""

    def __init__(self, below: FileSource) -> None:
        self.below = below
        self.size = 0
        self._starts: array[int] | memoryview[int] = array("Q")
        self._places: array[int] | memoryview[int] = array("Q")
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    def add(self, at: int, size: int) -> tuple[int, str | None]:
        """Index the stream at *at* that holds *size* bytes; return the offset behind it, and what is wrong with it."""
        end = self.size + size
        window, base = b"", 0
        starts, places = self._starts, self._places
        assert isinstance(starts, array) and isinstance(places, array)  # an index from the cache is whole
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
                starts.append(self.size)
                places.append(at)
                self.size += count
            at += 4 + length
        return at, None if self.size == end else f"a stream that is longer than its memory, before 0x{at:x}"

    def pack(self) -> list[bytes]:
        """Return the parts that :meth:`unpack` reads."""
        return [FACTS.pack(self.size, len(self._starts)), self._starts.tobytes(), self._places.tobytes()]

    def forget(self) -> None:
        """Have no index."""
        self.size, self._starts, self._places = 0, array("Q"), array("Q")

    def unpack(self, data: memoryview) -> memoryview:
        """Take the index at the start of *data*; return what follows it.

        :raises ValueError: it is longer than *data*
        """
        size, count = FACTS.unpack_from(data)
        at, end = FACTS.size, FACTS.size + 16 * count
        if end > len(data):
            raise ValueError("an index that is longer than its file")
        self.size = size
        self._starts, self._places = data[at : at + 8 * count].cast("Q"), data[at + 8 * count : end].cast("Q")
        return data[end:]

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

    packed = True

    def __init__(self, path: str, below: FileSource) -> None:
        source = AvmlSource(below)
        self.arch = X86_64()
        self._trouble: str | None = None
        key = below.key()
        pieces = _kept(key, source) if key is not None else None
        self.how = "from the cache"
        if pieces is None:
            self.how = "made in one pass"
            pieces = self._runs(path, source)
            if key is not None and self._trouble is None:
                cache.store(KIND, key, VERSION, *source.pack(), *(PIECE.pack(*piece[:3]) for piece in pieces))
        super().__init__(path, source, Segments(pieces))
        self.damage = self._trouble or ""

    def _runs(self, path: str, source: AvmlSource) -> list[Piece]:
        pieces: list[Piece] = []
        at, size = 0, source.below.size
        while at < size and self._trouble is None:
            try:
                found = read_header(source.below, at)
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

    def facts(self) -> dict[str, str]:
        """Return where the index of its chunks came from, and what of its gaps is not known."""
        told = [f"0x{one.end:x}-0x{other.start:x}" for one, other in pairwise(self.ranges()) if one.end < other.start]
        gaps = ", ".join(told[:4]) + (f" and {len(told) - 4} more" if len(told) > 4 else "")
        return {"index": self.how} | ({"gaps": f"{gaps}: no RAM, or zeroes that AVML left out"} if gaps else {})


def _kept(key: str, source: AvmlSource) -> list[Piece] | None:
    """Give *source* the index that is kept under *key*, and return the runs; None when there is none."""
    data = cache.load(KIND, key, VERSION)
    if data is None:
        return None
    try:
        pieces = [Piece(*row) for row in PIECE.iter_unpack(source.unpack(data))]
        if source.size and sum(piece.end - piece.start for piece in pieces) == source.size:
            return pieces
    except (ValueError, struct.error):
        pass
    source.forget()
    return None


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
