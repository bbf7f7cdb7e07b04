"""Runs of addresses and where their bytes lie in a file: overlapping and unsorted in, sorted and disjoint out."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kshell.errors import Reason
from kshell.memory.model import Range, merge_ranges


class Piece(NamedTuple):
    """Addresses ``start <= a < end``; in the file from ``offset``, or absent for ``reason``."""

    start: int
    end: int
    offset: int
    reason: Reason | None = None


class Segments:
    """Disjoint pieces in ascending order, found by bisection. Where they overlap, held ones win, then earlier ones."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self.pieces = list(_disjoint([piece for piece in pieces if piece.start < piece.end]))
        self._starts = [piece.start for piece in self.pieces]

    def find(self, address: int) -> Piece | None:
        """Return the piece that holds *address*, or None when no piece speaks of it."""
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        piece = self.pieces[index]
        return piece if address < piece.end else None

    def ranges(self) -> Iterator[Range]:
        """Yield what the pieces say, ascending."""
        return merge_ranges(Range(p.start, p.end, p.reason is None, p.reason) for p in self.pieces)

    def total(self) -> int:
        """Return the number of bytes that are spoken of, held or not."""
        return sum(piece.end - piece.start for piece in self.pieces)

    def held(self) -> int:
        """Return the number of bytes that are in the file."""
        return sum(piece.end - piece.start for piece in self.pieces if piece.reason is None)


def _disjoint(pieces: list[Piece]) -> Iterator[Piece]:
    """Yield disjoint pieces that cover the same addresses, in ascending order: O(n log n)."""
    order = sorted(range(len(pieces)), key=lambda i: pieces[i].start)
    active: list[tuple[bool, int]] = []  # (absent, position in the input): the smallest wins
    position = 0
    at = 0
    while position < len(order) or active:
        while active and pieces[active[0][1]].end <= at:
            heapq.heappop(active)
        if not active:
            if position >= len(order):
                return
            at = max(at, pieces[order[position]].start)
        while position < len(order) and pieces[order[position]].start <= at:
            index = order[position]
            heapq.heappush(active, (pieces[index].reason is not None, index))
            position += 1
        if not active:
            continue
        best = active[0]
        piece = pieces[best[1]]
        if piece.end <= at:
            continue
        # the winner rules until it ends or a better one begins; a worse one that begins meanwhile only waits
        until = piece.end
        while position < len(order) and pieces[order[position]].start < until:
            index = order[position]
            entry = (pieces[index].reason is not None, index)
            if entry < best:
                until = pieces[index].start
                break
            heapq.heappush(active, entry)
            position += 1
        yield Piece(at, until, piece.offset + (at - piece.start) if piece.reason is None else 0, piece.reason)
        at = until
