"""The values of a pipe in batches of objects of one type in one memory, for dcmds that read many objects at once.

The first batch is one value, so that the first line is there at once; later ones grow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError
from kshell.output import Item, Items

if TYPE_CHECKING:
    from kshell.arguments import Values
    from kshell.memory.model import Memory
    from kshell.output import TypeLike
    from kshell.session import Session

LARGEST = 4096


class Batch(NamedTuple):
    """Values that came one after the other and have the same type and memory.

    :ivar space: the memory the addresses are in, or why there is none (no process context)
    :ivar bindings: the walk variables of each; None: none has any
    """

    type: TypeLike | None
    space: Memory | KshellError
    addresses: Sequence[int]
    bindings: list[Mapping[str, int] | None] | None = None

    def items(self) -> Iterator[Item]:
        """Yield the values as they came."""
        for number, address in enumerate(self.addresses):
            yield Item(address, self.type, None if self.bindings is None else self.bindings[number])


def batches(session: Session, values: Values, largest: int = LARGEST) -> Iterator[Batch]:
    """Yield *values* in batches of at most *largest*."""
    half = session.target.arch.kernel_half if session.has_target else 1 << 63
    size, held = 1, list[Item]()
    for chunk in values.chunks():
        if isinstance(chunk, Items):
            if held:
                yield _of_items(session, held)
                held = []
            for run in _halves(chunk.values, half):
                at = 0
                while at < len(run):
                    yield Batch(chunk.type, _space(session, run[at]), run[at : at + size])
                    at, size = at + size, min(4 * size, largest)
            continue
        if held and (chunk.type != held[0].type or (chunk.value >= half) != (held[0].value >= half)):
            yield _of_items(session, held)
            held = []
        held.append(chunk)
        if len(held) >= size:
            yield _of_items(session, held)
            size, held = min(4 * size, largest), []
    if held:
        yield _of_items(session, held)


def _halves(values: Sequence[int], half: int) -> Iterator[Sequence[int]]:
    """Yield runs of *values* that are in the same half of the address space."""
    if not values or min(values) >= half or max(values) < half:
        yield values
        return
    start = 0
    for at in range(1, len(values) + 1):
        if at == len(values) or (values[at] >= half) != (values[start] >= half):
            yield values[start:at]
            start = at


def _space(session: Session, address: int) -> Memory | KshellError:
    try:
        return session.space(address)
    except KshellError as error:
        return error


def _of_items(session: Session, items: list[Item]) -> Batch:
    bindings = [item.bindings for item in items]
    return Batch(items[0].type, _space(session, items[0].value), [item.value for item in items],
                 bindings if any(bindings) else None)
