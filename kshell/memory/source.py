"""Where the bytes of an image format come from: a file, or a flattened file, read as if it had been put together.

makedumpfile's -F and QEMU's kdump formats write flattened: a header of 4096 bytes and then (offset, size, bytes)
records, big-endian, for a writer that cannot seek. makedumpfile.h: ``struct makedumpfile_header`` and
``makedumpfile_data_header``.
"""

from __future__ import annotations

import os
import struct
from array import array
from bisect import bisect_right
from itertools import pairwise
from typing import Protocol

from kshell.errors import FormatError

FLAT_MAGIC = b"makedumpfile\0"
FLAT_HEADER = 4096
RECORD = struct.Struct(">qq")
BATCH = 1 << 16


class Source(Protocol):
    """Bytes by offset.

    :ivar size: how many there are
    """

    size: int

    def pread(self, size: int, offset: int) -> bytes:
        """Return at most *size* bytes at *offset*, fewer where they end."""

    def changed(self) -> str | None:
        """Return what happened to the file since it was opened, or None."""

    def close(self) -> None: ...


class FileSource:
    """A file as it is; the descriptor belongs to it from now on."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path, self._fd = path, descriptor
        status = os.fstat(descriptor)
        self.size, self._modified = status.st_size, status.st_mtime_ns

    def pread(self, size: int, offset: int) -> bytes:
        return os.pread(self._fd, size, offset) if offset >= 0 else b""

    def changed(self) -> str | None:
        now = os.fstat(self._fd)
        if now.st_size < self.size:
            return f"{self.path} became shorter since it was opened; open it again"
        if now.st_mtime_ns != self._modified:
            return f"{self.path} was written to since it was opened; open it again"
        return None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FlattenedSource:
    """A flattened file, read in place. One pass over the records' headers makes the index.

    Of records for the same bytes the later one counts, as it would when the file was put together.

    :ivar complete: False when the file ends before its end mark
    """

    def __init__(self, below: FileSource) -> None:
        """:raises FormatError: no flattened file, or a record of impossible size"""
        self.below = below
        head = below.pread(32, 0)
        if not head.startswith(FLAT_MAGIC) or len(head) < 32:
            raise FormatError("the flattened header is cut")
        kind, version = struct.unpack_from(">qq", head, 16)
        if (kind, version) != (1, 1):
            raise FormatError(f"flattened format type {kind} version {version} is not known")
        self.complete = False
        self.size = 0
        rows: list[tuple[int, int, int]] = []  # offset, size, place in the file
        at = FLAT_HEADER
        window, base = b"", 0
        while True:
            if not base <= at <= base + len(window) - RECORD.size:
                window, base = below.pread(BATCH, at), at
                if len(window) < RECORD.size:
                    break
            offset, size = RECORD.unpack_from(window, at - base)
            if offset == size == -1:
                self.complete = True
                break
            if offset < 0 or size <= 0 or at + size > 1 << 62:
                raise FormatError(f"flattened record at 0x{at:x}: impossible offset {offset} or size {size}")
            at += RECORD.size
            rows.append((offset, size, at))
            self.size = max(self.size, offset + size)
            at += size
        self._index(rows)

    def _index(self, rows: list[tuple[int, int, int]]) -> None:
        """Sort the records; cut those that later ones write over."""
        ordered = sorted(range(len(rows)), key=lambda number: rows[number][0])
        overlap = any(rows[a][0] + rows[a][1] > rows[b][0] for a, b in pairwise(ordered))
        pieces = [rows[number] for number in ordered] if not overlap else _laid_over(rows)
        self._starts = array("Q", [row[0] for row in pieces])
        self._sizes = array("Q", [row[1] for row in pieces])
        self._places = array("Q", [row[2] for row in pieces])

    def pread(self, size: int, offset: int) -> bytes:
        """As of the file put together: bytes between records, which it would hold as zeroes, are zeroes."""
        parts: list[bytes] = []
        end = min(offset + size, self.size)
        while offset < end:
            number = bisect_right(self._starts, offset) - 1
            inside = offset - self._starts[number] if number >= 0 else -1
            if number >= 0 and inside < self._sizes[number]:
                want = min(end - offset, self._sizes[number] - inside)
                part = self.below.pread(want, self._places[number] + inside)
                if not part:
                    break
            else:
                following = self._starts[number + 1] if number + 1 < len(self._starts) else end
                part = bytes(min(end, following) - offset)  # a hole of the output file: zeroes by its definition
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def changed(self) -> str | None:
        return self.below.changed()

    def close(self) -> None:
        self.below.close()


def _laid_over(rows: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Return disjoint records, ascending, in which later rows have written over earlier ones."""
    from kshell.memory.segments import Piece, Segments

    # of overlapping pieces the first wins there, so the last record goes first
    made = Segments(Piece(offset, offset + size, place) for offset, size, place in reversed(rows)).pieces
    return [(piece.start, piece.end - piece.start, piece.offset) for piece in made]
