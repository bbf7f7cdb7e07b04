"""The values of a pipe in batches of objects of one type in one memory, for dcmds that read many objects at once.

The first batch is one value, so that the first line is there at once; later ones grow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError
from kshell.output import Item

if TYPE_CHECKING:
    from kshell.memory.model import Memory
    from kshell.output import TypeLike
    from kshell.session import Session

LARGEST = 4096


class Batch(NamedTuple):
    """Values that came one after the other and have the same type and memory.

    :ivar space: the memory their addresses are in, or why there is none (no process context)
    """

    type: TypeLike | None
    space: Memory | KshellError
    items: list[Item]


def batches(session: Session, values: Iterable[Item], largest: int = LARGEST) -> Iterator[Batch]:
    """Yield *values* in batches of at most *largest*."""
    size, held = 1, list[Item]()
    half = session.target.arch.kernel_half if session.has_target else 1 << 63
    for item in values:
        if held and (len(held) >= size or item.type != held[0].type
                     or (item.value >= half) != (held[0].value >= half)):
            yield _batch(session, held)
            size, held = min(4 * size, largest), []
        held.append(item)
        if len(held) == size == 1:
            yield _batch(session, held)
            size, held = min(4, largest), []
    if held:
        yield _batch(session, held)


def _batch(session: Session, items: list[Item]) -> Batch:
    try:
        space: Memory | KshellError = session.space(items[0].value)
    except KshellError as error:
        space = error
    return Batch(items[0].type, space, items)
