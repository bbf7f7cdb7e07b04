"""Searching memory: bytes, regular expressions, and words with masks, over all of RAM or a range of addresses.

Memory is read in chunks that overlap by as much as a hit may be long, so that a hit across two chunks is found, and
found once. What cannot be read is counted by its reason, never passed over in silence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kshell.errors import KshellError, Reason
from kshell.linux.memory_map import regions
from kshell.memory.model import Memory

if TYPE_CHECKING:
    from kshell.target.target import Target

CHUNK = 16 << 20
PAGE = 4096
#: bytes that a match of a regular expression may have across two chunks
REGEX = PAGE

#: offsets of the hits in some bytes: ``find(data, start)``; *start* is the address of the first byte
Find = Callable[[bytes, int], Iterator[int]]


def bytes_finder(pattern: bytes, align: int = 1) -> tuple[Find, int]:
    """Return what finds *pattern* at multiples of *align*, and how many bytes chunks must overlap.

    :raises KshellError: the pattern is empty
    """
    if not pattern:
        raise KshellError("nothing to search for: the pattern is empty")

    def find(data: bytes, start: int) -> Iterator[int]:
        at = data.find(pattern)
        while at >= 0:
            if (start + at) % align == 0:
                yield at
            at = data.find(pattern, at + 1)

    return find, len(pattern) - 1


def regex_finder(pattern: str) -> tuple[Find, int]:
    """Return what finds a regular expression over bytes. A match of no bytes is none.

    :raises KshellError: it is no regular expression
    """
    try:
        compiled = re.compile(pattern.encode("utf-8", "surrogateescape"), re.DOTALL)
    except (re.error, OverflowError, RecursionError) as error:
        raise KshellError(f"not a regular expression: {error}") from None

    def find(data: bytes, start: int) -> Iterator[int]:
        return (match.start() for match in compiled.finditer(data) if match.end() > match.start())

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

    def find(data: bytes, start: int) -> Iterator[int]:
        import numpy as np

        skip = -start % size
        count = (len(data) - skip) // size
        words: Any = np.frombuffer(data, f"{'<' if byteorder == 'little' else '>'}u{size}", max(count, 0), skip)
        if distance:
            hits = (words - np.array(wanted, words.dtype)) <= np.array(min(distance, full), words.dtype)
        else:
            hits = words & np.array(under, words.dtype) == np.array(wanted & under, words.dtype)
        yield from (hits.nonzero()[0] * size + skip).tolist()

    return find, size - 1


class Search:
    """One search; iterate over :meth:`run`, then look at what was missed.

    :ivar missed: bytes that could not be read, by reason
    """

    def __init__(self, find: Find, overlap: int) -> None:
        self._find, self._overlap = find, overlap
        self.missed: Counter[Reason] = Counter()

    def run(self, memory: Memory, start: int, end: int) -> Iterator[int]:
        """Yield the addresses of the hits in *memory* from *start* to *end*, ascending."""
        at, kept = start, b""
        while at < end:
            want = min(CHUNK, end - at)
            data, fault = memory.read_upto(at, want)
            held = kept + data
            base = at - len(kept)
            last = base + len(held) if fault is not None or at + len(data) >= end else base + len(held) - self._overlap
            for offset in self._find(held, base):
                # a hit that begins in the overlap is found again with the next chunk, when all of it is there
                if base + offset < last:
                    yield base + offset
            at += len(data)
            if fault is None:
                kept = held[max(last - base, 0) :]
                continue
            kept = b""
            following = min((at | (PAGE - 1)) + 1, end)
            self.missed[fault.reason] += following - at
            at = following


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


def search_ram(target: Target, search: Search) -> Iterator[int]:
    """Yield the physical addresses of all hits."""
    for start, end in ram(target):
        yield from search.run(target.physical, start, end)


def missed_text(search: Search) -> str:
    """Return a sentence about what could not be searched; "" when all could."""
    if not search.missed:
        return ""
    told = ", ".join(f"{size >> 10} KiB {reason.value}" for reason, size in search.missed.most_common())
    return f"not searched: {told}"
