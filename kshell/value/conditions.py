"""Conditions over the members of many objects: columns are read in runs, then each row is looked at.

Source of the meaning: C, on the values as they are declared; what cannot be read makes its row an error, not false.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from kshell.errors import Fault, KshellError, NotFoundError, ParseError
from kshell.lang.conditions import Binary, Name, Node, Number, String, Unary
from kshell.memory.model import Memory
from kshell.types.model import ArrayType, CType, EnumType, Kind, PointerType, Symbol
from kshell.value.layers import through
from kshell.value.path import Route, route
from kshell.value.shape import shape_of
from kshell.value.value import ValueTarget
from kshell.value.vector import Vector

MASK = (1 << 64) - 1
#: bytes of a string behind a ``char *`` that are compared
STRING = 4096

Row = int
Cell = Callable[[Row], Any]
Columns = list[list[Any]]


class ConditionTarget(ValueTarget, Protocol):
    """What conditions need of a target besides its memory."""

    def symbol(self, name: str) -> Symbol: ...


class Condition:
    """A condition bound to a type.

    :param type: of the objects; None: the values of a pipe are only numbers, called ``.``
    :raises ParseError: a member that is neither number nor string, a comparison of a number with a string, ...
    :raises KshellError: a name that is no member, enumerator or symbol
    """

    def __init__(self, target: ConditionTarget, node: Node, text: str, type: CType | None, radix: int = 16) -> None:
        self._target, self._text, self._type, self._radix = target, text, type, radix
        self._numbers: dict[tuple[Route, bool], int] = {}
        self._columns: Columns = []
        self._values: Sequence[int] = ()
        self._test = self._make(node)

    def rows(self, addresses: Sequence[int], space: Memory) -> Iterator[bool | Fault]:
        """Yield for each object whether the condition holds, or what could not be read."""
        self._values = addresses
        if self._type is not None and self._numbers:
            behind = through(space, self._target.kernel)
            vector = Vector(self._target, self._type, addresses, space)
            self._columns = vector.cells([found for found, _ in self._numbers])
            for (_, string), number in self._numbers.items():
                if string:
                    self._columns[number] = [_string(behind, cell) for cell in self._columns[number]]
        test = self._test
        for row in range(len(addresses)):
            try:
                yield bool(test(row))
            except Fault as fault:
                yield fault

    # -- from the tree to functions of a row -------------------------------------------------------------------------

    def _make(self, node: Node) -> Cell:
        if isinstance(node, Number):
            value = node.value
            return lambda _: value
        if isinstance(node, String):
            raise self._wrong(node, "a string has to be compared with something")
        if isinstance(node, Name):
            return self._name(node)
        if isinstance(node, Unary):
            operand = self._make(node.operand)
            if node.operator == "!":
                return lambda row: not operand(row)
            if node.operator == "-":
                return lambda row: -operand(row)
            return lambda row: ~operand(row)
        assert isinstance(node, Binary)
        return self._binary(node)

    def _binary(self, node: Binary) -> Cell:
        operator = node.operator
        if operator in ("&&", "||"):
            left, right = self._make(node.left), self._make(node.right)
            if operator == "&&":
                return lambda row: left(row) and right(row)
            return lambda row: left(row) or right(row)
        if operator in ("=~", "!~"):
            return self._match(node)
        if operator in _COMPARISONS:
            return self._compare(node)
        left, right, function = self._make(node.left), self._make(node.right), _ARITHMETIC[operator]
        return lambda row: function(left(row), right(row))

    def _compare(self, node: Binary) -> Cell:
        compare = _COMPARISONS[node.operator]
        sides = (node.left, node.right)
        for this, other in (sides, sides[::-1]):
            found = self._route(this)
            if isinstance(other, String) or (found is not None and _is_text(found) and self._route(other) is None
                                             and isinstance(other, Name)):
                text = other.value if isinstance(other, String) else other.path
                cell = self._text_of(this)
                if this is sides[0]:
                    return lambda row: compare(cell(row), text)
                return lambda row: compare(text, cell(row))
        left, right = (self._number(this, other) for this, other in (sides, sides[::-1]))
        return lambda row: compare(left(row), right(row))

    def _number(self, node: Node, other: Node) -> Cell:
        """Return *node* as a number to be compared with *other*: enumerators, and -1 beside unsigned members."""
        found = self._route(other)
        if found is not None and isinstance(node, Name) and self._route(node) is None:
            bare = found.shape.bare
            if isinstance(bare, EnumType):
                value = dict(bare.enumerators).get(node.path)
                if value is not None:
                    return lambda _: value
        cell = self._make(node)
        if found is not None and isinstance(node, Unary) and not found.shape.signed and found.shape.integer:
            mask = (1 << (found.width or 8 * found.shape.size)) - 1
            return lambda row: cell(row) & mask
        return cell

    def _match(self, node: Binary) -> Cell:
        if not isinstance(node.right, String):
            raise self._wrong(node.right, 'a regular expression in double quotes is expected: comm =~ "^kworker"')
        try:
            search = re.compile(node.right.value).search
        except (re.error, RecursionError, OverflowError) as error:
            raise self._wrong(node.right, f"not a regular expression: {error}") from None
        cell, wanted = self._text_of(node.left), node.operator == "=~"
        return lambda row: (search(cell(row)) is not None) is wanted

    def _text_of(self, node: Node) -> Cell:
        found = self._route(node)
        if found is None or not isinstance(node, Name):
            raise self._wrong(node, "only a member can be compared with a string")
        bare = found.shape.bare
        if _is_text(found):
            return self._column(found)
        if isinstance(bare, PointerType) and shape_of(bare.target).size == 1:
            return self._column(found, string=True)
        if isinstance(bare, EnumType):
            names, number = found.shape.names, self._column(found)
            return lambda row: names.text(number(row))
        raise self._wrong(node, f"{node.path} is no string: {found.type}")

    def _name(self, node: Name) -> Cell:
        if node.path == ".":
            return lambda row: self._values[row]
        found = self._route(node)
        if found is not None:
            if not (found.shape.integer or found.shape.kind is Kind.FLOAT):
                why = "a string: compare it" if _is_text(found) else f"neither a number nor a string: {found.type}"
                raise self._wrong(node, f"{node.path} is {why}")
            return self._column(found)
        if node.digits is not None:
            digits = node.digits
            return lambda _: digits
        try:
            address = self._target.symbol(node.path).address
        except NotFoundError as error:
            owner = "" if self._type is None else f"member of {self._type}, "
            hint = None if self._type is not None else "the type of what the pipe passes is not known: ::where -t TYPE"
            raise NotFoundError(f"{owner}enumerator or symbol", node.path, error.near or self._near(node.path),
                                hint=hint) from None
        return lambda _: address

    def _near(self, name: str) -> tuple[str, ...]:
        from kshell.types.model import StructType, near_names

        bare = self._type.strip() if self._type is not None else None
        return tuple(near_names(name, bare.names())) if isinstance(bare, StructType) else ()

    def _route(self, node: Node) -> Route | None:
        """Return where the member *node* is, None if it is none."""
        if not isinstance(node, Name) or self._type is None or node.path == ".":
            return None
        try:
            return route(self._type, node.path, self._radix)
        except KshellError:
            return None

    def _column(self, found: Route, *, string: bool = False) -> Cell:
        """Return what gives the member at *found*; with *string* the text that the pointer there leads to."""
        number = self._numbers.setdefault((found, string), len(self._numbers))

        def cell(row: Row) -> Any:
            value = self._columns[number][row]
            if isinstance(value, KshellError):
                raise value
            return value

        return cell

    def _wrong(self, node: Node, why: str) -> ParseError:
        return ParseError(why, self._text, node.start, max(node.end, node.start + 1))


def _is_text(found: Route) -> bool:
    bare = found.shape.bare
    return isinstance(bare, ArrayType) and shape_of(bare.target).size == 1


def _string(space: Memory, cell: Any) -> Any:
    """Return the string behind the pointer *cell*; "" behind NULL."""
    if not isinstance(cell, int):
        return cell
    if cell == 0:
        return ""
    data, fault = space.read_upto(cell, STRING)
    head, nul, _ = data.partition(b"\0")
    if not nul and fault is not None:
        return fault
    return head.decode("utf-8", "surrogateescape")


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b, "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}
_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "|": lambda a, b: a | b, "^": lambda a, b: a ^ b, "&": lambda a, b: a & b, "+": lambda a, b: a + b,
    "-": lambda a, b: a - b, "*": lambda a, b: a * b,
    "<<": lambda a, b: a << b & MASK if 0 <= b < 64 else 0, ">>": lambda a, b: a >> b if 0 <= b < 64 else 0,
}
