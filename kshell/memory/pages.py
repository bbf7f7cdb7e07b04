"""The pages of a kdump-compressed dump by number: found by their descriptors, decompressed, some of them kept.

One page at a time for random reads, with an LRU bounded in bytes; a run of pages straight into the reader's buffer. A
reader that goes through pages in order is noticed, and more and more of them are decompressed at once. Threads would
gain nothing: a page is done in microseconds, in which another thread has not even woken up. makedumpfile:
diskdump_mod.h, ``struct page_desc``.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kshell.errors import FormatError, Reason
from kshell.memory.codecs import CODEC_BITS, CODECS, INCOMPLETE, Decoder, decoder_of
from kshell.memory.source import Source

DESCRIPTOR = struct.Struct("<qIIQ")
CACHE_BYTES = 24 << 20
JOB = 64  # pages read and decompressed at once
TABLE = 128  # descriptors read at once
TABLES = 256  # such pieces of the table kept
FIRST_AHEAD, MOST_AHEAD = 4, 256
SHARED = 64  # pages kept of which there are many in a dump
MANY = 16  # pages asked for at once from which on they are worth a look as a run


Row = tuple[int, ...]  # a descriptor as it is


class PageError(FormatError):
    """A page that the dump should hold and that cannot be had; ``reason`` is the fault's."""

    def __init__(self, message: str, reason: Reason) -> None:
        super().__init__(message)
        self.reason = reason


class Descriptor(NamedTuple):
    """Where a page lies in the file, how many bytes it has there, and how it is compressed."""

    offset: int
    size: int
    flags: int
    page_flags: int


class Pages:
    """The pages behind one table of descriptors.

    :param table: the offset of the first descriptor in *source*
    :param size: bytes of a page
    :param keep: bytes of pages that may be kept
    """

    def __init__(self, source: Source, table: int, size: int, keep: int = CACHE_BYTES) -> None:
        self.source, self.table, self.size = source, table, size
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._most = max(keep // size, 1)
        self._tables: OrderedDict[int, bytes] = OrderedDict()
        self._shared: dict[Row, bytes] = {}
        self._decoders: dict[int, Decoder] = {}
        self._next, self._ahead = -1, FIRST_AHEAD

    # -- descriptors -----------------------------------------------------------------------------------------------

    def descriptor(self, number: int) -> Descriptor:
        """Return the descriptor of page *number*.

        :raises PageError: the file ends before it, or it cannot be true
        """
        block, inside = divmod(number, TABLE)
        data = self._tables.get(block)
        if data is None:
            data = self._pread(TABLE * DESCRIPTOR.size, self.table + block * TABLE * DESCRIPTOR.size)
            self._tables[block] = data
            if len(self._tables) > TABLES:
                self._tables.popitem(last=False)
        at = inside * DESCRIPTOR.size
        if at + DESCRIPTOR.size > len(data):
            raise PageError("its descriptor is past the end of the file", Reason.TRUNCATED)
        return self._checked(Descriptor(*DESCRIPTOR.unpack_from(data, at)))

    def _checked(self, found: Descriptor) -> Descriptor:
        if found.flags & INCOMPLETE or found.offset == 0:
            raise PageError("makedumpfile ran out of room before it wrote this page", Reason.TRUNCATED)
        if not 0 < found.size <= self.size:
            raise PageError(f"its descriptor has an impossible size of {found.size} bytes", Reason.IO)
        return found

    def descriptors(self, number: int, count: int) -> Iterator[Descriptor]:
        """Yield the descriptors from page *number* on as they are, fewer where the file ends."""
        data = self._pread(count * DESCRIPTOR.size, self.table + number * DESCRIPTOR.size)
        whole = len(data) - len(data) % DESCRIPTOR.size
        return map(Descriptor._make, DESCRIPTOR.iter_unpack(data[:whole]))

    def _pread(self, size: int, offset: int) -> bytes:
        try:
            return self.source.pread(size, offset)
        except FormatError as error:
            raise PageError(str(error), Reason.IO) from error

    # -- one page --------------------------------------------------------------------------------------------------

    def load(self, number: int) -> bytes:
        """Return the bytes of page *number*.

        :raises PageError: it cannot be decompressed, or lies outside the file; the message says which
        """
        found = self._kept.get(number)
        if found is not None:
            self._kept.move_to_end(number)
            self._next = number + 1 if number == self._next else self._next
            return found
        if number == self._next:
            self._read_ahead(number)
            found = self._kept.get(number)
        else:
            self._ahead = FIRST_AHEAD
        if found is None:
            page = bytearray(self.size)
            self._decode(self.descriptor(number), memoryview(page))
            found = bytes(page)
            self._keep(number, found)
        self._next = number + 1
        return found

    def _keep(self, number: int, page: bytes) -> None:
        self._kept[number] = page
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def _read_ahead(self, number: int) -> None:
        """Keep some pages from *number* on: the reader goes through them in order. Twice as many the next time."""
        buffer = bytearray(self._ahead * self.size)
        with memoryview(buffer) as view:
            done, _ = self.fill(number, view)
        for index in range(done):
            self._keep(number + index, bytes(buffer[index * self.size : (index + 1) * self.size]))
        self._ahead = min(self._ahead * 2, MOST_AHEAD)

    def _decode(self, found: Descriptor, out: memoryview, data: bytes | None = None) -> None:
        """Fill *out*, which is a page, with the page described; *data* are its bytes in the file when they are read."""
        if data is None:
            data = self._pread(found.size, found.offset)
        if len(data) < found.size:
            raise PageError("its bytes are past the end of the file", Reason.TRUNCATED)
        codec = found.flags & CODEC_BITS
        try:
            if codec:
                self._decoder(codec)(data, out)
            else:
                out[:] = data
        except FormatError as error:
            raise PageError(str(error), Reason.IO) from error
        except Exception as error:
            raise PageError(f"{CODECS.get(codec, 'a page not compressed')}: {error}", Reason.IO) from error

    def _decoder(self, codec: int) -> Decoder:
        found = self._decoders.get(codec)
        if found is None:
            found = self._decoders[codec] = decoder_of(codec)
        return found

    # -- many pages ------------------------------------------------------------------------------------------------

    def fill(self, number: int, out: memoryview) -> tuple[int, PageError | None]:
        """Fill *out*, a whole number of pages, from page *number* on; nothing of it is kept.

        Returns how many pages were filled, and why it stopped before the end. Bytes behind that hold no answer.
        """
        count = len(out) // self.size
        for at in range(0, count, JOB):
            job = out[at * self.size : min(at + JOB, count) * self.size]
            done, failed = self._fill_job(number + at, job)
            if failed is not None:
                return at + done, failed
        return count, None

    def _fill_job(self, number: int, out: memoryview) -> tuple[int, PageError | None]:
        count = len(out) // self.size
        data = self._pread(count * DESCRIPTOR.size, self.table + number * DESCRIPTOR.size)
        rows = list(DESCRIPTOR.iter_unpack(data[: len(data) - len(data) % DESCRIPTOR.size]))
        if len(rows) == count and self._fill_near(rows, out):
            return count, None
        for at in range(count):  # one by one, up to the first that cannot be had
            try:
                if at >= len(rows):
                    raise PageError("its descriptor is past the end of the file", Reason.TRUNCATED)
                self._decode(self._checked(Descriptor(*rows[at])), out[at * self.size : (at + 1) * self.size])
            except PageError as error:
                return at, error
        return count, None

    def _fill_near(self, rows: Sequence[Row], out: memoryview) -> bool:
        """Fill *out* with one read of the file, when its pages lie together in it; False when they do not."""
        size, shared = self.size, self._shared
        offsets, sizes, flags, _ = zip(*rows, strict=True)
        if max(sizes) > size or min(sizes) == 0 or min(offsets) <= 0 or any(flag & INCOMPLETE for flag in set(flags)):
            return False
        low, high = min(offsets), max(map(int.__add__, offsets, sizes))
        if high - low > 2 * len(rows) * size:
            # pages that are all the same, as those of zeroes, lie once in the file, and far from their neighbours
            near = [row for row in rows if row not in shared]
            times: dict[Row, int] = {}
            for row in near:
                times[row] = times.get(row, 0) + 1
            for row, number in times.items():
                if number > 1 and not self._share(row):
                    return False
            near = [row for row in near if row not in shared] or [rows[0]]
            low, high = min(row[0] for row in near), max(row[0] + row[1] for row in near)
            if high - low > 2 * len(rows) * size:
                return False
        try:
            data = self._pread(high - low, low)
            if len(data) < high - low:
                return False
            decoders = {flag: self._decoder(flag & CODEC_BITS) if flag & CODEC_BITS else None for flag in set(flags)}
            at = 0
            for row in rows:
                page = out[at : at + size]
                at += size
                known = shared.get(row)
                if known is not None:
                    page[:] = known
                    continue
                offset, length, flag, _ = row
                decoder = decoders[flag]
                piece = data[offset - low : offset - low + length]
                if decoder is None:
                    page[:] = piece
                else:
                    decoder(piece, page)
        except Exception:  # whatever a codec raises: the slow way finds out which page it is
            return False
        return True

    def _share(self, row: Row) -> bool:
        """Keep the page of *row*, which others are too; False when it cannot be had."""
        page = bytearray(self.size)
        try:
            self._decode(self._checked(Descriptor(*row)), memoryview(page))
        except PageError:
            return False
        if len(self._shared) >= SHARED:
            self._shared.clear()
        self._shared[row] = bytes(page)
        return True

    def load_many(self, numbers: Sequence[int]) -> list[bytes | None]:
        """Return the pages *numbers*, which ascend; None for those that cannot be had. They are kept."""
        found: list[bytes | None] = []
        kept = self._kept
        for number in numbers:
            page = kept.get(number)
            if page is not None:
                kept.move_to_end(number)
            else:
                buffer = bytearray(self.size)
                try:
                    self._decode(self.descriptor(number), memoryview(buffer))
                    page = bytes(buffer)
                    self._keep(number, page)
                except PageError:
                    pass  # whoever reads it alone learns why
            found.append(page)
        return found

    def close(self) -> None:
        """Forget the pages."""
        self._kept.clear()
        self._tables.clear()
