"""Tokens: what the lexer hands to the parser, the highlighter and completion."""

from __future__ import annotations

import enum

from kshell.lang.ast import Piece
from kshell.lang.node import Record


class Kind(enum.Enum):
    """What a token is."""

    NUMBER = "number"
    CHAR = "character constant"
    HEX_WORD = "symbol or number"
    SYMBOL = "symbol"
    DOT = "dot"
    VARIABLE = "variable"
    CAST = "sized dereference"
    OPERATOR = "operator"
    VERB = "format verb"
    WRITE = "write verb"
    SEARCH = "search verb"
    DCMD = "dcmd"
    ASSIGN = "assignment"
    FORMAT_COUNT = "format count"
    FORMAT_CHAR = "format character"
    FORMAT_STRING = "format string"
    WORD = "argument"
    OPEN = "$["
    CLOSE = "]"
    PIPE = "|"
    SHELL = "!"
    SHELL_TEXT = "shell command"
    SHELL_QUOTED = "quoted shell command"
    COMMENT = "comment"
    END = "end of statement"
    ERROR = "error"
    EOF = "end of input"


class State(enum.Enum):
    """The states of the scanner (section 2.1)."""

    INITIAL = "initial"
    FMTLIST = "format list"
    ARGLIST = "arguments"
    EXPR = "expression in $[ ]"
    SHELLCMD = "shell command"


class Token(Record):
    """``text[start:end]`` of the line.

    :ivar text: the characters as they stand there
    :ivar value: what they mean: the name of a dcmd, symbol or variable, the decoded string, the letter of a write verb
    :ivar pieces: of a word
    :ivar message: of an error
    """

    kind: Kind
    start: int
    end: int
    text: str
    value: str = ""
    pieces: tuple[Piece, ...] = ()
    message: str = ""
