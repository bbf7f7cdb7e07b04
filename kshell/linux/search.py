"""Searching memory: bytes, regular expressions, and words with masks, over all of RAM or a range of addresses.

Memory is read in chunks that overlap by as much as a hit may be long, so that a hit across two chunks is found, and
found once. What cannot be read is counted by its reason, never passed over in silence.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kshell.errors import Fault, KshellError, Reason
from kshell.linux.memory_map import regions
from kshell.memory.model import Memory
from kshell.target.space import AddressSpace

if TYPE_CHECKING:
    from kshell.target.target import Target

#: bytes that are read and looked at together; what is this small stays in the processor's cache
CHUNK = 2 << 20
PAGE = 4096
#: bytes that a match of a regular expression may have across two chunks
REGEX = PAGE

#: offsets of the hits in a part of a buffer: ``find(buffer, low, high, base)``; *base* is the address of ``buffer[0]``
Find = Callable[[bytearray, int, int, int], Iterator[int]]


def bytes_finder(pattern: bytes, align: int = 1) -> tuple[Find, int]:
    """Return what finds *pattern* at multiples of *align*, and how many bytes chunks must overlap.

    :raises KshellError: the pattern is empty
    """
    if not pattern:
        raise KshellError("nothing to search for: the pattern is empty")

    def find(data: bytearray, low: int, high: int, base: int) -> Iterator[int]:
        at = data.find(pattern, low, high)
        while at >= 0:
            beyond = (base + at) % align
            if not beyond:
                yield at
            at = data.find(pattern, at + align - beyond, high)

    return find, len(pattern) - 1


def regex_finder(pattern: str) -> tuple[Find, int]:
    """Return what finds a regular expression over bytes. A match of no bytes is none.

    :raises KshellError: it is no regular expression
    """
    try:
        compiled = re.compile(pattern.encode("utf-8", "surrogateescape"), re.DOTALL)
    except (re.error, OverflowError, RecursionError) as error:
        raise KshellError(f"not a regular expression: {error}") from None

    def find(data: bytearray, low: int, high: int, base: int) -> Iterator[int]:
        return (match.start() for match in compiled.finditer(data, low, high) if match.end() > match.start())

    return find, REGEX


def word_finder(
    value: int, size: int, byteorder: str, *, mask: int | None = None, distance: int = 0,
) -> tuple[Find, int]:
    """Return what finds words of *size* bytes, at multiples of it, that equal *value* under *mask*.

    :param distance: words from *value* to so much above it are found
    """
    full = (1 << 8 * size) - 1
    wanted, under = value & full, full if mask is None else mask & full
    if under == full and not distance:
        return bytes_finder(wanted.to_bytes(size, "little" if byteorder == "little" else "big"), size)

    def find(data: bytearray, low: int, high: int, base: int) -> Iterator[int]:
        import numpy as np

        first = low + -(base + low) % size
        count = max((high - first) // size, 0)
        kind = f"{'<' if byteorder == 'little' else '>'}u{size}"
        words: Any = np.frombuffer(data, kind, count, first if count else 0)
        if distance:
            hits = (words - np.array(wanted, words.dtype)) <= np.array(min(distance, full), words.dtype)
        else:
            hits = words & np.array(under, words.dtype) == np.array(wanted & under, words.dtype)
        yield from (hits.nonzero()[0] * size + first).tolist()

    return find, size - 1


class Search:
    """One search; iterate over :meth:`run`, then look at what was missed.

    :ivar missed: bytes that could not be read, by reason
    :ivar progress: told after each chunk how many bytes it had
    """

    def __init__(self, find: Find, overlap: int) -> None:
        self._find, self._overlap = find, overlap
        self.missed: Counter[Reason] = Counter()
        self.progress: Callable[[int], None] | None = None

    def run(self, memory: Memory, start: int, end: int) -> Iterator[int]:
        """Yield the addresses of the hits in *memory* from *start* to *end*, ascending.

        All chunks are read into one buffer: fresh memory for each would cost more than the search.
        """
        head = self._overlap
        buffer = bytearray(head + min(CHUNK, max(end - start, 0)))
        view = memoryview(buffer)
        at, kept = start, 0  # kept: bytes before ``at`` that stand before ``head`` in the buffer
        while at < end:
            want = min(len(buffer) - head, end - at)
            fault = memory.read_into(at, view[head : head + want])
            size = want if fault is None else fault.done
            base, low, high = at - head, head - kept, head + size
            final = fault is not None or at + size >= end
            # a hit that begins in the overlap is found again with the next chunk, when all of it is there
            last = high if final else high - self._overlap
            for offset in self._find(buffer, low, high, base):
                if offset < last:
                    yield base + offset
            at += size
            if fault is None:
                kept = high - max(last, low)
                view[head - kept : head] = view[high - kept : high]
            else:
                kept = 0
                following = _behind(memory, at, end, fault.reason)
                self.missed[fault.reason] += following - at
                size += following - at
                at = following
            if self.progress is not None:
                self.progress(size)


def _behind(memory: Memory, at: int, end: int, reason: Reason) -> int:
    """Return where reading goes on behind a fault at *at*: the next page, or the next one that is mapped."""
    following = min((at | (PAGE - 1)) + 1, end)
    if reason is Reason.NOT_MAPPED and isinstance(memory, AddressSpace) and following < end:
        mapping = next(memory.mappings(following, end), None)
        return end if mapping is None else max(mapping.start, following)
    return following


def ram(target: Target) -> list[tuple[int, int]]:
    """Return the runs of physical memory that the target holds, as (start, end)."""
    runs: list[tuple[int, int]] = []
    for one in target.physical.ranges():
        if one.held and runs and runs[-1][1] == one.start:
            runs[-1] = runs[-1][0], one.end
        elif one.held:
            runs.append((one.start, one.end))
    return runs


def direct_map(target: Target) -> int:
    """Return the address at which physical address 0 is mapped.

    :raises KshellError: the kernel does not tell
    """
    return next(region.start for region in regions(target) if region.kind == "direct")


class PhysicalNames:
    """Virtual addresses of physical ones: in the kernel's image where that is used still, else in the direct map.

    The gaps between the sections of the image, and its init memory, were given back at boot: what is there now is
    no part of the kernel, and has no name of its.
    """

    def __init__(self, target: Target) -> None:
        self._base = direct_map(target)
        self._parts: list[tuple[int, int, int]] = []
        for part in regions(target):
            if part.kind in ("text", "rodata", "data", "bss") and isinstance(target.kernel, AddressSpace):
                with contextlib.suppress(Fault):
                    low = target.kernel.translate(part.start)
                    self._parts.append((low, low + part.end - part.start, part.start))

    def virtual(self, paddr: int) -> tuple[int, bool]:
        """Return the virtual address of the physical *paddr*, and whether it is in the kernel's image."""
        for low, high, start in self._parts:
            if low <= paddr < high:
                return start + paddr - low, True
        return self._base + paddr, False


def search_ram(target: Target, search: Search) -> Iterator[int]:
    """Yield the physical addresses of all hits; ``target.progress`` is told how far it is."""
    runs = ram(target)
    total, done, show = sum(end - start for start, end in runs), 0, target.progress

    def tell(size: int) -> None:
        nonlocal done
        done += size
        if show is not None:
            show("searching RAM", done, total)

    search.progress = tell
    try:
        for start, end in runs:
            yield from search.run(target.physical, start, end)
    finally:
        if show is not None:
            show("", total, total)


def missed_text(missed: Counter[Reason], done: str = "searched") -> str:
    """Return a sentence about what could not be *done*, bytes by reason; "" when all could."""
    told = ", ".join(f"{_size(size)} {reason.value}" for reason, size in missed.most_common())
    return f"not {done}: {told}" if told else ""


def _size(size: int) -> str:
    return f"{size >> 10} KiB" if size >= 1 << 10 else f"{size} bytes"
