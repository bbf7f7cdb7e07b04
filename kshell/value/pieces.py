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


class Piece(NamedTuple):
    """A member of one object: where it is, in which memory, and its bytes."""

    address: int
    space: Memory
    data: bytes


def pieces(
    target: ValueTarget, addresses: Sequence[int], space: Memory, routes: list[Route],
) -> list[list[Piece | Fault]]:
    """Return for each of *routes* the members of the objects at *addresses* of *space*, or why one cannot be read.

    Members that lie close together are read at once; pointers on the way are followed for all objects together.
    """
    order = target.arch.byteorder
    ends: dict[tuple[int, ...], tuple[Sequence[int], Memory]] = {(): (addresses, space)}
    columns: list[list[Piece | Fault]] = [[] for _ in routes]
    for group in groups(routes, SMALL_GAP):
        for depth in range(1, len(group.hops) + 1):
            if group.hops[:depth] not in ends:
                pointers, before = ends[group.hops[: depth - 1]]
                rows = before.read_many([(pointer + group.hops[depth - 1]) & WRAP for pointer in pointers], 8)
                found = [int.from_bytes(row or b"", order) for row in rows]
                ends[group.hops[:depth]] = found, through(before, target.kernel)
        starts, memory = ends[group.hops]
        rows = memory.read_many([(start + group.low) & WRAP for start in starts], group.size)
        for number in group.numbers:
            route = routes[number]
            at, end, offset = route.offset - group.low, route.offset - group.low + route.size, route.offset
            columns[number] = [
                _single(target, addresses[place], space, route) if row is None
                else Piece((start + offset) & WRAP, memory, row[at:end])
                for place, (row, start) in enumerate(zip(rows, starts, strict=True))]
    return columns


def _single(target: ValueTarget, address: int, space: Memory, route: Route) -> Piece | Fault:
    """Return one member, read on its own."""
    try:
        for hop in route.hops:
            address = int.from_bytes(space.read((address + hop) & WRAP, 8), target.arch.byteorder)
            space = through(space, target.kernel)
        place = (address + route.offset) & WRAP
        return Piece(place, space, space.read(place, route.size))
    except Fault as fault:
        return fault
