"""Statements and pipelines from text, by recursive descent. No target is ever asked.

Reference: mdb-language.md section 3 (grammar), 7.5 (errors and the rest), 8 (pipelines, shell), 9.4 (bare counts).
Statements come out one at a time, since mdb runs the first of a line before it looks at the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kshell.errors import ParseError
from kshell.lang import ast
from kshell.lang.expressions import parse_expression, starts_expression
from kshell.lang.lexer import Lexer
from kshell.lang.numbers import char_value
from kshell.lang.tokens import Kind, Token

#: Asked for every dcmd name as it is met: the reason why it cannot be run ("unknown dcmd name"), or None.
DcmdCheck = Callable[[str], "str | None"]

MAX_TOKENS = 50_000  # of one statement: a second's work, for hostile input
MAX_STAGES = 100  # of one pipeline: each costs Python's stack a few frames
MAX_COUNT_DIGITS = 19

_COMMANDS = frozenset({Kind.VERB, Kind.WRITE, Kind.SEARCH, Kind.DCMD, Kind.ASSIGN})


class Parser:
    """Reads *text* statement by statement.

    After a :class:`ParseError` the caller drops the parser (a string, a terminal) or calls :meth:`recover` (a script).
    """

    def __init__(self, text: str, check_dcmd: DcmdCheck | None = None) -> None:
        self.text = text
        self._check = check_dcmd
        self._lexer = Lexer(text)
        self._token: Token | None = None
        self._line_is_blank = True
        self._immediate: Token | None = None
        self._taken = 0

    def __iter__(self) -> Iterator[ast.Statement]:
        while (statement := self.next_statement()) is not None:
            yield statement

    def next_statement(self) -> ast.Statement | None:
        """Return the next statement, None at the end of the text; an empty line is a blank statement.

        :raises ParseError: the statement is not in the language or names a dcmd that *check_dcmd* refuses
        """
        self._immediate = None
        while (token := self.peek()).kind is Kind.END:
            self.take()
            self._taken = 0
            if token.text == "\n":
                blank, self._line_is_blank = self._line_is_blank, True
                if blank:
                    return ast.Statement(start=token.start, end=token.start)
        if token.kind is Kind.EOF:
            return None
        self._line_is_blank = False
        self._taken = 0
        statement = self._statement()
        if self.peek().kind not in (Kind.END, Kind.EOF):
            raise self.expected("the end of the statement")
        if self.take().text == "\n":
            self._line_is_blank = True
        return statement

    def recover(self) -> None:
        """After an error go on behind the next ``;`` or newline (7.5)."""
        token = self._token
        position = self._lexer.position
        if token is not None:
            position = token.start if token.kind in (Kind.END, Kind.EOF) else token.end
        while position < len(self.text) and self.text[position] not in ";\n":
            position += 1
        if position < len(self.text):
            self._line_is_blank = self.text[position] == "\n"
            position += 1
        self._lexer, self._token = Lexer(self.text, position), None

    # What parse_expression needs

    def peek(self) -> Token:
        """Return the next token that is not a comment.

        :raises ParseError: it is not a token of the language
        """
        while self._token is None or self._token.kind is Kind.COMMENT:
            if self._token is not None:
                self._line_is_blank = False
            self._token = self._lexer.next()
        if self._token.kind is Kind.ERROR:
            raise self.error(self._token.message, self._token.start, self._token.end)
        return self._token

    def take(self) -> Token:
        """Return the next token and go past it."""
        token = self.peek()
        if token.kind is Kind.CHAR:
            try:
                char_value(token.value)
            except ValueError as error:
                raise self.error(str(error), token.start, token.end) from None
        self._taken += 1
        if self._taken > MAX_TOKENS:
            what = f"syntax error: a statement of more than {MAX_TOKENS} words, numbers and operators"
            raise self.error(what, token.start, token.end)
        self._token = None
        return token

    def expected(self, what: str) -> ParseError:
        """Return the error that says that *what* should stand where the next token is."""
        token = self.peek()
        if token.kind not in (Kind.END, Kind.EOF):
            return self.error(f'syntax error near "{token.text}": expected {what}', token.start, token.end)
        if self._immediate is not None:
            return self.error("syntax error: $[ unmatched", self._immediate.start, self._immediate.end)
        return self.error(f"syntax error: expected {what}", token.start, token.start)

    def error(self, message: str, start: int, end: int) -> ParseError:
        """Return an error about ``text[start:end]``."""
        return ParseError(message, self.text, start, end)

    # The grammar

    def _statement(self) -> ast.Statement:
        first = self.peek()
        address = count = None
        if starts_expression(first):
            address = parse_expression(self)
        if self._at_operator(","):
            self.take()
            count = parse_expression(self)
        token = self.peek()
        pipeline, shell = None, None
        if token.kind is Kind.SHELL:
            pipeline, shell = self._shell_first(address is not None and count is None)
        elif token.kind in _COMMANDS:
            pipeline, shell = self._pipeline([])
        elif token.kind not in (Kind.END, Kind.EOF):
            raise self.expected("an address" if token is first else "an operator or a command")
        nodes = [node for node in (address, count, pipeline, shell) if node is not None]
        return ast.Statement(address, count, pipeline, shell, start=first.start, end=nodes[-1].end)

    def _shell_first(self, naked_address: bool) -> tuple[ast.Pipeline | None, ast.ShellEscape | None]:
        """``! text``, or ``! 'text' | command``."""
        mark = self.peek()
        shell = self._shell()
        if self._is_stage(shell):
            self.take()
            return self._pipeline([ast.ShellStage(shell.text, start=shell.start, end=shell.end)])
        if naked_address:
            raise self.error('syntax error near "!": expected a command after the address', mark.start, mark.end)
        return None, shell

    def _pipeline(self, stages: list[ast.Stage]) -> tuple[ast.Pipeline, ast.ShellEscape | None]:
        shell = None
        while True:
            token = self.peek()
            if len(stages) >= MAX_STAGES:
                raise self.error(f"syntax error: a pipeline of more than {MAX_STAGES} stages", token.start, token.end)
            stages.append(self._command(first=not stages))
            token = self.peek()
            if token.kind is Kind.SHELL:
                shell = self._shell()
                if not self._is_stage(shell):
                    break
                stages.append(ast.ShellStage(shell.text, start=shell.start, end=shell.end))
                shell = None
            elif token.kind is not Kind.PIPE:
                break
            self.take()
        return ast.Pipeline(tuple(stages), start=stages[0].start, end=stages[-1].end), shell

    def _is_stage(self, shell: ast.ShellEscape) -> bool:
        if self.peek().kind is not Kind.PIPE:
            return False
        if not shell.quoted or shell.obey:
            raise self.expected("the end of the statement")
        return True

    def _shell(self) -> ast.ShellEscape:
        mark = self.take()
        token = self.peek()
        if token.kind not in (Kind.SHELL_TEXT, Kind.SHELL_QUOTED):
            raise self.expected(f"a shell command after {mark.text}")
        if token.kind is Kind.SHELL_TEXT and token.value.startswith("=") and token.start == mark.end:
            raise ParseError("syntax error: ! begins a shell command, and none begins with =", self.text, mark.start,
                             mark.end + 1, hint="quote the expression: ::grep '.!=0'")
        self.take()
        quoted = token.kind is Kind.SHELL_QUOTED
        return ast.ShellEscape(token.value, quoted, mark.text == "!<", start=mark.start, end=token.end)

    def _command(self, first: bool) -> ast.Command:
        token = self.peek()
        if token.kind not in _COMMANDS:
            if not first and (starts_expression(token) or self._at_operator(",")):
                raise self.expected("a command (only the first of a pipeline takes an address or count)")
            raise self.expected("a command")
        self.take()
        if token.kind is Kind.VERB:
            return self._format(token)
        if token.kind is Kind.DCMD and self._check is not None and (reason := self._check(token.value)):
            raise self.error(f"invalid command '{token.text}': {reason}", token.start, token.end)
        arguments = self._arguments()
        start, end = token.start, arguments[-1].end if arguments else token.end
        if token.kind is Kind.DCMD:
            return ast.DcmdCall(token.value, arguments, start=start, end=end)
        if token.kind is Kind.ASSIGN:
            return ast.Assign(token.value or None, arguments, start=start, end=end)
        if token.kind is Kind.WRITE:
            return ast.Write(token.text[0], token.value, arguments, start=start, end=end)
        return ast.Search(token.text[0], token.value, arguments, start=start, end=end)

    def _format(self, verb: Token) -> ast.Format | ast.HexDump:
        items: list[ast.FormatItem] = []
        while True:
            token = self.peek()
            start, end = token.start, token.end
            if token.kind is Kind.OPEN:
                items.append(self._bracketed())
                continue
            if token.kind is Kind.FORMAT_COUNT:
                if len(token.text.lstrip("0")) > MAX_COUNT_DIGITS:
                    raise self.error("specified value exceeds maximum immediate value", start, end)
                items.append(ast.FormatCount(token.text, start=start, end=end))
            elif token.kind is Kind.FORMAT_STRING:
                items.append(ast.FormatString(token.value, start=start, end=end))
            elif token.kind is Kind.FORMAT_CHAR:
                items.append(ast.FormatChar(token.value, start=start, end=end))
            else:
                break
            self.take()
        last = items[-1].end if items else verb.end
        if len(items) == 1 and verb.text != "=":
            only = items[0]
            if isinstance(only, ast.FormatCount | ast.Immediate):
                return ast.HexDump(verb.text, only, start=verb.start, end=last)
        return ast.Format(verb.text, tuple(items), start=verb.start, end=last)

    def _arguments(self) -> tuple[ast.Argument, ...]:
        arguments: list[ast.Argument] = []
        while True:
            token = self.peek()
            if token.kind is Kind.WORD:
                self.take()
                arguments.append(ast.Word(token.pieces, start=token.start, end=token.end))
            elif token.kind is Kind.OPEN:
                arguments.append(self._bracketed())
            else:
                return tuple(arguments)

    def _bracketed(self) -> ast.Immediate:
        self._immediate = mark = self.take()
        expression = parse_expression(self)
        close = self.peek()
        if close.kind is not Kind.CLOSE:
            raise self.expected("an operator or ]")
        self.take()
        self._immediate = None
        return ast.Immediate(expression, start=mark.start, end=close.end)

    def _at_operator(self, text: str) -> bool:
        token = self.peek()
        return token.kind is Kind.OPERATOR and token.text == text


def parse(text: str, check_dcmd: DcmdCheck | None = None) -> tuple[ast.Statement, ...]:
    """Return all statements of *text*; its end ends the last one.

    :raises ParseError: for the first one that is not in the language
    """
    return tuple(Parser(text, check_dcmd))


def parse_only_expression(text: str) -> ast.Expression:
    """Return the expression that *text* is.

    :raises ParseError: it is none, or more than one
    """
    parser = Parser(text)
    expression = parse_expression(parser)
    if parser.peek().kind is not Kind.EOF:
        raise parser.expected("an operator or the end")
    return expression
