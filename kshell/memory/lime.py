"""LiME images, and AVML's that are not compressed: one header and the bytes of a run of memory after the other.

LiME: doc/README.md and src/lime.h, ``lime_mem_range_header`` (magic, version 1, first and last address).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from kshell.arch.x86_64 import X86_64
from kshell.errors import FormatError, OpenError, Reason
from kshell.memory.file import open_file, size_of
from kshell.memory.fileimage import FileImage
from kshell.memory.segments import Piece, Segments
from kshell.memory.source import FileSource

HEADER = struct.Struct("<IIQQQ")
LIME, AVML = 0x4C694D45, 0x4C4D5641
MAX_RUNS = 1 << 20


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
            found = read_header(source, at)
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


def read_header(source: FileSource, at: int) -> Header | str:
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


def open_lime(path: str, mode: str = "r") -> Lime:
    """Open a LiME image, or an AVML image that is not compressed; mode "r" or "r+".

    :raises OpenError: it is none, or may not be read or written
    """
    return Lime(path, open_file(path, mode), writable=mode == "r+")
