"""The kernel's linked lists: list_head (a ring), hlist (ends in NULL), llist (single, lock-less).

Kernel source: include/linux/types.h, include/linux/list.h, include/linux/llist.h. In all three a node's first word is
the next node, and so is the head's, so one walk serves them; a walk that meets a node again is a
:class:`~kshell.errors.FormatError`, not an endless loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kshell.errors import FormatError, KshellError, ValueTypeError
from kshell.types.model import CType
from kshell.value import Vector, offsetof

if TYPE_CHECKING:
    from kshell.memory.model import Memory
    from kshell.target.target import Target

#: nodes after which a list is taken for damaged
LIMIT = 1 << 22
#: how often a list of a target that runs is followed before it is taken for damaged
TRIES = 4
#: ``list_head.prev`` is behind one pointer
POINTER = 8


def chase(memory: Memory, head: int, offset: int = 0, limit: int = LIMIT) -> list[int]:
    """Follow the pointer at ``node + offset`` from *head* until it is NULL or *head* again; return the nodes after it.

    :raises Fault: a node is not readable
    :raises FormatError: a node comes twice, or there are more than *limit*
    Both carry the nodes seen before in the attribute ``visited``. Where the memory moves the list is followed again
    before that: it may have been changed under our feet.
    """
    for left in reversed(range(TRIES if memory.moving else 1)):
        try:
            return _chase(memory, head, offset, limit)
        except KshellError as error:
            if not left:
                if memory.moving:
                    error.hint = f"it changes while it is read; {TRIES} tries failed; qmp: with --pause holds it still"
                raise
            memory.flush()
    return []


def _chase(memory: Memory, head: int, offset: int, limit: int) -> list[int]:
    fast = getattr(memory, "chase", None)
    if fast is not None:
        nodes: list[int] = fast(head, offset, limit)
        return nodes
    visited: list[int] = []
    seen = {head}
    node = head
    with _carrying(visited):
        while True:
            node = int.from_bytes(memory.read(node + offset, 8), "little")
            if node == 0 or node == head:
                return visited
            if node in seen or len(visited) >= limit:
                raise FormatError(f"list at 0x{head:x} does not end: 0x{node:x} comes again")
            seen.add(node)
            visited.append(node)


@contextmanager
def _carrying(visited: list[int]) -> Iterator[None]:
    """Put *visited* on an error that passes, so that what was seen before the damage can be shown."""
    try:
        yield
    except KshellError as error:
        error.visited = visited  # type: ignore[attr-defined]
        raise


def visited_before(error: KshellError) -> list[int]:
    """Return the nodes that a failed :func:`chase` saw before the damage."""
    return list(dict.fromkeys(getattr(error, "visited", ())))


def member_offset(ctype: CType, path: str) -> int:
    """Return the byte offset of a member, ``a.b[2].c`` included: offsetof(). Nothing is read.

    :raises MemberError: no such member
    :raises ValueTypeError: the path goes through a pointer, or ends in a bit-field
    """
    offset, bits = offsetof(ctype, path)
    if bits:
        raise ValueTypeError(f"member {path} of {ctype} is not byte-aligned")
    return offset


def list_for_each(target: Target, head: int) -> list[int]:
    """Return the addresses of the ``list_head`` nodes of the list whose head is at *head*, the head left out.

    :raises Fault, FormatError: as :func:`chase`, and of one that ends in NULL
    """
    return ring(target.kernel, head, chase(target.kernel, head))


def ring(memory: Memory, head: int, nodes: list[int], offset: int = 0) -> list[int]:
    """Return *nodes*, which :func:`chase` found from the ``list_head`` at *head*, if the last one leads back to it.

    A head of zeroes, which nobody has made a list yet, has none.

    :param offset: of the pointer that was followed
    :raises FormatError: it ends in NULL: damage, or a page of zeroes in the dump; ``visited`` are *nodes*
    """
    if nodes and not memory.moving and not int.from_bytes(memory.read(nodes[-1] + offset, 8), "little"):
        with _carrying(nodes):
            raise FormatError(f"the list at 0x{head:x} does not come back to its head: 0x{nodes[-1]:x} leads to NULL")
    return nodes


def from_both_ends(memory: Memory, head: int) -> tuple[list[int], list[int], KshellError | None]:
    """Return the nodes of the ``list_head`` at *head*; of one that is damaged those before and those behind the damage.

    What is behind it is found by the ``prev`` pointers, and is all of it where nothing of them is damaged: none are
    before then. The last node before and the first one behind may be where nothing can be read.
    """
    try:
        return ring(memory, head, chase(memory, head)), [], None
    except KshellError as error:
        damage = error
    behind, whole = from_behind(memory, head)
    return [] if whole else visited_before(damage), behind, damage


def from_behind(memory: Memory, head: int) -> tuple[list[int], bool]:
    """Return the nodes of the ``list_head`` at *head* that its ``prev`` pointers lead to, in its order; whether all."""
    try:
        return ring(memory, head, chase(memory, head, POINTER), POINTER)[::-1], True
    except KshellError as error:
        return visited_before(error)[::-1], False


def list_for_each_entry(target: Target, type: str | CType, head: int, member: str) -> Vector:
    """Return the structures of *type* that are on the list at *head* by their ``list_head`` *member*, in list order.

    :raises Fault, FormatError: as :func:`list_for_each`
    """
    ctype = target.type(type) if isinstance(type, str) else type
    offset = member_offset(ctype, member)
    return Vector(target, ctype, [node - offset for node in list_for_each(target, head)])


def hlist_for_each(target: Target, head: int) -> list[int]:
    """Return the addresses of the ``hlist_node`` nodes of the ``hlist_head`` at *head*."""
    return chase(target.kernel, head)


def chain(target: Target, first: int, offset: int) -> list[int]:
    """Return *first* and what follows through the pointer at *offset* of each: a plain ``next`` chain. NULL: none."""
    if first == 0:
        return []
    return [first, *chase(target.kernel, first, offset)]
