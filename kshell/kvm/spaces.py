"""Naming an address space: KAS, PHYS, and the space of a process.

In libkvm a space is named by the address of its kernel structure, NULL means physical and the value of ``kas`` the
kernel. Here the two special ones are constants of a type of their own, so that no number is taken for a space.
"""

from __future__ import annotations

from typing import Final

from kshell.kvm.backend import Facts


class Space:
    """An address space of one target. Equal when it names the same space."""

    __slots__ = ("facts", "name", "owner")

    def __init__(self, name: str, facts: Facts | None = None, owner: object = None) -> None:
        self.name: Final = name
        self.facts: Final = facts
        self.owner: Final = owner

    def _identity(self) -> tuple[object, ...]:
        facts = self.facts
        return (self.name, self.owner, facts and (facts.pid, facts.start, facts.mm))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        return self.name if self.facts is None else f"<user space of process {self.facts.pid}>"


#: The kernel's address space.
KAS: Final = Space("KAS")
#: Physical memory.
PHYS: Final = Space("PHYS")
#: Whatever process getu selected last; used inside the binding only.
SELECTED: Final = Space("SELECTED")
