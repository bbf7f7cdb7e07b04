"""What stands at the cursor of a line that is still being typed.

Works on the tokens before the cursor, so an unfinished quote or expression is no obstacle. Who offers the names (dcmds,
symbols, types) is the shell's business.
"""

from __future__ import annotations

import enum

from kshell.lang.lexer import Lexer
from kshell.lang.node import Record
from kshell.lang.quoting import unescape
from kshell.lang.tokens import Kind, State, Token


class Want(enum.Enum):
    """The kind of name that fits at the cursor."""

    DCMD = "dcmd"
    ARGUMENT = "argument"
    SYMBOL = "symbol"
    VARIABLE = "variable"
    WALKER = "walker"
    NOTHING = "nothing"


class CompletionContext(Record):
    """The word at the cursor.

    :ivar want: what the word may be
    :ivar word: its part before the cursor, decoded
    :ivar start: offset where a completion's text replaces what is there up to the cursor
    :ivar name: the dcmd whose arguments these are, as :class:`kshell.lang.ast.DcmdCall` has it
    :ivar before: the arguments between the name and the word (``$[ ]`` as its text)
    :ivar blank_at_end: a new word begins at the cursor
    :ivar quote: the quote that is open at the cursor, or empty
    :ivar symbol: the name at the left of the dcmd, if its address is nothing but a name
    :ivar stages: the dcmds before it in its pipeline, the nearest first, each with its words
    """

    want: Want
    word: str = ""
    start: int = 0
    name: str = ""
    before: tuple[str, ...] = ()
    blank_at_end: bool = False
    quote: str = ""
    symbol: str = ""
    stages: tuple[tuple[str, tuple[str, ...]], ...] = ()


_ENDS_OPERAND = frozenset({Kind.NUMBER, Kind.CHAR, Kind.HEX_WORD, Kind.SYMBOL, Kind.DOT, Kind.VARIABLE})
_LISTS = frozenset({Kind.DCMD, Kind.ASSIGN, Kind.WRITE, Kind.SEARCH})


def context_at(text: str, cursor: int | None = None) -> CompletionContext:
    """Return what fits at offset *cursor* of *text* (default: its end)."""
    line = text if cursor is None else text[:cursor]
    lexer = Lexer(line)
    tokens: list[Token] = []
    while (token := lexer.next()).kind is not Kind.EOF:
        tokens.append(token)
    end = len(line)
    last = tokens[-1] if tokens else None
    if last is None:
        return CompletionContext(Want.SYMBOL, start=end)
    touching = last.end == end
    if last.kind is Kind.ERROR:
        return _at_error(line, tokens, lexer.state)
    if last.kind is Kind.DCMD and touching:
        return CompletionContext(Want.DCMD, last.value, last.start, last.value)
    if lexer.state in (State.INITIAL, State.EXPR):
        if last.kind in (Kind.COMMENT, Kind.SHELL_TEXT) and touching:
            return CompletionContext(Want.NOTHING, start=end)
        return _in_expression(last, touching, end)
    if lexer.state is State.ARGLIST:
        return _in_arguments(tokens, end)
    return CompletionContext(Want.NOTHING, start=end)


def _in_expression(last: Token, touching: bool, end: int) -> CompletionContext:
    if touching and last.kind in (Kind.SYMBOL, Kind.HEX_WORD):
        return CompletionContext(Want.SYMBOL, last.text, last.start)
    if touching and last.kind is Kind.VARIABLE:
        return CompletionContext(Want.VARIABLE, last.value, last.start + 1)
    if last.kind is Kind.PIPE:
        return CompletionContext(Want.DCMD, start=end)
    if last.kind in _ENDS_OPERAND or last.text == ")":
        return CompletionContext(Want.NOTHING, start=end)
    return CompletionContext(Want.SYMBOL, start=end)


def _in_arguments(tokens: list[Token], end: int, open_word: tuple[str, int, str] | None = None) -> CompletionContext:
    """*open_word*: decoded text, start and quote of a word that lacks its closing quote."""
    head, arguments = _command_before(tokens)
    if head is None:
        return CompletionContext(Want.NOTHING, start=end)
    if arguments and arguments[0].kind in (Kind.SHELL, Kind.COMMENT):
        return CompletionContext(Want.NOTHING, start=end)
    word, start, quote = open_word or ("", end, "")
    last = arguments[-1] if arguments else head
    blank = open_word is None and (last.end < end or last.kind is not Kind.WORD)
    if open_word is None and last.kind is Kind.WORD and last.end == end:
        word, start = last.value, last.start
        arguments = arguments[:-1]
    before = _texts(arguments)
    if head.kind is Kind.ASSIGN:
        want = Want.NOTHING if before else Want.VARIABLE
        return CompletionContext(want, word, start, ">", before, blank, quote)
    if head.kind is not Kind.DCMD:
        return CompletionContext(Want.SYMBOL, word, start, "", before, blank, quote)
    is_walker = head.value == "walk" and not before
    symbol, stages = _left(tokens[: tokens.index(head)])
    return CompletionContext(
        Want.WALKER if is_walker else Want.ARGUMENT, word, start, head.value, before, blank, quote, symbol, stages
    )


def _left(tokens: list[Token]) -> tuple[str, tuple[tuple[str, tuple[str, ...]], ...]]:
    """Return what stands at the left of a dcmd: the symbol that is its address, or the stages before it."""
    ends = [index for index, token in enumerate(tokens) if token.kind is Kind.END]
    tokens = tokens[ends[-1] + 1 :] if ends else tokens
    if len(tokens) == 1 and tokens[0].kind in (Kind.SYMBOL, Kind.HEX_WORD):
        return tokens[0].text, ()
    stages: list[tuple[str, tuple[str, ...]]] = []
    while tokens and tokens[-1].kind is Kind.PIPE:
        head, arguments = _command_before(tokens[:-1])
        if head is None or head.kind is not Kind.DCMD:
            break
        stages.append((head.value, _texts(arguments)))
        tokens = tokens[: tokens.index(head)]
    return "", tuple(stages)


def _command_before(tokens: list[Token]) -> tuple[Token | None, list[Token]]:
    """Return the verb or dcmd whose list the end of *tokens* is in, and the tokens of that list."""
    for index in range(len(tokens) - 1, -1, -1):
        if tokens[index].kind in _LISTS:
            return tokens[index], tokens[index + 1 :]
        if tokens[index].kind in (Kind.SHELL, Kind.SHELL_QUOTED, Kind.COMMENT, Kind.PIPE, Kind.END):
            break
    return None, []


def _texts(arguments: list[Token]) -> tuple[str, ...]:
    texts: list[str] = []
    inside = False
    for token in arguments:
        if token.kind is Kind.OPEN:
            inside = True
            texts.append("$[")
        elif token.kind is Kind.CLOSE:
            inside = False
            texts[-1] += "]"
        elif inside:
            texts[-1] += token.text
        else:
            texts.append(token.value)
    return tuple(texts)


def _at_error(line: str, tokens: list[Token], state: State) -> CompletionContext:
    error, end = tokens[-1], len(line)
    if error.end < end:
        return CompletionContext(Want.NOTHING, start=end)
    if error.text == "::":
        return CompletionContext(Want.DCMD, start=error.start)
    if error.text == "<" and state in (State.INITIAL, State.EXPR):
        return CompletionContext(Want.VARIABLE, start=end)
    if state is State.ARGLIST and "unmatched" in error.message:
        return _open_word(error, tokens[:-1], end)
    return CompletionContext(Want.NOTHING, start=end)


def _open_word(error: Token, before: list[Token], end: int) -> CompletionContext:
    """The cursor is inside quotes: ``::print "struct li``."""
    quote = error.message.split()[2]
    text = error.text
    for candidate in [index for index, char in enumerate(text) if char == quote]:
        closed = Lexer(f"::x {text[:candidate]}")
        closed.next()
        words = [closed.next(), closed.next()]
        if words[0].kind in (Kind.WORD, Kind.EOF) and words[1].kind is Kind.EOF:
            inside = text[candidate + 1 :]
            decoded = words[0].value + (unescape(inside) if quote == '"' else inside)
            return _in_arguments(before, end, (decoded, error.start, quote))
    return CompletionContext(Want.NOTHING, start=end)
