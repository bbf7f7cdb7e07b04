"""The pages of a kdump-compressed dump by number: found by their descriptors, decompressed, some of them kept.

One page at a time for random reads, with an LRU bounded in bytes; a run of pages straight into the reader's buffer. A
reader that goes through pages in order is noticed, and more and more of them are decompressed at once. Who goes on for
long gets the help of other processes (:mod:`kshell.memory.crew`). makedumpfile: diskdump_mod.h, ``struct page_desc``.
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import FormatError, Reason
from kshell.memory.codecs import (
    CODEC_BITS,
    CODECS,
    INCOMPLETE,
    BatchDecoder,
    Decoder,
    batch_decoder_of,
    decode_slowly,
    decoder_of,
)
from kshell.memory.source import Source, share_source

if TYPE_CHECKING:
    from kshell.memory.crew import Crew

DESCRIPTOR = struct.Struct("<qIIQ")
CACHE_BYTES = 24 << 20
JOB = 64  # pages read and decompressed at once
TABLE = 128  # descriptors read at once
TABLES = 1024  # such pieces of the table kept: 3 MiB
FIRST_AHEAD, MOST_AHEAD = 4, 256
SHARED = 64  # pages kept of which there are many in a dump
NEEDED = 4096  # pages filled in order from which on other processes are worth their start
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


class Shared(NamedTuple):
    """A page that many frames have."""

    size: int
    flags: int
    page: bytes


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
        self._shared: dict[int, Shared] = {}  # by the offset in the file
        self._decoders: dict[int, Decoder] = {0: lambda data, _: data}  # by codec; 0 is a page as it is
        self._batches: dict[int, BatchDecoder] = {}
        self._next, self._ahead = -1, FIRST_AHEAD
        self._filled, self._in_order = -1, 0  # the page behind those filled last, and how many were in order
        self._crew: Crew[PageError] | None = None

    # -- descriptors -----------------------------------------------------------------------------------------------

    def descriptor(self, number: int) -> Descriptor:
        """Return the descriptor of page *number*.

        :raises PageError: the file ends before it, or it cannot be true
        """
        block, inside = divmod(number, TABLE)
        data = self._tables.get(block) or self._read_table(block)
        at = inside * DESCRIPTOR.size
        if at + DESCRIPTOR.size > len(data):
            raise PageError("its descriptor is past the end of the file", Reason.TRUNCATED)
        return self._checked(Descriptor._make(DESCRIPTOR.unpack_from(data, at)))

    def _read_table(self, block: int) -> bytes:
        """Return the descriptors of TABLE pages, fewer where the file ends, and keep them."""
        data = self._tables[block] = self._pread(TABLE * DESCRIPTOR.size, self.table + block * TABLE * DESCRIPTOR.size)
        if len(self._tables) > TABLES:
            self._tables.popitem(last=False)
        return data

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
            found = self._plain(number) or self._page(number)
            self._keep(number, found)
        self._next = number + 1
        return found

    def _plain(self, number: int) -> bytes | None:
        """Return page *number* from the file; None where there is anything about it that takes a longer look."""
        try:
            table = self._tables.get(number // TABLE) or self._read_table(number // TABLE)
            offset, size, flags, _ = DESCRIPTOR.unpack_from(table, number % TABLE * DESCRIPTOR.size)
            decoder = self._decoders.get(flags)
            if decoder is None or not 0 < size <= self.size or offset <= 0:
                return None
            page = decoder(self.source.pread(size, offset), self.size)
        except Exception:  # whatever a codec raises
            return None
        return bytes(page) if len(page) == self.size else None

    def _page(self, number: int) -> bytes:
        """Return page *number* from the file.

        :raises PageError: it cannot be had
        """
        found = self.descriptor(number)
        page = bytearray(self.size)
        self._decode(found, memoryview(page))
        return bytes(page)

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
                decode_slowly(codec, self._decoder(codec), data, out)
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

    def _batch_decoder(self, codec: int) -> BatchDecoder:
        found = self._batches.get(codec)
        if found is None:
            found = self._batches[codec] = batch_decoder_of(codec)
        return found

    # -- many pages ------------------------------------------------------------------------------------------------

    def fill(self, number: int, out: memoryview) -> tuple[int, PageError | None]:
        """Fill *out*, a whole number of pages, from page *number* on; nothing of it is kept.

        Returns how many pages were filled, and why it stopped before the end. Bytes behind that hold no answer. For
        somebody who does this for long and in order, other processes decompress too.
        """
        count = len(out) // self.size
        self._in_order = self._in_order + count if number == self._filled else count
        self._filled = number + count
        if self._in_order < NEEDED:
            return self.fill_here(number, out)
        from kshell.memory.crew import CrewError

        try:
            if self._crew is None or not self._crew.usable():
                self._crew = self._call_crew(number)
            return self._crew.fill(number, out)
        except CrewError:
            self._dismiss()
            self._in_order = 0  # and try again after as many
            return self.fill_here(number, out)
        except BaseException:
            self._dismiss()
            raise

    def _call_crew(self, number: int) -> Crew[PageError]:
        """Start processes, where pages from *number* on are compressed; they are those of one reader at a time.

        :raises CrewError: none are to be had
        """
        from kshell.memory.crew import CrewError, call

        if not any(found.flags & CODEC_BITS for found in self.descriptors(number, JOB)):
            raise CrewError("there is nothing to decompress: another process would copy what this one copies")
        try:
            descriptors, numbers = share_source(self.source)
        except OSError as error:
            raise CrewError(str(error)) from error
        if not descriptors:
            raise CrewError("the pages are not in a file")
        try:
            return call(descriptors, [self.table, *numbers], self.size, self.fill_here, self.are_blank)
        finally:
            for descriptor in descriptors[1:]:
                os.close(descriptor)

    def _dismiss(self) -> None:
        if self._crew is not None:
            self._crew.close()
            self._crew = None

    def fill_here(self, number: int, out: memoryview) -> tuple[int, PageError | None]:
        """As :meth:`fill`, by this process alone."""
        count = len(out) // self.size
        for at in range(0, count, JOB):
            job = out[at * self.size : min(at + JOB, count) * self.size]
            done, failed = self._fill_job(number + at, job)
            if failed is not None:
                return at + done, failed
        return count, None

    def _fill_job(self, number: int, out: memoryview) -> tuple[int, PageError | None]:
        count = len(out) // self.size
        table = self._pread(count * DESCRIPTOR.size, self.table + number * DESCRIPTOR.size)
        if len(table) == count * DESCRIPTOR.size and (
                self._fill_same(table, count, out) or self._fill_near(table, count, out)):
            return count, None
        rows = list(DESCRIPTOR.iter_unpack(table[: len(table) - len(table) % DESCRIPTOR.size]))
        for at in range(count):  # one by one, up to the first that cannot be had
            try:
                if at >= len(rows):
                    raise PageError("its descriptor is past the end of the file", Reason.TRUNCATED)
                self._decode(self._checked(Descriptor(*rows[at])), out[at * self.size : (at + 1) * self.size])
            except PageError as error:
                return at, error
        return count, None

    def _fill_same(self, table: bytes, count: int, out: memoryview) -> bool:
        """Fill *out* where all its *count* pages are one, most often of zeroes; False when they are not."""
        page = self._same(table, count)
        if page is None:
            return False
        out[:] = page * count
        return True

    def _same(self, table: bytes, count: int) -> bytes | None:
        """Return the page that all those in *table* are, None when they are not, or it cannot be had."""
        row = table[: DESCRIPTOR.size]
        if count < 2 or table != row * count:
            return None
        found = Descriptor(*DESCRIPTOR.unpack(row))
        known = self._shared.get(found.offset)
        if known is None or known[:2] != (found.size, found.flags):
            self._share(found)
            known = self._shared.get(found.offset)
        return known.page if known is not None and known[:2] == (found.size, found.flags) else None

    def are_blank(self, number: int, count: int) -> bool:
        """Whether *count* pages from *number* on are all one page of zeroes."""
        try:
            page = self._same(self._pread(count * DESCRIPTOR.size, self.table + number * DESCRIPTOR.size), count)
        except PageError:
            return False
        return page is not None and page.count(0) == len(page)

    def _fill_near(self, table: bytes, count: int, out: memoryview) -> bool:
        """Fill *out* with one read of the file, when its *count* pages lie together in it; False when they do not."""
        size, shared = self.size, self._shared
        fields = struct.unpack("<" + "qIIQ" * count, table)  # one tuple, not one for each page
        offsets, sizes, flags = fields[0::4], fields[1::4], fields[2::4]
        kinds = set(flags)
        if max(sizes) > size or min(sizes) == 0 or min(offsets) <= 0 or any(flag & INCOMPLETE for flag in kinds):
            return False
        low, high = min(offsets), max(map(int.__add__, offsets, sizes))
        if high - low > 2 * count * size:
            # pages that are all the same, as those of zeroes, lie once in the file, and far from their neighbours
            for offset in {offset for offset in offsets if offset not in shared and offsets.count(offset) > 1}:
                self._share(Descriptor(*fields[4 * offsets.index(offset) :][:4]))
            near = [number for number, offset in enumerate(offsets) if offset not in shared] or [0]
            low, high = offsets[near[0]], max(offsets[number] + sizes[number] for number in near)
            low = min(offsets[number] for number in near)
            if high - low > 2 * count * size:
                return False
        try:
            data = self._pread(high - low, low)
            if len(data) < high - low:
                return False
            pieces = [data[offset - low : offset - low + length] for offset, length in zip(offsets, sizes, strict=True)]
            if len(kinds) > 1 or not shared.keys().isdisjoint(offsets):
                return self._fill_mixed(offsets, flags, pieces, out)
            codec = flags[0] & CODEC_BITS
            if codec:
                self._batch_decoder(codec)(pieces, out)
            else:
                out[:] = b"".join(pieces)
        except Exception:  # whatever a codec raises: the slow way finds out which page it is
            return False
        return True

    def _fill_mixed(
        self, offsets: Sequence[int], flags: Sequence[int], pieces: list[bytes], out: memoryview
    ) -> bool:
        """Fill *out* with pages of which some are compressed in other ways, or are shared."""
        shared, size, at = self._shared, self.size, 0
        decoders = {flag: self._decoder(flag & CODEC_BITS) if flag & CODEC_BITS else None for flag in set(flags)}
        for offset, flag, piece in zip(offsets, flags, pieces, strict=True):
            page = out[at : at + size]
            at += size
            decoder = decoders[flag]
            if offset in shared:
                known = shared[offset]
                if known.flags != flag:
                    return False
                page[:] = known.page
            elif decoder is None:
                page[:] = piece
            else:
                page[:] = decoder(piece, size)
        return True

    def _share(self, found: Descriptor) -> None:
        """Keep the page described, which others are too, if it can be had."""
        page = bytearray(self.size)
        try:
            self._decode(self._checked(found), memoryview(page))
        except PageError:
            return
        if len(self._shared) >= SHARED:
            self._shared.clear()
        self._shared[found.offset] = Shared(found.size, found.flags, bytes(page))

    def load_many(self, numbers: Sequence[int]) -> list[bytes | None]:
        """Return the pages *numbers*, which ascend; None for those that cannot be had. They are kept."""
        found: list[bytes | None] = []
        kept = self._kept
        for number in numbers:
            page = kept.get(number)
            if page is not None:
                kept.move_to_end(number)
            else:
                try:
                    page = self._plain(number) or self._page(number)
                    self._keep(number, page)
                except PageError:
                    pass  # whoever reads it alone learns why
            found.append(page)
        return found

    def close(self) -> None:
        """Forget the pages."""
        self._dismiss()
        self._kept.clear()
        self._tables.clear()
