"""kdump-compressed dumps: pages compressed one by one behind two bitmaps, as makedumpfile and QEMU write them.

The first bitmap says which pages exist, the second which are in the dump, so *outside RAM* and *excluded* are told
apart. A split dump (:mod:`kshell.memory.split`) is read as one. Read only: a page that changes need not fit where it
was.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import Fault, FormatError, OpenError, Reason
from kshell.memory.codecs import CODEC_BITS, CODECS
from kshell.memory.file import open_file
from kshell.memory.filebitmap import FileBitmap, iter_states
from kshell.memory.image import Image
from kshell.memory.kdumpheader import HEADER, SIGNATURES, SUB_HEADER, KdumpHeader, read_kdump_header
from kshell.memory.model import Gathered, Range, Window, merge_ranges
from kshell.memory.pages import CACHE_BYTES, DESCRIPTOR, MANY, PageError, Pages
from kshell.memory.source import FlattenedSource, Source
from kshell.memory.split import open_source, other_parts

if TYPE_CHECKING:
    from kshell.memory.model import Addresses

MAX_READ = 16 << 20
MOST_AT_ONCE = 1024  # rows whose pages are loaded together
LOOK = 64  # descriptors at the end of a table that tell whether the dump is whole


class Part(NamedTuple):
    """The pages of the frames ``first <= frame < last``; ``before`` is the rank of the first."""

    path: str
    source: Source
    header: KdumpHeader
    pages: Pages
    first: int
    last: int
    before: int


class Kdump(Image):
    """The physical memory in a kdump-compressed dump. Made by :func:`open_kdump`."""

    space = "physical"
    packed = True

    def __init__(self, path: str, source: Source, parts: Sequence[str] = ()) -> None:
        """:param parts: the other files of a split dump; without them its folder is looked into"""
        self.path, self.source = path, source
        self.header = header = read_kdump_header(path, source)
        self.arch, self.page, self.frames = header.arch, header.page, header.frames
        self.version, self.status, self.level = header.version, header.status, header.level
        self.phys_base, self.notes, self.vmcoreinfo = header.phys_base, header.notes, header.vmcoreinfo
        if parts and not header.split:
            raise OpenError(path, "is not a part of a split dump, and other parts are named", kind="format")
        self._existing = FileBitmap(source, header.bitmaps, header.frames)
        self._held = FileBitmap(source, header.bitmaps + header.bitmap_size, header.frames)
        found = [(path, source, header), *(other_parts((path, source, header), parts) if header.split else ())]
        keep = CACHE_BYTES // len(found)
        self._parts: list[Part] = []
        for name, one, told in sorted(found, key=lambda part: part[2].first):
            pages = Pages(one, told.table, header.page, keep)
            self._parts.append(Part(name, one, told, pages, told.first, told.last, self._held.rank(told.first)))
        self._starts = [part.first for part in self._parts]

    @property
    def pages(self) -> Pages:
        """The pages of the file that was named."""
        return next(part.pages for part in self._parts if part.source is self.source)

    # -- what is there ---------------------------------------------------------------------------------------------

    @cached_property
    def complete(self) -> str | None:
        """What is missing: parts, or what a cut or unfinished file lacks; None when it is whole."""
        told: list[str] = []
        if self.header.split:
            told += [f"no part of this split dump with the frames 0x{first:x} to 0x{last:x} was found "
                     f"({self._held.rank(last) - self._held.rank(first)} pages)" for first, last in self._gaps()]
        for part in self._parts:
            name = f"{part.path}: " if self.header.split else ""
            if isinstance(part.source, FlattenedSource) and not part.source.complete:
                told.append(name + (part.source.damage or "the file ends early: the flattened dump has no end mark"))
            count = self._held.rank(part.last) - part.before
            lost = _lost_at_end(part.pages, count)
            if lost:
                why = "makedumpfile could not write all of it (its header says so)" if part.header.incomplete else (
                    "the file ends early")
                told.append(f"{name}{why}: about {lost} of {count} pages are missing")
            elif part.header.incomplete:
                told.append(f"{name}makedumpfile says that it could not write all of it")
        told += [f"{what} cannot be read" for what in self.header.damage]
        return "; ".join(told) if told else None

    def _gaps(self) -> Iterator[tuple[int, int]]:
        """Yield the runs of frames with pages that no part has."""
        at = 0
        for part in self._parts:
            if self._held.rank(part.first) > self._held.rank(at):
                yield at, part.first
            at = max(at, part.last)
        if self._held.count() > self._held.rank(at):
            yield at, self.frames

    @cached_property
    def _described(self) -> str:
        total, held = self._existing.count() * self.page, self._held.count() * self.page
        flat = "flattened " if isinstance(self.source, FlattenedSource) else ""
        level = f", dump level {self.level}" if self.version >= 1 and 0 < self.level < 64 else ""
        codec = CODECS.get(self._first_flags(), "uncompressed")
        split = f", {len(self._parts)} part{'s' if len(self._parts) > 1 else ''}" if self.header.split else ""
        return (f"{flat}kdump-compressed dump ({self.arch.name}, {codec}{split}), {total / (1 << 20):.0f} MiB of RAM, "
                f"{held / (1 << 20):.0f} MiB of it held{level}")

    def describe(self) -> str:
        """Return one line: format, codec, size of RAM and how much of it is in the file."""
        return self._described

    def facts(self) -> dict[str, str]:
        """Return the header's version, the parts, what was left out by rule, and what was erased on purpose."""
        told = {"header": f"version {self.version}"}
        if self.header.arch_by:
            told["architecture"] = f"{self.arch.name}, {self.header.arch_by}"
        if isinstance(self.source, FlattenedSource):
            told["flattened"] = self.source.how
        if self.header.split:
            told["parts"] = ", ".join(f"{part.path} (frames 0x{part.first:x} to 0x{part.last:x})"
                                      for part in self._parts)
        if self.header.level_text():
            told["dump level"] = self.header.level_text()
        if self.header.erased:
            lines = self.header.erased.split(b"\0", 1)[0].decode("utf-8", "replace").splitlines()
            more = f" and {len(lines) - 8} more" if len(lines) > 8 else ""
            told["erased"] = f"{'; '.join(lines[:8])}{more}"
        return told

    def _first_flags(self) -> int:
        """Return the codec of the first page that is compressed, of the first few."""
        for found in self.pages.descriptors(0, 64):
            if found.flags & CODEC_BITS:
                return found.flags & CODEC_BITS
        return 0

    # -- pages -----------------------------------------------------------------------------------------------------

    def _part(self, frame: int) -> Part | None:
        """Return the part that has the pages of *frame*; None when none is here."""
        if len(self._parts) == 1:
            part = self._parts[0]
        else:
            part = self._parts[max(bisect_right(self._starts, frame) - 1, 0)]
        return part if part.first <= frame < part.last else None

    def _absent(self, frame: int) -> PageError:
        if self._held.bit(frame):
            return PageError(f"frame 0x{frame:x} of a split dump", Reason.ELSEWHERE)
        if self._existing.bit(frame):
            level = f"makedumpfile dump level {self.level}" if 0 < self.level < 64 else ""
            return PageError(level, Reason.EXCLUDED)
        return PageError("", Reason.OUTSIDE)

    def _load(self, frame: int) -> bytes:
        """Return the page *frame*.

        :raises PageError: it is not in the dump, or cannot be had
        """
        part, number = self._part(frame), self._held.number(frame)
        if part is None or number is None:
            raise self._absent(frame)
        try:
            return part.pages.load(number - part.before)
        except PageError as error:
            raise _placed(error, part, number) from error

    def _run(self, frame: int, limit: int) -> int:
        """Return how many pages from *frame* on one part holds without a gap, at most *limit*."""
        part = self._part(frame)
        return self._held.run(frame, min(limit, part.last - frame)) if part is not None else 0

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        inside = address & self.page - 1
        if 0 < size <= self.page - inside:
            try:
                return self._load(address // self.page)[inside : inside + size], None
            except FormatError as error:
                return b"", Fault(address, size, _reason(error), partial=b"", space=self.space, detail=str(error))
        parts: list[bytes] = []
        done = 0
        while done < size:
            at, want = address + done, min(size - done, MAX_READ)
            frame, inside = divmod(at, self.page)
            fault = None
            if inside + want <= self.page:
                try:
                    parts.append(self._load(frame)[inside : inside + want])
                except FormatError as error:
                    fault = Fault(at, want, _reason(error), space=self.space, detail=str(error))
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
                    part = self._part(frame)
                    if run >= MANY and part is not None:
                        number = self._held.rank(frame) - part.before
                        filled, failed = part.pages.fill(number, buffer[done : done + run * self.page])
                        done += filled * self.page
                        if failed is not None:
                            raise _placed(failed, part, number + part.before + filled)
                        continue
                piece = self._load(frame)[inside : inside + size - done]
            except FormatError as error:
                return Fault(address + done, size, _reason(error), done=done, space=self.space, detail=str(error))
            buffer[done : done + len(piece)] = piece
            done += len(piece)
        return None

    def read_many(self, addresses: Sequence[int], size: int) -> list[bytes | None]:
        rows: list[bytes | None] = []
        shift, mask = self.page.bit_length() - 1, self.page - 1
        for first in range(0, len(addresses), MOST_AT_ONCE):
            some = addresses[first : first + MOST_AT_ONCE]
            pages = self._load_many({address >> shift for address in some})
            for address in some:
                inside = address & mask
                page = pages.get(address >> shift)
                if page is not None and inside + size <= self.page:
                    rows.append(page[inside : inside + size])
                    continue
                data, fault = self.read_upto(address, size)
                rows.append(data if fault is None else None)
        return rows

    def gather(self, addresses: Addresses, size: int) -> Gathered:
        import numpy as np

        data = np.zeros((len(addresses), size), np.uint8)
        rows = self.read_many([int(address) for address in addresses], size)
        ok = np.array([row is not None for row in rows], np.bool_)
        data[ok] = np.frombuffer(b"".join(row for row in rows if row is not None), np.uint8).reshape(-1, size)
        return Gathered(data, ok)

    def _load_many(self, frames: set[int]) -> dict[int, bytes]:
        """Return the pages of *frames* that can be had, in the order of the file."""
        found: dict[int, bytes] = {}
        for part in self._parts:
            here = sorted(frame for frame in frames if part.first <= frame < part.last)
            numbers = list(map(self._held.number, here))
            pages = part.pages.load_many([number - part.before for number in numbers if number is not None])
            held = (frame for frame, number in zip(here, numbers, strict=True) if number is not None)
            found.update((frame, page) for frame, page in zip(held, pages, strict=True) if page is not None)
        return found

    def window(self, address: int) -> Window | None:
        frame = address // self.page
        try:
            data = self._load(frame)
        except FormatError:
            return None
        return Window(frame * self.page, (frame + 1) * self.page, memoryview(data))

    def ranges(self) -> Iterator[Range]:
        def rows() -> Iterator[Range]:
            for start, end, held in iter_states(self._existing, self._held):
                at = start
                while held and at < end:  # by the part that has it
                    part = self._part(at)
                    later = [first for first in self._starts if first > at]
                    stop = min(end, part.last if part is not None else min(later, default=end))
                    yield Range(at * self.page, stop * self.page, part is not None,
                                None if part is not None else Reason.ELSEWHERE)
                    at = stop
                if not held:
                    yield Range(start * self.page, end * self.page, False, Reason.EXCLUDED)

        return merge_ranges(rows())

    def check(self) -> None:
        for part in self._parts:
            changed = part.source.changed()
            if changed is not None:
                raise FormatError(changed)

    def content_key(self) -> str | None:
        return self.source.key() if len(self._parts) == 1 else None

    def close(self) -> None:
        for part in self._parts:
            part.pages.close()
            part.source.close()


def _placed(error: PageError, part: Part, number: int) -> PageError:
    """Return *error* with where in the dump the page of rank *number* and its descriptor are."""
    at = part.pages.table + (number - part.before) * DESCRIPTOR.size
    where = f"its descriptor at 0x{at:x}"
    try:
        for found in part.pages.descriptors(number - part.before, 1):
            where = f"{found.size} bytes at 0x{found.offset % (1 << 64):x}, {where}"
    except FormatError:  # the medium cannot be read there, which error tells
        pass
    flat = " of the dump put together" if isinstance(part.source, FlattenedSource) else ""
    return PageError(f"{error}; {where}{flat}", error.reason)


def _reason(error: FormatError) -> Reason:
    """Return why a page cannot be had: what it says itself, or that the medium cannot be read."""
    return error.reason if isinstance(error, PageError) else Reason.IO


def _lost_at_end(pages: Pages, count: int) -> int:
    """Return about how many of *count* pages are not in the file, which was cut or not finished.

    Looks for the first of them by halves: pages are written in order, but those of zeroes may share an early place.
    """
    def lost(start: int) -> bool:
        rows = list(pages.descriptors(start, min(LOOK, count - start)))
        end = pages.source.size
        return len(rows) < min(LOOK, count - start) or any(row.offset == 0 or row.offset + row.size > end
                                                           for row in rows)

    if count == 0 or not lost(max(count - LOOK, 0)):
        return 0
    low, high = 0, max(count - LOOK, 0)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if lost(middle) else (middle + 1, high)
    rows = list(pages.descriptors(low, LOOK))
    good = next((number for number, row in enumerate(rows)
                 if row.offset == 0 or row.offset + row.size > pages.source.size), len(rows))
    return count - low - good


def open_kdump(path: str, mode: str = "r", parts: Sequence[str] = ()) -> Kdump:
    """Open a kdump-compressed dump, flattened or not.

    :param parts: the other files of a split dump; without them its folder is looked into
    :raises OpenError: it is none, it is damaged in its headers, or it was to be opened for writing
    """
    if mode == "r+":
        raise OpenError(path, "a compressed dump cannot be written in place", kind="permission",
                        hint="--cow keeps writes in memory instead")
    source = open_source(path, open_file(path))
    try:
        return Kdump(path, source, parts)
    except BaseException:
        source.close()
        raise


__all__ = ["DESCRIPTOR", "HEADER", "SIGNATURES", "SUB_HEADER", "Kdump", "open_kdump"]
