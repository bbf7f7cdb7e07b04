"""Symbols of a target by name, as every backend of libkvm's binding answers them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kshell.errors import KshellError, SymbolNotFoundError
from kshell.types.model import Symbol

if TYPE_CHECKING:
    from kshell.target.target import Target


def find_symbols(target: Target, name: str) -> Sequence[Symbol]:
    """Return the symbols of this exact name: the kernel's (the program's) if it has any, else the modules'.

    A dump's VMCOREINFO is asked where no table has it.

    :raises KshellError: there are no symbols at all; says why
    """
    found = target.symbols.find_all(name)
    if found:
        return [symbol for symbol in found if symbol.module is None] or found
    told = target.vmcoreinfo.symbol(name) if target.vmcoreinfo else None
    if told is not None:
        return [Symbol(name, told, 0, "?")]
    if len(target.symbols) == 0:
        raise KshellError(f"cannot look up {name}: {target.findings.get('symbols', 'no symbols')}")
    return []


def near_names(target: Target, name: str) -> Sequence[str]:
    """Return names that are like *name*, which no table has."""
    try:
        target.symbols.lookup(name)
    except SymbolNotFoundError as error:
        return error.near
    return ()
