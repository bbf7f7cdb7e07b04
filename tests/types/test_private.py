"""Symbols that the user adds: asked before the target's, by name and by address."""

from __future__ import annotations

from kshell.types.model import Symbol
from kshell.types.names import SymbolIndex
from kshell.types.private import PrivateSymbols


def test_private_symbols_come_first_and_go_again() -> None:
    table = PrivateSymbols()
    table.add(Symbol("schedule", 0x1000, 0x100, "T"))
    index = SymbolIndex([table])
    assert index.lookup("schedule").address == 0x1000
    index.private.add(Symbol("schedule", 0x2000, 8, "?"))
    index.private.add(Symbol("mine", 0x1010, 0, "?"))
    assert index.lookup("schedule").address == 0x2000
    assert index.at(0x1010) == (Symbol("mine", 0x1010, 0, "?"), 0)
    assert index.at(0x1011) == (Symbol("schedule", 0x1000, 0x100, "T"), 0x11)
    assert index.starting("", 9) == ["mine", "schedule"]
    removed = index.private.remove("schedule")
    assert removed is not None and removed.address == 0x2000
    assert index.private.remove("schedule") is None
    assert index.lookup("schedule").address == 0x1000


def test_the_closest_of_several_covers_an_address() -> None:
    table = PrivateSymbols()
    table.add(Symbol("outer", 0x1000, 0x100, "D"))
    table.add(Symbol("inner", 0x1010, 0x10, "D"))
    found = [table.at(address) for address in (0x1008, 0x1018, 0x1020, 0x1100)]
    assert [one and one.name for one in found] == ["outer", "inner", "outer", None]
    assert len(table) == 2 and sorted(one.name for one in table) == ["inner", "outer"]
