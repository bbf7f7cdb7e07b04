"""A checksum of memory: the same bytes at the same addresses give the same one, whatever container they came in."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from kshell.errors import Reason
from kshell.memory.model import Memory

CHUNK = 2 << 20
PAGE = 4096
FAR = 1 << 30  # so much is not tried page by page where nothing is


class Checksum(NamedTuple):
    """:ivar size: bytes that were read; :ivar missed: bytes that could not be, by reason; :ivar digest: hexadecimal"""

    size: int
    missed: Counter[Reason]
    digest: str


def checksum(
    memory: Memory, runs: Iterable[tuple[int, int]], progress: Callable[[int], None] | None = None,
) -> Checksum:
    """Return the SHA-256 of all that *memory* holds in *runs*, (start, end) pairs, ascending.

    Before the bytes of each gapless run goes its start, 8 bytes little-endian, so that memory that lies elsewhere has
    another checksum; one run without a gap that starts at 0 and an image with holes never have the same.

    :param progress: told after each chunk how many bytes are done
    """
    found, missed = hashlib.sha256(), Counter[Reason]()
    buffer = memoryview(bytearray(CHUNK))
    total, done, behind = 0, 0, -1
    starts: list[int] = []  # of what there is, when much is not
    for start, end in runs:
        at = start
        while at < end:
            want = min(CHUNK, end - at)
            fault = memory.read_into(at, buffer[:want])
            size = want if fault is None else fault.done
            if size:
                if at != behind:
                    found.update(at.to_bytes(8, "little"))
                found.update(buffer[:size])
                behind = at + size
            at += size
            total, done = total + size, done + size
            if fault is not None:
                following = min((at | (PAGE - 1)) + 1, end)
                if end - at > FAR and fault.reason in (Reason.NOT_MAPPED, Reason.OUTSIDE):
                    starts = starts or sorted(run.start for run in memory.ranges())
                    place = bisect_right(starts, at)
                    following = max(following, min(starts[place], end) if place < len(starts) else end)
                missed[fault.reason] += following - at
                done += following - at
                at = following
            if progress is not None:
                progress(done)
    return Checksum(total, missed, found.hexdigest())
