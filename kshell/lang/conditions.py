"""Conditions over members, as ``::where`` has them: ``pid > 0t100 && comm == "bash"``. Pure text to a tree.

The operators and their precedence are C's, ``=~`` and ``!~`` match a string with a regular expression. Names are
member paths (``mm->pgd``, ``cpus_mask.bits[0]``), enumerators or symbols: whoever evaluates decides. Numbers are the
language's.
"""

from __future__ import annotations

import re
from typing import Literal

from kshell.errors import ParseError
from kshell.lang.node import Record, place
from kshell.lang.numbers import number_value
from kshell.lang.quoting import unescape

MAX_DEPTH = 100
MAX_LENGTH = 1 << 16

_TOKEN = re.compile(r"""
    \s*(?:
      (?P<number>0[xXtToOiI][0-9a-fA-F_]+|[0-9][0-9a-fA-F_]*)
    | (?P<name>\.?[A-Za-z_]\w*(?:`[A-Za-z_]\w*)?(?:(?:\.|->)[A-Za-z_]\w*|\[[^][]*\])*)
    | (?P<dot>\.)
    | "(?P<string>(?:[^"\\]|\\.)*)"
    | (?P<operator>\|\||&&|==|!=|<=|>=|<<|>>|=~|!~|[-+*&|^<>!~()])
    )""", re.VERBOSE | re.DOTALL)

#: binary operators, loosest first
LEVELS = (("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!=", "=~", "!~"), ("<", "<=", ">", ">="), ("<<", ">>"),
          ("+", "-"), ("*",))
_BINDS = {operator: level for level, operators in enumerate(LEVELS) for operator in operators}


class Node(Record):
    """A part of a condition; ``text[start:end]`` is where it stands."""

    _places = ("start", "end")

    start: int = place(default=0, kw_only=True)
    end: int = place(default=0, kw_only=True)


class Number(Node):
    value: int


class String(Node):
    value: str


class Name(Node):
    """A member path, an enumerator, a symbol, or ``.``, the value of the pipe itself.

    :ivar digits: its value, if it could also be a number (``add``, ``f``)
    """

    path: str
    digits: int | None = None


class Unary(Node):
    operator: Literal["!", "-", "~"]
    operand: Node


class Binary(Node):
    operator: str
    left: Node
    right: Node


def parse_condition(text: str, radix: int = 16) -> Node:
    """Return the tree of *text*.

    :param radix: of numbers without a prefix
    :raises ParseError: it is no condition; the place is told
    """
    return _Parser(text, radix).parse()


class _Parser:
    def __init__(self, text: str, radix: int) -> None:
        self.text, self.radix = text, radix
        self.at = self.start = self.end = 0
        self.kind = self.value = ""
        self.depth = 0
        if len(text) > MAX_LENGTH:
            raise ParseError(f"a condition of {len(text)} characters", text[:80], 0, 80, hint="64 KiB at most")
        self._next()

    def parse(self) -> Node:
        node = self._binary(0)
        if self.kind != "end":
            raise self._wrong("expected an operator")
        return node

    def _next(self) -> None:
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            rest = self.text[self.at :]
            blanks = len(rest) - len(rest.lstrip())
            self.start = self.at + blanks
            self.end = self.start + 1
            if blanks < len(rest):
                if rest[blanks] == '"':
                    raise ParseError('syntax error: " unmatched', self.text, self.start, len(self.text))
                raise ParseError(f"syntax error near {rest[blanks]!r}", self.text, self.start, self.end,
                                 hint="operators: == != < <= > >= =~ !~ && || ! & | ^ ~ + - * << >> ( )")
            self.kind, self.value, self.end = "end", "", self.start
            return
        self.kind = match.lastgroup or ""
        self.value = match[self.kind]
        self.start, self.end = match.start(self.kind), match.end(self.kind)
        self.at = match.end()

    def _wrong(self, expected: str) -> ParseError:
        near = f" near {self.value!r}" if self.kind != "end" else " at the end"
        return ParseError(f"syntax error{near}: {expected}", self.text, self.start, max(self.end, self.start + 1))

    def _binary(self, loosest: int) -> Node:
        """Return an operand with the operators behind it that bind at least as tightly as LEVELS[loosest]."""
        left = self._unary()
        while self.kind == "operator" and (level := _BINDS.get(self.value, -1)) >= loosest:
            operator = self.value
            self._next()
            right = self._binary(level + 1)
            left = Binary(operator, left, right, start=left.start, end=right.end)
        return left

    def _unary(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ParseError("a condition nested too deeply", self.text, self.start, self.end)
        start, kind, value = self.start, self.kind, self.value
        try:
            if kind == "operator" and value in ("!", "-", "~"):
                self._next()
                operand = self._unary()
                return Unary(value, operand, start=start, end=operand.end)  # type: ignore[arg-type]
            if kind == "operator" and value == "(":
                self._next()
                inner = self._binary(0)
                if self.value != ")" or self.kind != "operator":
                    raise self._wrong("expected )")
                self._next()
                return inner
            return self._operand()
        finally:
            self.depth -= 1

    def _operand(self) -> Node:
        start, end, kind, value = self.start, self.end, self.kind, self.value
        if kind == "number":
            try:
                number = number_value(value, self.radix)
            except ValueError as error:
                raise ParseError(str(error), self.text, start, end) from None
            self._next()
            return Number(number, start=start, end=end)
        if kind == "string":
            self._next()
            return String(unescape(value), start=start, end=end)
        if kind in ("name", "dot"):
            self._next()
            digits = None
            if re.fullmatch(r"[0-9a-fA-F_]+", value):
                try:
                    digits = number_value(value, self.radix)
                except ValueError:
                    digits = None
            return Name(value, digits, start=start, end=end)
        raise self._wrong("expected a member, a number or a string")
