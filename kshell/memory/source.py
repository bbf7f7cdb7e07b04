"""Where the bytes of an image format come from: a file, or a flattened file, read as if it had been put together.

makedumpfile's -F and QEMU's kdump formats write flattened: a header of 4096 bytes and then (offset, size, bytes)
records, big-endian, for a writer that cannot seek. makedumpfile.h: ``struct makedumpfile_header`` and
``makedumpfile_data_header``.
"""

from __future__ import annotations

import mmap
import os
import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

from kshell import cache
from kshell.errors import FormatError, OpenError
from kshell.memory.file import size_of
from kshell.memory.filekey import file_key
from kshell.memory.pread import pread_all

FLAT_MAGIC = b"makedumpfile\0"
FLAT_HEADER = 4096
RECORD = struct.Struct(">qq")
BATCH = 1 << 16
EVERY = 64 << 20  # bytes between two words about progress
KIND, VERSION = "flattened", 1  # of the index in the cache
FACTS = struct.Struct("<4Q")  # whether it is complete, whether records were cut, size, number of records
MANY = 1 << 15  # records from which on numpy sorts them


class Source(Protocol):
    """Bytes by offset.

    :ivar size: how many there are
    """

    size: int

    def pread(self, size: int, offset: int) -> bytes:
        """Return at most *size* bytes at *offset*, fewer where they end."""

    def changed(self) -> str | None:
        """Return what happened to the file since it was opened, or None."""

    def key(self) -> str | None:
        """Return the key of the content for what is kept on disk, or None."""

    def close(self) -> None: ...


class FileSource:
    """A file as it is; the descriptor belongs to it from now on."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path, self._fd = path, descriptor
        try:
            self.size = size_of(descriptor)  # a dump may be on a block device, whose st_size is 0
            self._modified = os.fstat(descriptor).st_mtime_ns
        except OSError as error:
            os.close(descriptor)
            raise OpenError(path, f"cannot be read: {error.strerror}", kind="format") from error

    def pread(self, size: int, offset: int) -> bytes:
        """As :class:`Source` says; of more than there is no buffer is made.

        :raises FormatError: the medium cannot be read
        """
        if not 0 <= offset < self.size:
            return b""
        try:
            return pread_all(self._fd, min(size, self.size - offset), offset)
        except OSError as error:
            raise FormatError(f"{self.path}: cannot be read at 0x{offset:x}: {error.strerror}") from error

    def key(self) -> str | None:
        """Return the key of the file's content, None when nothing found in it may be kept."""
        return file_key(self._fd)

    def changed(self) -> str | None:
        now = os.fstat(self._fd)
        if size_of(self._fd) < self.size:
            return f"{self.path} became shorter since it was opened; open it again"
        if now.st_mtime_ns != self._modified:
            return f"{self.path} was written to since it was opened; open it again"
        return None

    def share(self) -> int:
        """Return the descriptor, for another process; it stays this source's."""
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FlattenedSource:
    """A flattened file, read in place. One pass over the records' headers makes the index, which is kept on disk.

    Of records for the same bytes the later one counts, as it would when the file was put together.

    :ivar complete: False when the file ends before its end mark
    :ivar damage: why the records were not followed to the end; ""
    :ivar how: where the index came from, in words
    """

    def __init__(
        self, below: FileSource, progress: Callable[[str, int, int], None] = lambda what, done, total: None
    ) -> None:
        """:raises FormatError: no flattened file, or a record of impossible size"""
        self.below = below
        head = below.pread(32, 0)
        if not head.startswith(FLAT_MAGIC) or len(head) < 32:
            raise FormatError(f"the flattened header is cut, at 0x{len(head):x}")
        kind, version = struct.unpack_from(">qq", head, 16)
        if (kind, version) != (1, 1):
            raise FormatError(f"flattened format type {kind} version {version} (at 0x10 and 0x18) is not known")
        self.complete = self._cut = False
        self.damage = ""
        self.size = 0
        self._starts: array[int] | memoryview[int]
        self._sizes: array[int] | memoryview[int]
        self._places: array[int] | memoryview[int]
        key = below.key()
        if key is not None and self._load(key):
            self.how = f"{len(self._starts)} records, index from the cache"
            return
        self._pass(progress)
        self.how = f"{len(self._starts)} records, index made in one pass"
        if key is not None and not self.damage:
            facts = FACTS.pack(self.complete, self._cut, self.size, len(self._starts))
            columns = (self._starts, self._sizes, self._places)
            cache.store(KIND, key, VERSION, facts, *(memoryview(column).cast("B") for column in columns))

    def _pass(self, progress: Callable[[str, int, int], None]) -> None:
        """Make the index: read the header of each record."""
        starts, sizes, places = array("Q"), array("Q"), array("Q")
        at, told, sorted_so_far, end = FLAT_HEADER, 0, True, 0
        window, base = b"", 0
        while True:
            if not base <= at <= base + len(window) - RECORD.size:
                try:
                    window, base = self._window(at), at
                except FormatError as error:
                    if not starts:
                        raise
                    self.damage = f"{error}: what is behind it is not known"
                    break
                if len(window) < RECORD.size:
                    break
            offset, size = RECORD.unpack_from(window, at - base)
            if offset == size == -1:
                self.complete = True
                break
            if offset < 0 or size <= 0 or at + size > 1 << 62 or offset + size > 1 << 62:
                why = f"flattened record at 0x{at:x}: impossible offset {offset} or size {size}"
                if not starts:
                    raise FormatError(why)
                self.damage = f"{why}: what is behind it is not known"
                break
            at += RECORD.size
            starts.append(offset)
            sizes.append(size)
            places.append(at)
            sorted_so_far = sorted_so_far and offset >= end
            end = offset + size
            self.size = max(self.size, end)
            at += size
            if at - told > EVERY:
                told = at
                progress("indexing the flattened dump", at, self.below.size)
        if sorted_so_far:
            self._starts, self._sizes, self._places = starts, sizes, places
        else:
            self._sort(starts, sizes, places)

    def _window(self, at: int) -> bytes:
        """Return bytes at *at*, and be content with a record's header where the medium cannot be read behind it."""
        try:
            return self.below.pread(BATCH, at)
        except FormatError:
            return self.below.pread(RECORD.size, at)

    def _sort(self, starts: array[int], sizes: array[int], places: array[int]) -> None:
        """Keep the records in order; cut those that later ones write over."""
        order = _order(starts)
        self._cut = any(starts[a] + sizes[a] > starts[b] for a, b in pairwise(order))
        if self._cut:
            pieces = _laid_over(list(zip(starts, sizes, places, strict=True)))
            columns = [array("Q", column) for column in zip(*pieces, strict=True)]
        else:
            columns = [array("Q", [column[number] for number in order]) for column in (starts, sizes, places)]
        self._starts, self._sizes, self._places = columns

    def _load(self, key: str) -> bool:
        """Take the index from the cache; False when it is not there, or not of this file after all."""
        kept = cache.load(KIND, key, VERSION)
        if kept is None or len(kept) < FACTS.size:
            return False
        complete, cut, size, count = FACTS.unpack_from(kept)
        if count == 0 or len(kept) != FACTS.size + 24 * count:
            return False
        starts, sizes, places = (kept[FACTS.size + 8 * count * number :][: 8 * count].cast("Q") for number in range(3))
        for number in () if cut else {0, count // 2, count - 1}:
            found = self.below.pread(RECORD.size, places[number] - RECORD.size)
            if len(found) < RECORD.size or RECORD.unpack(found) != (starts[number], sizes[number]):
                return False
        self._starts, self._sizes, self._places = starts, sizes, places
        self.complete, self.size = bool(complete), size
        return True

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

    def key(self) -> str | None:
        """Return the key of the file's content, None when nothing found in it may be kept."""
        return self.below.key()

    def share(self) -> tuple[int, int]:
        """Return a descriptor of the index, for :meth:`take` in another process, and the number of records."""
        columns = [memoryview(column).cast("B") for column in (self._starts, self._sizes, self._places)]
        index = os.memfd_create("kshell-index", os.MFD_CLOEXEC)
        try:
            os.ftruncate(index, sum(map(len, columns)))
            with mmap.mmap(index, sum(map(len, columns))) as room:
                for column in columns:
                    room.write(column)
        except BaseException:
            os.close(index)
            raise
        return index, len(self._starts)

    def take(self, index: int, count: int, size: int) -> None:
        """Take the index of *count* records from the descriptor *index*."""
        view = memoryview(mmap.mmap(index, 24 * count, access=mmap.ACCESS_READ))
        self._starts, self._sizes, self._places = (
            view[8 * count * number :][: 8 * count].cast("Q") for number in range(3))
        self.size = size

    def close(self) -> None:
        self.below.close()


def share_source(source: Source) -> tuple[list[int], list[int]]:
    """Return (descriptors, numbers) of which another process makes the same source, by :func:`shared_source`.

    The first descriptor stays the source's, others are the caller's to close. Without any it cannot be shared.

    :raises OSError: there is no shared memory
    """
    if isinstance(source, FileSource):
        return [source.share()], [0]
    if isinstance(source, FlattenedSource):
        index, count = source.share()
        return [source.below.share(), index], [1, count, source.size]
    return [], []


def shared_source(first: int, numbers: Sequence[int]) -> Source:
    """Return the source that :func:`share_source` told of, in another process, its descriptors from *first* on."""
    below = FileSource("the dump", first)
    if not numbers[0]:
        return below
    source = FlattenedSource.__new__(FlattenedSource)
    source.below, source.complete = below, True
    source.take(first + 1, *numbers[1:])
    return source


def _order(starts: array[int]) -> Sequence[int]:
    if len(starts) < MANY:
        return sorted(range(len(starts)), key=starts.__getitem__)
    import numpy as np

    order: list[int] = np.argsort(np.frombuffer(starts, np.uint64), kind="stable").tolist()
    return order


def _laid_over(rows: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Return disjoint records, ascending, in which later rows have written over earlier ones."""
    from kshell.memory.segments import Piece, Segments

    # of overlapping pieces the first wins there, so the last record goes first
    made = Segments(Piece(offset, offset + size, place) for offset, size, place in reversed(rows)).pieces
    return [(piece.start, piece.end - piece.start, piece.offset) for piece in made]
