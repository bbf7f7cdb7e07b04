"""Red-black trees, in order.

Kernel source: ``struct rb_node`` and ``struct rb_root`` in include/linux/rbtree_types.h (include/linux/rbtree.h before
5.15). The layout is fixed: {parent and colour, right, left}; ``rb_root`` and ``rb_root_cached`` begin with the root.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kshell.errors import FormatError
from kshell.linux.lists import LIMIT, member_offset
from kshell.types.model import CType
from kshell.value import Vector

if TYPE_CHECKING:
    from kshell.target.target import Target

_NODE = struct.Struct("<3Q")
#: a red-black tree of 2**64 nodes is not deeper
MAX_DEPTH = 128


def rbtree_for_each(target: Target, root: int, limit: int = LIMIT) -> Iterator[int]:
    """Yield the addresses of the ``rb_node`` nodes of the ``rb_root`` (or ``rb_root_cached``) at *root*, in order.

    :raises Fault: a node is not readable
    :raises FormatError: a node comes twice, the tree is too deep, or has more than *limit* nodes
    """
    read = target.kernel.read
    node = int.from_bytes(read(root, 8), "little")
    seen: set[int] = set()
    path: list[tuple[int, int]] = []  # nodes whose left side is being walked, with their right side
    while node or path:
        while node:
            if node in seen or len(seen) >= limit or len(path) >= MAX_DEPTH:
                raise FormatError(f"red-black tree at 0x{root:x} is damaged: 0x{node:x} comes again or is too deep")
            seen.add(node)
            _parent, right, left = _NODE.unpack(read(node, 24))
            path.append((node, right))
            node = left
        here, node = path.pop()
        yield here


def rbtree_for_each_entry(target: Target, type: str | CType, root: int, member: str) -> Vector:
    """Return the structures of *type* in the tree at *root* by their ``rb_node`` *member*, in order."""
    ctype = target.type(type) if isinstance(type, str) else type
    offset = member_offset(ctype, member)
    return Vector(target, ctype, [node - offset for node in rbtree_for_each(target, root)])
