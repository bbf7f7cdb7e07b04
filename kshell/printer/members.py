"""The members that ``::print`` is asked for: as text, as values for a pipe, as JSON (mdb-language.md 11.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from kshell.errors import Fault
from kshell.escape import escape
from kshell.printer.options import DEFAULT, PrintOptions
from kshell.printer.scalars import reason_text
from kshell.printer.structure import format_layout, format_value
from kshell.printer.tojson import error_json, to_json
from kshell.types.model import CType
from kshell.value.path import Route, route, route_at
from kshell.value.shape import is_struct, span
from kshell.value.value import Value, ValueTarget


class Part(NamedTuple):
    """One member asked for: its name as it is shown, what comes before its own members, and where it is."""

    name: str
    suffix: str
    route: Route


class Selection:
    """The members of a type that a command line names; an integer stands for ``$[offset]``.

    :ivar warnings: array bounds that were passed; the members are shown all the same
    :raises MemberError, ValueTypeError, ParseError, KshellError: a member that the type does not have
    """

    def __init__(self, type: CType, members: Sequence[str | int], radix: int = 16) -> None:
        self.type = type
        self.parts = [_part(type, member, radix) for member in members]
        self.warnings = [warning for part in self.parts for warning in part.route.warnings]

    def lines(self, value: Value, options: PrintOptions = DEFAULT) -> Iterator[str]:
        """Yield the lines of each member of *value*. One that cannot be read says so in its place.

        :raises Fault: none of them can be read
        """
        held: list[str] = []
        first: Fault | None = None
        good = False
        for part in self.parts:
            try:
                found = _value(value, part.route)
                for line in format_value(found, options, part.name, part.suffix):
                    yield from held
                    held, good = [], True
                    yield line
            except Fault as fault:
                first = first or fault
                text = f"{escape(part.name)} = {reason_text(fault)}"
                if good:
                    yield text
                else:
                    held.append(text)
        if first is not None and not good:
            raise first

    def layout(self, target: ValueTarget, options: PrintOptions = DEFAULT) -> Iterator[str]:
        """Yield the lines of each member without values; offsets are from the object that holds the member."""
        for name, suffix, found in self.parts:
            yield from format_layout(target, found.type, options, name, suffix, found.offset, found.bit, found.width)

    def pipe(self, value: Value, addresses: bool = False) -> Iterator[int]:
        """Yield what a pipe gets of each member: see :func:`pipe_value`.

        :raises Fault: a member cannot be read
        """
        for part in self.parts:
            yield pipe_value(_value(value, part.route), addresses)

    def json(self, value: Value, depth: int | None = None, limit: int | None = None) -> dict[str, Any]:
        """Return the members by name, each as :func:`~kshell.printer.tojson.to_json` has it."""
        result: dict[str, Any] = {}
        for name, _, found in self.parts:
            try:
                result[name] = to_json(_value(value, found), depth, limit)
            except Fault as fault:
                result[name] = error_json(fault)
        return result


def _value(value: Value, found: Route) -> Value:
    space, address = value.locate(found)
    return Value(value.target, found.type, address, space, found.bit, found.width)


def _part(type: CType, member: str | int, radix: int) -> Part:
    if isinstance(member, int):
        name, found = route_at(type, member)
        return Part(name, "." if name else "", found)
    found = route(type, member, radix)
    if not is_struct(found.type):
        return Part(member, "", found)
    if found.element:
        return Part(member[: member.rindex("[")], "->", found)
    return Part(member, ".", found)


def pipe_value(value: Value, addresses: bool = False) -> int:
    """Return the 64-bit number that a pipe gets: pointers, integers and enums their value, other objects their address.

    :param addresses: always the address (``-a``); of a bit-field that of its first byte
    :raises Fault: the value cannot be read
    A negative number is the unsigned one of its size, as mdb has it: an ``int`` of -1 is 0xffffffff.
    """
    shape = value.shape
    if addresses or not shape.integer:
        return value.address
    number = value.integer()
    bits = value.bit_size or 8 * span(shape, 0, None)
    return number & ((1 << min(bits, 64)) - 1)
