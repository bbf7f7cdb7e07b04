"""Parsing of expressions, without recursion over operators, so that long ones cost no stack.

Reference: mdb-language.md section 4: C's order, with ``%%`` on top; unary operators bind tighter than every binary one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kshell.errors import ParseError
from kshell.lang import ast
from kshell.lang.tokens import Kind, Token

PRECEDENCE = {
    "|": 1, "^": 2, "&": 3, "==": 4, "!=": 4, "<<": 5, ">>": 5, "+": 6, "-": 6, "*": 7, "%": 7, "#": 7, "%%": 8,
}
WIDTHS = "csil1248"
MAX_DEPTH = 50  # of parentheses and unary operators; keeps hostile input from exhausting Python's stack

_OPERAND_KINDS = frozenset({Kind.NUMBER, Kind.CHAR, Kind.HEX_WORD, Kind.SYMBOL, Kind.DOT, Kind.VARIABLE})
_NAMED_OPERANDS: dict[str, Callable[[Token], ast.Expression]] = {
    "+": lambda token: ast.PlusDot(start=token.start, end=token.end),
    "^": lambda token: ast.CaretDot(start=token.start, end=token.end),
    "&": lambda token: ast.LastAddress(start=token.start, end=token.end),
}


class TokenSource(Protocol):
    """What the expression parser needs of the statement parser."""

    def peek(self) -> Token:
        """Return the next token and leave it."""

    def take(self) -> Token:
        """Return the next token and go past it."""

    def expected(self, what: str) -> ParseError:
        """Return the error that says that *what* should stand where the next token is."""

    def error(self, message: str, start: int, end: int) -> ParseError:
        """Return an error about a place."""


def parse_expression(source: TokenSource, depth: int = 0) -> ast.Expression:
    """Return the longest expression at *source*.

    :raises ParseError: an operand is missing, a parenthesis is open, nesting is deeper than MAX_DEPTH
    """
    operands = [_unary(source, depth)]
    operators: list[str] = []
    while True:
        token = source.peek()
        level = PRECEDENCE.get(token.text, 0) if token.kind is Kind.OPERATOR else 0
        while operators and PRECEDENCE[operators[-1]] >= level:
            right, left = operands.pop(), operands.pop()
            operands.append(ast.Binary(operators.pop(), left, right, start=left.start, end=right.end))
        if not level:
            return operands[0]
        operators.append(source.take().text)
        operands.append(_unary(source, depth))


def _unary(source: TokenSource, depth: int) -> ast.Expression:
    token = source.peek()
    if depth > MAX_DEPTH:
        raise source.error("syntax error: expression is nested too deeply", token.start, token.end)
    if token.kind is Kind.CAST:
        source.take()
        width = token.value
        if width not in WIDTHS:
            raise source.error(f"invalid cast -- {token.text}", token.start, token.end)
        operand = _unary(source, depth + 1)
        return ast.Deref(token.text[0], width, operand, start=token.start, end=operand.end)
    if token.kind is Kind.OPERATOR:
        if token.text in ("*", "%"):
            source.take()
            operand = _unary(source, depth + 1)
            return ast.Deref(token.text, None, operand, start=token.start, end=operand.end)
        if token.text in ("-", "~", "#"):
            source.take()
            operand = _unary(source, depth + 1)
            return ast.Unary(token.text, operand, start=token.start, end=operand.end)
        if token.text in _NAMED_OPERANDS:
            return _NAMED_OPERANDS[source.take().text](token)
        if token.text == "(":
            source.take()
            inner = parse_expression(source, depth + 1)
            close = source.peek()
            if close.text != ")":
                raise source.expected("an operator or )")
            source.take()
            return ast.Group(inner, start=token.start, end=close.end)
    if token.kind not in _OPERAND_KINDS:
        raise source.expected("a number, symbol, variable or (")
    return _operand(source.take())


def _operand(token: Token) -> ast.Expression:
    start, end = token.start, token.end
    if token.kind is Kind.NUMBER:
        return ast.Number(token.text, start=start, end=end)
    if token.kind is Kind.HEX_WORD:
        return ast.SymbolOrNumber(token.text, start=start, end=end)
    if token.kind is Kind.CHAR:
        return ast.CharConst(token.value, start=start, end=end)
    if token.kind is Kind.VARIABLE:
        return ast.VarRef(token.value, start=start, end=end)
    if token.kind is Kind.DOT:
        return ast.Dot(start=start, end=end)
    scope, tick, name = token.text.rpartition("`")
    return ast.SymbolRef(scope if tick else None, name, start=start, end=end)


def starts_expression(token: Token) -> bool:
    """True if an expression can begin with *token*."""
    if token.kind is Kind.OPERATOR:
        return token.text in ("*", "%", "-", "~", "#", "(", "+", "^", "&")
    return token.kind in _OPERAND_KINDS or token.kind is Kind.CAST
