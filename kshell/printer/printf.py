"""``::printf``: a format with one conversion for each member of an object (mdb-language.md 11.3).

Dates are UTC, as in ``::print``. Unlike in mdb, ``%a %A %p`` take integers of 8 bytes too, for the kernel keeps
addresses in ``unsigned long``. Whatever comes from the target as text is escaped here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from kshell.errors import Fault, KshellError, UsageError
from kshell.escape import escape
from kshell.lang.numbers import to_radix
from kshell.printer.scalars import address_text, date, ipv4, ipv6
from kshell.types.model import ArrayType, CType, Kind, PointerType
from kshell.value.path import Route, route, route_at
from kshell.value.shape import shape_of
from kshell.value.value import Value

SIGNED, UNSIGNED, POINTERS = "dqR", "ouxXrHY", "aAp"
_ALL = "a A d H I N o p q r R s u x X Y"
_LETTERS = frozenset(_ALL.split())
_MAX_WIDTH = 4096
_STRING = 4096  # bytes of a string at most
_UNITS = "KMGTPE"


class Conversion(NamedTuple):
    """``%-08x``: its letter, and how its text is padded."""

    letter: str
    width: int = 0
    left: bool = False
    zeros: bool = False

    def pad(self, text: str) -> str:
        """Return *text* in its field."""
        if self.left:
            return text.ljust(self.width)
        if self.zeros and self.letter not in "aAsINYH":
            return text.zfill(self.width)
        return text.rjust(self.width)


def parse_printf(format: str, pointer_size: int = 8) -> list[str | Conversion]:
    """Return the pieces of a format: text as it is, and conversions.

    :raises KshellError: a conversion that there is not; its text has the position, counted from 1
    """
    pieces: list[str | Conversion] = []
    at = 0
    while at < len(format):
        start = format.find("%", at)
        if start < 0:
            pieces.append(format[at:])
            break
        if start > at:
            pieces.append(format[at:start])
        at = start + 1
        left = zeros = False
        while format[at : at + 1] in ("-", "0"):
            left, zeros = left or format[at] == "-", zeros or format[at] == "0"
            at += 1
        digits = at
        while format[at : at + 1] in tuple("0123456789"):
            at += 1
        width = int(format[digits:at][:9] or "0")
        if format[at : at + 1] == "?":
            width, at = 2 * pointer_size, at + 1
        letter = format[at : at + 1]
        at += 1
        if letter == "%" and at == start + 2:
            pieces.append("%")
        elif letter in _LETTERS and letter and width <= _MAX_WIDTH:
            pieces.append(Conversion(letter, width, left, zeros))
        else:
            raise KshellError(f"illegal format string at or near '{letter or '%'}' (position {at})",
                              hint=f"conversions: {_ALL}; - 0 width ? before them")
    return pieces


class Printf:
    """A format and members, fitted to a type.

    :ivar warnings: array bounds that members pass; they are shown all the same
    :raises UsageError: no member
    :raises KshellError: the format is wrong, or has more or fewer conversions than there are members, or a conversion
        does not fit its member
    """

    def __init__(self, format: str, type: CType, members: Sequence[str | int], radix: int = 16) -> None:
        if not members:
            raise UsageError("at least one member must be specified", hint=". is the address itself")
        self._radix = radix
        self._pieces = parse_printf(format)
        conversions = [piece for piece in self._pieces if isinstance(piece, Conversion)]
        found, expected = len(conversions), len(members)
        if found != expected:
            word = "missing" if found < expected else "extra"
            raise KshellError(f"{word} format specifiers (found {found}, expected {expected})")
        self._routes: list[Route | None] = []
        self.warnings: list[str] = []
        for conversion, member in zip(conversions, members, strict=True):
            if member == ".":
                if conversion.letter not in SIGNED + UNSIGNED + POINTERS:
                    raise KshellError(f"%{conversion.letter} does not fit an address, which . is")
                self._routes.append(None)
                continue
            where = route_at(type, member)[1] if isinstance(member, int) else route(type, member, radix)
            why = _misfit(conversion.letter, where.type, where.width is not None)
            if why:
                raise KshellError(f"{why} for %{conversion.letter}, not {member}, which is a {where.type}")
            self._routes.append(where)
            self.warnings += where.warnings

    def text(self, value: Value) -> str:
        """Return the format with the members of *value* in it.

        :raises Fault: a member, or a string that it points to, cannot be read
        """
        routes = iter(self._routes)
        shown: list[str] = []
        for piece in self._pieces:
            if isinstance(piece, str):
                shown.append(piece)
                continue
            where = next(routes)
            if where is None:
                text = self._number(piece.letter, value.address, 64, value)
            else:
                space, address = value.locate(where)
                member = Value(value.target, where.type, address, space, where.bit, where.width)
                text = self._member(piece.letter, member)
            shown.append(piece.pad(text))
        return "".join(shown)

    def _member(self, letter: str, member: Value) -> str:
        if letter == "s":
            return _string(member)
        if letter == "I":
            return ipv4(member.bytes())
        if letter == "N":
            return ipv6(member.bytes())
        bits = member.bit_size or 8 * member.shape.size
        return self._number(letter, member.integer(), bits, member)

    def _number(self, letter: str, number: int, bits: int, value: Value) -> str:
        unsigned = number & ((1 << bits) - 1)
        if letter in "aA":
            if letter == "A" and value.target.symbolize(unsigned) is None:
                return ""
            return address_text(value.target, unsigned, self._radix)
        if letter in SIGNED:
            if value.bit_size is None:
                number = unsigned - (1 << bits if unsigned >> bits - 1 else 0)
            return to_radix(number, {"q": 8, "R": self._radix}.get(letter, 10))
        if letter == "Y":
            signed = unsigned - (1 << bits if bits and unsigned >> bits - 1 else 0)
            return date(signed) or to_radix(unsigned, self._radix)
        return _UNSIGNED[letter](unsigned, self._radix)


def _misfit(letter: str, type: CType, bitfield: bool) -> str:
    """Return what *letter* expects if *type* is something else, else ""."""
    shape = shape_of(type)
    if letter == "s":
        bare = shape.bare
        texts = isinstance(bare, (ArrayType, PointerType)) and shape_of(bare.target).size <= 1 and (
            bare.target.strip().kind in (Kind.CHAR, Kind.INT, Kind.VOID))
        return "" if texts or shape.kind is Kind.ENUM else "expected string or enum type"
    if letter == "I":
        return "" if shape.size == 4 and not bitfield else "expected 32-bit type"
    if letter == "N":
        return "" if shape.size == 16 else "expected in6_addr type"
    if letter in POINTERS:
        return "" if shape.integer and shape.size == 8 and not bitfield else "expected pointer type"
    return "" if shape.integer else "expected integer type"


def _string(member: Value) -> str:
    if member.shape.kind is Kind.ENUM:
        name = member.enumerator()
        return f"<{member.integer()}>" if name is None else escape(name)
    if member.shape.kind is Kind.POINTER and member.integer() == 0:
        return "<NULL>"
    try:
        return escape(member.string(_STRING))
    except Fault as fault:
        # An array that ends before its NUL is told as far as it goes; a pointer into nothing is an error.
        if fault.partial and member.shape.kind is Kind.ARRAY:
            return escape(fault.partial.decode("utf-8", "surrogateescape"))
        raise


def human(number: int) -> str:
    """Return *number* of bytes in at most five characters: ``999``, ``1.50K``, ``1M``, ``15.9G``."""
    if number < 1024:
        return str(number)
    power = min((number.bit_length() - 1) // 10, len(_UNITS))
    unit, base = _UNITS[power - 1], 1 << 10 * power
    if number % base == 0:
        return f"{number // base}{unit}"
    for digits in (2, 1):
        text = f"{number / base:.{digits}f}{unit}"
        if len(text) <= 5:
            return text
    return f"{number / base:.0f}{unit}"


_UNSIGNED: dict[str, Callable[[int, int], str]] = {
    "o": lambda number, _: f"{number:o}",
    "u": lambda number, _: str(number),
    "x": lambda number, _: f"{number:x}",
    "X": lambda number, _: f"{number:X}",
    "p": lambda number, _: f"{number:x}",
    "r": to_radix,
    "H": lambda number, _: human(number),
}
