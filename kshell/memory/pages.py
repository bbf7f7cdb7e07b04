"""The pages of a kdump-compressed dump by number: found by their descriptors, decompressed, some of them kept.

One page at a time for random reads, with an LRU bounded in bytes; a run of pages straight into the reader's buffer,
with several threads where the codec is slow. A reader that goes through pages in order is noticed, and more and more of
them are decompressed at once. makedumpfile: diskdump_mod.h, ``struct page_desc``.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kshell.errors import FormatError, Reason
from kshell.memory.codecs import CODEC_BITS, CODECS, INCOMPLETE, SLOW, Decoder, decoder_of
from kshell.memory.source import Source
from kshell.memory.threads import spread

DESCRIPTOR = struct.Struct("<qIIQ")
CACHE_BYTES = 24 << 20
JOB = 64  # pages for one turn of a thread
TABLE = 128  # descriptors read at once
TABLES = 256  # such pieces of the table kept
FIRST_AHEAD, MOST_AHEAD = 4, 256
MANY = 16  # pages asked for at once from which on they are worth a look as a run


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
        jobs = [(number + at, out[at * self.size : min(at + JOB, count) * self.size]) for at in range(0, count, JOB)]
        done, failed = 0, None
        slow = len(jobs) > 1 and self._is_slow(number)
        for filled, error in spread(self._fill_job, jobs) if slow else map(self._fill_job, jobs):
            if failed is None:
                done += filled
                failed = error
        return done, failed

    def _is_slow(self, number: int) -> bool:
        return any(found.flags & CODEC_BITS in SLOW for found in self.descriptors(number, MANY))

    def _fill_job(self, job: tuple[int, memoryview]) -> tuple[int, PageError | None]:
        number, out = job
        rows = list(self.descriptors(number, len(out) // self.size))
        done = self._fill_near(rows, out)
        if done is not None:
            return done, None
        for at in range(len(out) // self.size):  # one by one, up to the first that cannot be had
            try:
                if at >= len(rows):
                    raise PageError("its descriptor is past the end of the file", Reason.TRUNCATED)
                self._decode(self._checked(rows[at]), out[at * self.size : (at + 1) * self.size])
            except PageError as error:
                return at, error
        return len(out) // self.size, None

    def _fill_near(self, rows: Sequence[Descriptor], out: memoryview) -> int | None:
        """Fill *out* with one read of the file when its pages lie together in it; None when they do not."""
        size = self.size
        if not rows or len(rows) * size < len(out):
            return None
        offsets, sizes, flags, _ = zip(*rows, strict=True)
        near = rows
        if max(sizes) > size or min(sizes) == 0 or min(offsets) <= 0 or any(flag & INCOMPLETE for flag in set(flags)):
            return None
        # pages that are all the same, as those of zeroes, lie once in the file, and far from their neighbours
        shared: dict[Descriptor, bytes] = {}
        low, high = min(offsets), max(map(int.__add__, offsets, sizes))
        if high - low > 2 * len(rows) * size:
            times: dict[Descriptor, int] = {}
            for row in rows:
                times[row] = times.get(row, 0) + 1
            shared = {row: b"" for row, number in times.items() if number > 1}
            near = [row for row in rows if row not in shared] or [rows[0]]
            low, high = min(row.offset for row in near), max(row.offset + row.size for row in near)
            if high - low > 2 * len(rows) * size:
                return None
        try:
            data = self._pread(high - low, low)
        except PageError:
            return None
        if len(data) < high - low:
            return None
        at = 0
        try:
            decoders = {flag: self._decoder(flag & CODEC_BITS) if flag & CODEC_BITS else None for flag in set(flags)}
            for row in rows:
                offset, length, flag, _ = row
                page = out[at : at + size]
                at += size
                if shared and row in shared:
                    if not shared[row]:
                        self._decode(row, page)
                        shared[row] = bytes(page)
                    else:
                        page[:] = shared[row]
                    continue
                decoder = decoders[flag]
                piece = data[offset - low : offset - low + length]
                if decoder is None:
                    page[:] = piece
                else:
                    decoder(piece, page)
        except Exception:  # whatever a codec raises: the slow way finds out which page it is
            return None
        return len(rows)

    def prefetch(self, numbers: Iterable[int]) -> None:
        """Keep these pages, where they are many and can be had: somebody reads them next."""
        wanted = sorted({number for number in numbers if number not in self._kept})[: self._most]
        if len(wanted) < MANY:
            return
        jobs = [wanted[at : at + JOB] for at in range(0, len(wanted), JOB)]
        for job, pages in zip(jobs, spread(self._try_load, jobs), strict=True):
            for number, page in zip(job, pages, strict=True):
                if page is not None:
                    self._keep(number, page)

    def _try_load(self, numbers: Sequence[int]) -> list[bytes | None]:
        found: list[bytes | None] = []
        for number in numbers:
            page = bytearray(self.size)
            try:
                self._decode(self._checked(next(self.descriptors(number, 1))), memoryview(page))
                found.append(bytes(page))
            except (PageError, StopIteration):
                found.append(None)  # whoever reads it alone learns why
        return found

    def close(self) -> None:
        """Forget the pages."""
        self._kept.clear()
        self._tables.clear()
