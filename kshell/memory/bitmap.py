"""Bitmaps of page frames: bit ``frame & 7`` of byte ``frame >> 3``, as in a kdump-compressed dump."""

from __future__ import annotations

from collections.abc import Iterator

BLOCK = 1 << 16  # bytes that are looked at at once


def set_range(bitmap: bytearray, start: int, end: int, value: bool = True) -> None:
    """Set or clear the bits ``start <= bit < end``, which the bitmap has."""
    if start >= end:
        return
    first, last = start >> 3, (end - 1) >> 3
    head, tail = 0xFF << (start & 7) & 0xFF, 0xFF >> (7 - (end - 1 & 7))
    if first == last:
        head &= tail
    for at, mask in ((first, head), (last, head if first == last else tail)):
        bitmap[at] = bitmap[at] | mask if value else bitmap[at] & ~mask & 0xFF
    if last - first > 1:
        bitmap[first + 1 : last] = (b"\xff" if value else b"\0") * (last - first - 1)


def count(bitmap: bytes | bytearray) -> int:
    """Return how many bits are set."""
    return sum(int.from_bytes(bitmap[at : at + BLOCK], "little").bit_count() for at in range(0, len(bitmap), BLOCK))


def runs(bitmap: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the runs of set bits, in ascending order. Imports numpy."""
    import numpy as np

    begun: int | None = None
    for at in range(0, len(bitmap), BLOCK):
        block = bytes(bitmap[at : at + BLOCK])
        if begun is None and not any(block):
            continue
        bits = np.unpackbits(np.frombuffer(block, np.uint8), bitorder="little")
        edges = np.nonzero(np.diff(bits, prepend=np.uint8(begun is not None)))[0] + at * 8
        for edge in edges.tolist():
            if begun is None:
                begun = edge
            else:
                yield begun, edge
                begun = None
    if begun is not None:
        yield begun, len(bitmap) * 8
