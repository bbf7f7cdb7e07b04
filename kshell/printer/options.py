"""What ``::print`` can be asked for; the letters are its options (mdb-language.md 11.2)."""

from __future__ import annotations

from typing import NamedTuple


class PrintOptions(NamedTuple):
    """How values are printed.

    :ivar addresses: ``-a`` the address before each member
    :ivar string_limit: ``-c`` arrays of char up to this many are tried as strings; None (``-C``) all
    :ivar decimal: ``-d`` integers in decimal
    :ivar holes: ``-h`` padding as ``<<HOLE>>`` members
    :ivar limit: ``-l`` elements of an array; None (``-L``) all
    :ivar plain: ``-n`` pointers without symbols and strings
    :ivar depth: ``-s`` levels that are opened; None all
    :ivar base_types: ``-T`` the type before each member, and ``<<base type>>`` where that differs
    :ivar types: ``-t`` the type before each member
    :ivar hexadecimal: ``-x`` integers in hexadecimal, signed bit-fields and enums too; wins over ``-d``
    """

    addresses: bool = False
    string_limit: int | None = 1024
    decimal: bool = False
    holes: bool = False
    limit: int | None = 32
    plain: bool = False
    depth: int | None = None
    base_types: bool = False
    types: bool = False
    hexadecimal: bool = False


DEFAULT = PrintOptions()
