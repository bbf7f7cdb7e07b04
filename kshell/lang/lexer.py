r"""The scanner: five states in which the same character means different things.

Reference: mdb-language.md section 2. The scanner finds its states by itself, without the parser, and never raises: what
fits nothing is an error token. Longest match wins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kshell.lang.ast import Piece
from kshell.lang.quoting import unescape, unescape_single
from kshell.lang.tokens import Kind, State, Token

_BLANKS = re.compile(r"[ \t]*")
_COMMENT = re.compile(r"//[^\n]*")
_CAST = re.compile(r"[*%]/([^/\s])/")
_OPERATOR = re.compile(r"%%|<<|>>|==|!=|[-+*%#&^|~(),]")
_VARIABLE = re.compile(r"<([A-Za-z_.][0-9A-Za-z_.`]*|[0-9])")
_NUMBER = re.compile(
    r"0[xX][0-9a-fA-F][0-9a-fA-F_]*|0[tT][0-9][0-9_]*(?:\.[0-9]+)?|0[oO][0-7][0-7_]*|0[iI][01][01_]*"
    r"|[0-9][0-9a-fA-F_]*"
)
_SYMBOL = re.compile(r"[A-Za-z_.][0-9A-Za-z_.`]*")
_HEX_WORD = re.compile(r"[a-fA-F][0-9a-fA-F_]*")
_CHAR = re.compile(r"'((?:[^'\\\n]|\\[^\n])*)'")
_DCMD = re.compile(r"::([A-Za-z_.][0-9A-Za-z_.`]*)|\$(?:<<|[<>])|[$:][?%@A-Z^_`a-z]|\$(?!\[)")
_ASSIGN = re.compile(r">(?:/([0-9A-Za-z])/)?")
_CELL_VERB = re.compile(r"[/\\?][ \t]*([vwzWZlLM])")
_VERB = re.compile(r"[/\\@?=]")
_SHELL = re.compile(r"!<?")
_LONE_COUNT = re.compile(
    r"(0[xX][0-9a-fA-F][0-9a-fA-F_]*|0[tT][0-9][0-9_]*|0[oO][0-7][0-7_]*)(?=[ \t]*(?:[;\n!|]|//|\Z))"
)
_COUNT = re.compile(r"[0-9]+")
_STRING = re.compile(r'"((?:[^"\\\n]|\\[^\n])*)"')
_VERBATIM = re.compile(r"'([^'\n]*)'")
_PLAIN = re.compile(r"""[^ \t\n;!|"'$]+""")
_SHELL_DOUBLE = re.compile(r'"((?:[^"\\\n]|\\[^\n])*)"')
_SHELL_SINGLE = re.compile(r"'((?:[^'\\\n]|\\'|\\(?!'))*)'")
_SHELL_REST = re.compile(r"[^;\n]*")
_LINE_REST = re.compile(r"[^\n]*")

_EXPRESSION_KINDS = (
    (Kind.CAST, _CAST), (Kind.VARIABLE, _VARIABLE), (Kind.NUMBER, _NUMBER), (Kind.CHAR, _CHAR),
)


class Lexer:
    """Scans *text* from the start; :meth:`next` returns one token after another, at the end always EOF.

    :ivar state: the state in which the next token will be read
    :ivar position: offset of the first character not yet scanned
    """

    def __init__(self, text: str, position: int = 0) -> None:
        self.text, self.position = text, position
        self.state = State.INITIAL
        self._outer = State.ARGLIST  # the state to which ] returns
        self._lone_count = False  # directly after a verb other than =

    def next(self) -> Token:
        """Return the next token."""
        lone_count, self._lone_count = self._lone_count, False
        match = _BLANKS.match(self.text, self.position)
        assert match
        self.position = match.end()
        if self.position >= len(self.text):
            return self._take(Kind.EOF, self.position)
        if self.state is State.SHELLCMD:
            return self._shell_text()
        char = self.text[self.position]
        if char in ";\n":
            self.state = State.INITIAL
            return self._take(Kind.END, self.position + 1)
        if self.state is State.EXPR:
            return self._immediate(char)
        if found := _COMMENT.match(self.text, self.position):
            return self._take(Kind.COMMENT, found.end())
        if self.state is State.INITIAL:
            return self._expression() or self._command(char)
        return self._list(char, lone_count)

    # One method a state

    def _expression(self) -> Token | None:
        for kind, pattern in _EXPRESSION_KINDS:
            if found := pattern.match(self.text, self.position):
                return self._take(kind, found.end(), found[1] if pattern.groups else found[0])
        if found := _SYMBOL.match(self.text, self.position):
            kind = Kind.SYMBOL
            if found[0] == ".":
                kind = Kind.DOT
            elif _HEX_WORD.fullmatch(found[0]):
                kind = Kind.HEX_WORD
            return self._take(kind, found.end(), found[0])
        if found := _OPERATOR.match(self.text, self.position):
            return self._take(Kind.OPERATOR, found.end(), found[0])
        if self.text[self.position] == "'":
            return self._unmatched("'")
        return None

    def _command(self, char: str) -> Token:
        text, here = self.text, self.position
        if found := _CELL_VERB.match(text, here):
            self.state = State.ARGLIST
            return self._take(Kind.WRITE if found[1] in "vwzWZ" else Kind.SEARCH, found.end(), found[1])
        if found := _VERB.match(text, here):
            self.state = State.FMTLIST
            self._lone_count = char != "="
            return self._take(Kind.VERB, found.end(), char)
        if found := _DCMD.match(text, here):
            self.state = State.ARGLIST
            name = found[1] or ("$?" if found[0] == "$" else found[0])
            return self._take(Kind.DCMD, found.end(), name)
        if found := _ASSIGN.match(text, here):
            self.state = State.ARGLIST
            return self._take(Kind.ASSIGN, found.end(), found[1] or "")
        if char == "!":
            return self._shell()
        if text.startswith("::", here):
            return self._error(here + 2, "syntax error: expected a dcmd name after ::")
        if text.startswith("$[", here):
            return self._error(here + 2, "syntax error: $[ is only for arguments and format lists, use ( )")
        return self._unexpected(char)

    def _immediate(self, char: str) -> Token:
        if char == "]":
            self.state = self._outer
            return self._take(Kind.CLOSE, self.position + 1)
        return self._expression() or self._unexpected(char)

    def _list(self, char: str, lone_count: bool) -> Token:
        text, here = self.text, self.position
        if char == "|":
            self.state = State.INITIAL
            return self._take(Kind.PIPE, here + 1)
        if char == "!":
            return self._shell()
        if text.startswith("$[", here):
            self._outer, self.state = self.state, State.EXPR
            return self._take(Kind.OPEN, here + 2)
        if self.state is State.ARGLIST:
            return self._word(char)
        if lone_count and (found := _LONE_COUNT.match(text, here)):
            return self._take(Kind.FORMAT_COUNT, found.end(), found[0])
        if found := _COUNT.match(text, here):
            return self._take(Kind.FORMAT_COUNT, found.end(), found[0])
        if found := _STRING.match(text, here):
            return self._take(Kind.FORMAT_STRING, found.end(), unescape(found[1]))
        if char == '"':
            return self._unmatched(char)
        return self._take(Kind.FORMAT_CHAR, here + 1, char)

    def _word(self, char: str) -> Token:
        if char == "$":
            return self._error(self.position + 1, "syntax error: $ in an argument needs quotes, or [ for a number")
        pieces: list[Piece] = []
        here = self.position
        while (piece := self._piece(here)) is not None:
            pieces.append(piece)
            here = piece.end
        if self.text[here : here + 1] in ("'", '"'):
            return self._unmatched(self.text[here], here)
        return self._take(Kind.WORD, here, "".join(piece.text for piece in pieces), tuple(pieces))

    def _piece(self, here: int) -> Piece | None:
        for quote, pattern in (("", _PLAIN), ("'", _VERBATIM), ('"', _STRING)):
            if found := pattern.match(self.text, here):
                text = found[1] if quote else found[0]
                return Piece(unescape(text) if quote == '"' else text, quote, start=here, end=found.end())
        return None

    def _shell(self) -> Token:
        found = _SHELL.match(self.text, self.position)
        assert found
        self.state = State.SHELLCMD
        return self._take(Kind.SHELL, found.end(), found[0])

    def _shell_text(self) -> Token:
        text, here = self.text, self.position
        quote = text[here]
        if quote in "\"'":
            self.state = State.ARGLIST  # "normal scanning resumes": a pipe, or the end
            found = (_SHELL_DOUBLE if quote == '"' else _SHELL_SINGLE).match(text, here)
            if not found:
                return self._error(self._line_end(), "syntax error: quote unmatched")
            inside = found[1].replace("\\'", "'") if quote == "'" else unescape_single(found[1])
            return self._take(Kind.SHELL_QUOTED, found.end(), inside)
        self.state = State.INITIAL
        found = _SHELL_REST.match(text, here)
        assert found
        if not found[0]:
            return self.next()
        return self._take(Kind.SHELL_TEXT, found.end(), found[0])

    # Making tokens

    def _take(self, kind: Kind, end: int, value: str = "", pieces: tuple[Piece, ...] = ()) -> Token:
        start, self.position = self.position, end
        return Token(kind, start, end, self.text[start:end], value, pieces)

    def _error(self, end: int, message: str) -> Token:
        start, self.position = self.position, end
        return Token(Kind.ERROR, start, end, self.text[start:end], message=message)

    def _unexpected(self, char: str) -> Token:
        return self._error(self.position + 1, f'syntax error near "{char}"')

    def _unmatched(self, quote: str, start: int | None = None) -> Token:
        """Return the error for a quote that does not end on its line; the characters before it are part of it."""
        return self._error(self._line_end(start), f"syntax error: {quote} unmatched")

    def _line_end(self, start: int | None = None) -> int:
        found = _LINE_REST.match(self.text, self.position if start is None else start)
        assert found
        return found.end()


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of *text*, blanks left out and without the final EOF; never raises."""
    lexer = Lexer(text)
    while (token := lexer.next()).kind is not Kind.EOF:
        yield token
