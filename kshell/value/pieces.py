"""The bytes of some members of many objects, read in runs: what printing a pipeline of objects is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kshell.errors import Fault
from kshell.memory.model import Memory
from kshell.value.layers import through
from kshell.value.path import Route
from kshell.value.value import WRAP, ValueTarget
from kshell.value.vector import SMALL_GAP, groups


class Pieces(NamedTuple):
    """One member of many objects.

    :ivar space: the memory it is in; ``starts`` and ``offset``: where, for each object
    :ivar data: its bytes, or None where they cannot be read; :meth:`whole` says whether there are such
    """

    space: Memory
    starts: Sequence[int]
    offset: int
    data: list[bytes | None]

    def address(self, number: int) -> int:
        """Return where the member of object *number* is."""
        return (self.starts[number] + self.offset) & WRAP


def pieces(
    target: ValueTarget, addresses: Sequence[int], space: Memory, routes: list[Route],
) -> list[Pieces]:
    """Return for each of *routes* the members of the objects at *addresses* of *space*.

    Members that lie close together are read at once; pointers on the way are followed for all objects together. A
    group that cannot be read whole for an object is tried member by member.
    """
    order = target.arch.byteorder
    ends: dict[tuple[int, ...], tuple[Sequence[int], Memory]] = {(): (addresses, space)}
    columns: list[Pieces | None] = [None] * len(routes)
    for group in groups(routes, SMALL_GAP):
        for depth in range(1, len(group.hops) + 1):
            if group.hops[:depth] not in ends:
                pointers, before = ends[group.hops[: depth - 1]]
                rows = before.read_many([(pointer + group.hops[depth - 1]) & WRAP for pointer in pointers],
                                        target.arch.pointer_size)
                found = [int.from_bytes(row or b"", order) for row in rows]
                ends[group.hops[:depth]] = found, through(before, target.kernel)
        starts, memory = ends[group.hops]
        rows = memory.read_many([(start + group.low) & WRAP for start in starts], group.size)
        lost = [number for number, row in enumerate(rows) if row is None]
        for number in group.numbers:
            route = routes[number]
            at, end = route.offset - group.low, route.offset - group.low + route.size
            if not lost:
                data: list[bytes | None] = [row[at:end] for row in rows]  # type: ignore[index]
            else:
                data = [None if row is None else row[at:end] for row in rows]
                for place in lost:
                    try:
                        data[place] = memory.read((starts[place] + route.offset) & WRAP, route.size)
                    except Fault:
                        continue
            columns[number] = Pieces(memory, starts, route.offset, data)
    return [column for column in columns if column is not None]
