"""Maple trees: ranges of an unsigned long to pointers (the VMAs of a process since Linux 6.1).

Kernel source: include/linux/maple_tree.h, lib/maple_tree.c (54a611b60590, 6.1). A pointer to a node carries the
node's type in bits 3..6; in the root it is marked as an XArray internal entry (low bits 10), in nodes it is not. Nodes
are 256 bytes and aligned so. A root that is no node is a single entry for index 0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import FormatError
from kshell.linux.lists import member_offset
from kshell.types.model import ArrayType, StructType

if TYPE_CHECKING:
    from kshell.target.target import Target

ULONG_MAX = (1 << 64) - 1
NODE_SIZE = 256
#: enum maple_type
DENSE, LEAF_64, RANGE_64, ARANGE_64 = range(4)
#: MAPLE_HEIGHT_MAX
MAX_HEIGHT = 31


class _Layout(NamedTuple):
    """Where a kind of node keeps its pivots and slots: byte offsets and counts."""

    pivot: int
    pivots: int
    slot: int
    slots: int


class MapleEntry(NamedTuple):
    """*entry* is stored for the indexes *first* to *last*, both included."""

    first: int
    last: int
    entry: int


def _layout(target: Target, name: str) -> _Layout:
    node = target.type(name).strip()
    if not isinstance(node, StructType):
        raise FormatError(f"{name} is not a structure in these types")
    slot = node.member("slot")
    slots = slot.type.strip()
    pivot, pivots = 0, 0
    if node.has("pivot"):
        member = node.member("pivot")
        array = member.type.strip()
        pivot, pivots = member.offset, array.count if isinstance(array, ArrayType) else 0
    if not isinstance(slots, ArrayType) or slot.offset + slots.count * 8 > NODE_SIZE or pivot + pivots * 8 > NODE_SIZE:
        raise FormatError(f"{name} is not laid out as a maple node")
    return _Layout(pivot, pivots, slot.offset, slots.count)


def _layouts(target: Target) -> list[_Layout]:
    """Return the layouts by ``enum maple_type``."""
    ranges = _layout(target, "struct maple_range_64")
    dense = _Layout(0, 0, 8, (NODE_SIZE - 8) // 8)  # struct maple_node: {parent; slot[31]}
    return [dense, ranges, ranges, _layout(target, "struct maple_arange_64")]


def _is_node(entry: int) -> bool:
    """xa_is_node(): an internal entry that is not one of the small reserved numbers."""
    return entry & 3 == 2 and entry > 4096


def maple_for_each(target: Target, tree: int) -> Iterator[MapleEntry]:
    """Yield the entries of the ``struct maple_tree`` at *tree*, ascending. Empty ranges are left out.

    :raises Fault: the tree or a node is not readable; what was yielded before stands
    :raises FormatError: pivots out of order, a node met twice, an unknown node type or too deep a tree
    """
    kind = target.type("struct maple_tree")
    root = int.from_bytes(target.kernel.read(tree + member_offset(kind, "ma_root"), 8), "little")
    if not _is_node(root):
        if root and root & 3 != 2:
            yield MapleEntry(0, 0, root)
        return
    yield from _Walk(target, tree).node(root, 0, ULONG_MAX, 0)


class _Walk:
    """One walk over one tree: the layouts, and the nodes met so far."""

    def __init__(self, target: Target, tree: int) -> None:
        self.read = target.kernel.read
        self.layouts = _layouts(target)
        self.tree = tree
        self.met: set[int] = set()

    def node(self, encoded: int, low: int, high: int, depth: int) -> Iterator[MapleEntry]:
        """Yield the entries below the node pointer *encoded*, which covers *low* to *high*."""
        kind, address = encoded >> 3 & 15, encoded & ~(NODE_SIZE - 1)
        if kind >= len(self.layouts) or depth > MAX_HEIGHT or address in self.met:
            raise FormatError(f"maple tree at 0x{self.tree:x} is damaged: node 0x{encoded:x} at depth {depth}")
        self.met.add(address)
        layout = self.layouts[kind]
        words = struct.unpack("<32Q", self.read(address, NODE_SIZE))
        pivots = words[layout.pivot // 8 : layout.pivot // 8 + layout.pivots]
        slots = words[layout.slot // 8 : layout.slot // 8 + layout.slots]
        first = low
        for number, entry in enumerate(slots):
            if kind == DENSE:
                last = first
            elif number >= len(pivots) or (number and not pivots[number]):
                last = high  # mas_logical_pivot(): a pivot of 0 behind the first one is the node's maximum
            else:
                last = pivots[number]
            if last > high or last < first:
                raise FormatError(f"maple tree at 0x{self.tree:x} is damaged: pivots of node 0x{encoded:x}")
            if kind in (DENSE, LEAF_64):
                if entry and entry & 3 != 2:
                    yield MapleEntry(first, last, entry)
            elif entry > 4096 and not entry & 3:
                yield from self.node(entry, first, last, depth + 1)
            elif entry:
                raise FormatError(f"maple tree at 0x{self.tree:x} is damaged: 0x{entry:x} where a node should be")
            if last == high:
                return
            first = last + 1
