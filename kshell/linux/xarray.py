"""XArrays, radix trees and IDRs: an unsigned long to a pointer.

Kernel source: include/linux/xarray.h, lib/xarray.c, include/linux/idr.h. Since 4.20 (f8d5d0cc145c) ``radix_tree_root``
is another name for ``struct xarray``; before, nodes were marked by the lowest bit and values by the next one. The tree
that an address holds is told by the types.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import FormatError
from kshell.linux.lists import member_offset
from kshell.types.model import ArrayType, StructType

if TYPE_CHECKING:
    from kshell.target.target import Target

#: a chunk of 16 slots needs 16 levels for 64 bits; of 64 slots 11
MAX_HEIGHT = 16


class XaEntry(NamedTuple):
    """*entry* is stored for the index, or id, *key*."""

    key: int
    entry: int


class _Layout(NamedTuple):
    """Offsets of the head and in a node, and how a pointer to a node is marked."""

    head: int
    shift: int
    slots: int
    width: int
    size: int
    mark: int  # low two bits of a pointer to a node


def _layout(target: Target) -> _Layout:
    # 4.20+ (f8d5d0cc145c "xarray: Add definition of struct xarray"), else radix_tree_root of 4.7+
    root = target.types.get("struct xarray")
    if root is not None:
        node, head, mark = target.type("struct xa_node").strip(), member_offset(root, "xa_head"), 2
    else:
        root, node = target.type("struct radix_tree_root"), target.type("struct radix_tree_node").strip()
        head, mark = member_offset(root, "rnode"), 1
    assert isinstance(node, StructType)
    slots = node.member("slots").type.strip()
    count = slots.count if isinstance(slots, ArrayType) else 0
    if count not in (16, 64):
        raise FormatError(f"an XArray node of {count} slots is not known")
    offset = node.member("slots").offset
    return _Layout(head, node.member("shift").offset, offset, count, offset + count * 8, mark)


def _node_of(entry: int, layout: _Layout) -> int:
    """Return the address of the node that *entry* points to, or 0 when it is an entry, a sibling or reserved."""
    return entry - layout.mark if entry & 3 == layout.mark and entry > 4096 else 0


def _is_value(entry: int, layout: _Layout) -> bool:
    """Whether *entry* is something that a user stored."""
    return entry != 0 and entry & 3 != layout.mark


def xa_for_each(target: Target, xa: int) -> Iterator[XaEntry]:
    """Yield the entries of the ``struct xarray`` (``radix_tree_root``) at *xa*, ascending.

    A multi-index entry comes once, at its first index. Value entries come as they are stored, low bits and all.

    :raises Fault: the root or a node is not readable; what was yielded before stands
    :raises FormatError: a node met twice, an impossible shift
    """
    layout = _layout(target)
    head = int.from_bytes(target.kernel.read(xa + layout.head, 8), "little")
    node = _node_of(head, layout)
    if not node:
        if _is_value(head, layout):
            yield XaEntry(0, head)
        return
    yield from _for_each(target, xa, layout, node, 0, 64, {node})


def _for_each(
    target: Target, xa: int, layout: _Layout, node: int, base: int, above: int, met: set[int]
) -> Iterator[XaEntry]:
    """Yield the entries below *node*, whose first index is *base* and whose shift must be under *above*."""
    shift, slots = _read_node(target, xa, layout, node, above)
    for number, entry in enumerate(slots):
        index = base + (number << shift)
        child = _node_of(entry, layout)
        if child and shift:
            if child in met:
                raise FormatError(f"xarray at 0x{xa:x} is damaged: node 0x{child:x} comes again")
            met.add(child)
            yield from _for_each(target, xa, layout, child, index, shift, met)
        elif _is_value(entry, layout):
            yield XaEntry(index, entry)


def _read_node(target: Target, xa: int, layout: _Layout, node: int, above: int) -> tuple[int, memoryview]:
    raw = target.kernel.read(node, layout.size)
    shift = raw[layout.shift]
    if shift >= above or shift % (layout.width.bit_length() - 1):
        raise FormatError(f"xarray at 0x{xa:x} is damaged: node 0x{node:x} has shift {shift}")
    return shift, memoryview(raw)[layout.slots :].cast("Q")


def xa_load(target: Target, xa: int, index: int) -> int:
    """Return the entry for *index* in the ``struct xarray`` at *xa*, 0 when there is none.

    :raises Fault, FormatError: as :func:`xa_for_each`
    """
    layout = _layout(target)
    entry = int.from_bytes(target.kernel.read(xa + layout.head, 8), "little")
    node = _node_of(entry, layout)
    if not node:
        return entry if index == 0 and _is_value(entry, layout) else 0
    above = 64
    while node:
        shift, slots = _read_node(target, xa, layout, node, above)
        if above == 64 and index >> shift >= layout.width:
            return 0
        slot = index >> shift & layout.width - 1
        entry = slots[slot]
        if layout.mark == 2 and entry & 3 == 2 and entry < layout.width << 2:
            entry = slots[entry >> 2]  # a sibling: the slot that holds the multi-index entry
        node, above = _node_of(entry, layout) if shift else 0, shift
    return entry if _is_value(entry, layout) else 0


def _idr_tree(target: Target, idr: int) -> tuple[int, int]:
    """Return the address of the tree in a ``struct idr`` and the number that its index 0 stands for."""
    kind = target.type("struct idr").strip()
    assert isinstance(kind, StructType)
    base = 0
    if kind.has("idr_base"):  # 4.16+ (6ce711f27500 "idr: Make 1-based IDRs more efficient")
        base = int.from_bytes(target.kernel.read(idr + kind.member("idr_base").offset, 4), "little")
    return idr + kind.member("idr_rt").offset, base


def idr_for_each(target: Target, idr: int) -> Iterator[XaEntry]:
    """Yield the ids and pointers of the ``struct idr`` at *idr*, ascending."""
    tree, base = _idr_tree(target, idr)
    for index, entry in xa_for_each(target, tree):
        yield XaEntry(index + base, entry)


def idr_find(target: Target, idr: int, number: int) -> int:
    """Return the pointer that the ``struct idr`` at *idr* holds for *number*, 0 when it holds none."""
    tree, base = _idr_tree(target, idr)
    return xa_load(target, tree, number - base) if number >= base else 0
