"""Tokens of C declarations, and constant expressions over them.

Source: C11 6.4 (lexical elements), 6.6 (constant expressions). Preprocessor lines are refused: what they would do is
not known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from kshell.errors import ParseError
from kshell.lang.quoting import unescape

MAX_TEXT = 8 << 20
MAX_DEPTH = 60

_TOKEN = re.compile(r"""
    (?P<space>\s+|//[^\n]*|/\*.*?\*/)
  | (?P<directive>\#[^\n]*)
  | (?P<number>0[xX][0-9a-fA-F]+[uUlL]*|0[bB][01]+[uUlL]*|[0-9]+[uUlL]*)(?![\w.])
  | (?P<word>[A-Za-z_]\w*)
  | '(?P<char>(?:[^'\\\n]|\\.)*)'
  | (?P<string>"(?:[^"\\\n]|\\.)*")
  | (?P<mark>\.\.\.|<<|>>|<=|>=|==|!=|&&|\|\||[][(){}*,;:=.&|^~!<>?+/%-])
    """, re.VERBOSE | re.DOTALL)

_LEVELS = (("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!="), ("<", ">", "<=", ">="), ("<<", ">>"), ("+", "-"),
           ("*", "/", "%"))
_BINDS = {mark: level for level, marks in enumerate(_LEVELS) for mark in marks}


class Token(NamedTuple):
    """``kind`` is "number", "word", "char", "string", "mark" or "end"."""

    kind: str
    text: str
    start: int
    end: int


class Tokens:
    """The tokens of *text*, looked at one by one.

    :raises ParseError: what is no token, a preprocessor line, or too much text
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.depth = 0
        if len(text) > MAX_TEXT:
            raise ParseError(f"declarations of {len(text)} characters", text[:60], 0, 60, hint="8 MiB at most")
        self._tokens: list[Token] = []
        self._next = 0
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise ParseError(f"syntax error: {text[at]!r} is not C", text, at, at + 1)
            kind = match.lastgroup or ""
            if match[0] == "/" and text.startswith("/*", at):
                raise ParseError("syntax error: an unterminated comment", text, at, at + 2)
            if kind == "directive":
                raise ParseError("preprocessor lines are not read", text, at, match.end(),
                                 hint="let cpp -P work on the file first")
            if kind != "space":
                self._tokens.append(Token(kind, match[kind], match.start(), match.end()))
            at = match.end()
        self._tokens.append(Token("end", "", len(text), len(text)))

    @property
    def now(self) -> Token:
        """The token that comes next."""
        return self._tokens[self._next]

    @property
    def after(self) -> Token:
        """The one behind it."""
        return self._tokens[min(self._next + 1, len(self._tokens) - 1)]

    def take(self) -> Token:
        """Return the next token and go past it."""
        token = self.now
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def has(self, *texts: str) -> bool:
        """Whether the next token is one of *texts*; goes past it then."""
        if self.now.text in texts and self.now.kind in ("mark", "word"):
            self.take()
            return True
        return False

    def want(self, text: str) -> Token:
        """Go past the token *text*.

        :raises ParseError: another one is there
        """
        if self.now.text != text or self.now.kind not in ("mark", "word"):
            self.wrong(f"expected {text}")
        return self.take()

    def wrong(self, why: str, token: Token | None = None, hint: str | None = None) -> NoReturn:
        """Raise a ParseError at *token*, the next one without it: this is not C."""
        at = token or self.now
        near = f" near {at.text[:40]!r}" if at.text else " at the end"
        self.refuse(f"syntax error: {why}{near}", at, hint)

    def refuse(self, why: str, token: Token | None = None, hint: str | None = None) -> NoReturn:
        """Raise a ParseError at *token*: this is C, but cannot be declared."""
        at = token or self.now
        raise ParseError(why, self.text, at.start, max(at.end, at.start + 1), hint=hint)

    def deeper(self) -> None:
        """Count a level of nesting.

        :raises ParseError: there are too many
        """
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.wrong("nested too deeply")


def constant(tokens: Tokens, name: Callable[[str], int | None], size: Callable[[], int]) -> int:
    """Return the value of the constant expression that comes next.

    :param name: the value of an enumerator
    :param size: parses the type in parentheses behind ``sizeof`` and returns its bytes
    :raises ParseError: there is none, or it has no value
    """

    def binary(loosest: int) -> int:
        left = unary()
        while tokens.now.kind == "mark" and (level := _BINDS.get(tokens.now.text, -1)) >= loosest:
            mark = tokens.take()
            right = binary(level + 1)
            left = _apply(tokens, mark, left, right)
        if loosest == 0 and tokens.has("?"):
            yes = binary(0)
            tokens.want(":")
            no = binary(0)
            return yes if left else no
        return left

    def unary() -> int:
        tokens.deeper()
        try:
            token = tokens.take()
            if token.kind == "number":
                digits = token.text.rstrip("uUlL").lower()
                if len(digits) > 40:
                    tokens.refuse("a number beyond 64 bits", token)
                octal = len(digits) > 1 and digits[0] == "0" and digits[1] not in "xb"
                if octal and not set(digits) <= set("01234567"):
                    tokens.wrong("not an octal number", token)
                return int(digits, 8 if octal else 0)
            if token.kind == "char":
                text = unescape(token.text)
                return ord(text) if len(text) == 1 else tokens.wrong("one character is expected", token)
            if token.text == "sizeof":
                tokens.want("(")
                found = size()
                tokens.want(")")
                return found
            if token.kind == "word":
                value = name(token.text)
                return tokens.refuse("no enumerator of this name", token) if value is None else value
            if token.text in ("-", "~", "!", "+"):
                operand = unary()
                return {"-": -operand, "~": ~operand, "!": int(not operand), "+": operand}[token.text]
            if token.text == "(":
                inner = binary(0)
                tokens.want(")")
                return inner
            return tokens.wrong("a constant is expected", token)
        finally:
            tokens.depth -= 1

    value = binary(0)
    if abs(value) >= 1 << 64:
        tokens.refuse("a constant beyond 64 bits")
    return value


def _apply(tokens: Tokens, mark: Token, left: int, right: int) -> int:
    text = mark.text
    if text in ("/", "%"):
        if right == 0:
            tokens.refuse("division by zero", mark)
        quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
        return quotient if text == "/" else left - quotient * right
    if text in ("<<", ">>"):
        if not 0 <= right < 64:
            tokens.refuse("an impossible shift", mark)
        return left << right if text == "<<" else left >> right
    return int({"+": left + right, "-": left - right, "*": left * right, "&": left & right, "|": left | right,
                "^": left ^ right, "&&": bool(left and right), "||": bool(left or right), "==": left == right,
                "!=": left != right, "<": left < right, ">": left > right, "<=": left <= right,
                ">=": left >= right}[text])
