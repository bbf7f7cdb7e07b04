"""The syntax tree of a command line: immutable records, each with its place in the text.

Reference: mdb-language.md sections 3 (statements), 4 (expressions), 8 (pipelines, shell) and 9 (formatting verbs).
``start`` and ``end`` are offsets into the text and do not take part in comparisons: two trees are equal when they mean
the same. Numbers keep their text, since the radix is known only when an expression is evaluated.
"""

from __future__ import annotations

from kshell.lang.node import Node

# Expressions (section 4)


class Number(Node):
    """A number as it was written: ``0x10``, ``0t1_000``, ``10`` (default radix), ``0t1.5`` (a double's bits)."""

    text: str


class CharConst(Node):
    """``'ab'``; *text* is what stands between the quotes, escapes not yet processed."""

    text: str


class SymbolOrNumber(Node):
    """``dead``: only hex digits, starting with a letter. A symbol if the target has it, else a number (2.4)."""

    text: str


class SymbolRef(Node):
    """A symbol, with the load object (kernel module) it is looked up in: ``ext4`ext4_iget``."""

    object: str | None
    name: str


class VarRef(Node):
    """``<name`` or ``<0``."""

    name: str


class Dot(Node):
    """``.``, the current address."""


class LastAddress(Node):
    """``&`` as an operand: the address with which the last dcmd was invoked."""


class PlusDot(Node):
    """``+`` as an operand: dot + increment."""


class CaretDot(Node):
    """``^`` as an operand: dot - increment."""


class Group(Node):
    """``( inner )``."""

    inner: Expression


class Unary(Node):
    """*op* is ``-``, ``~`` or ``#`` (logical not)."""

    op: str
    operand: Expression


class Deref(Node):
    """``*x``, ``%x`` (object file), ``*/c/x``; *width* is None (a pointer) or one of ``c s i l 1 2 4 8``."""

    space: str
    width: str | None
    operand: Expression


class Binary(Node):
    """*op* is one of ``%% * % # + - << >> == != & ^ |``."""

    op: str
    left: Expression
    right: Expression


Expression = (
    Number | CharConst | SymbolOrNumber | SymbolRef | VarRef | Dot | LastAddress | PlusDot | CaretDot
    | Group | Unary | Deref | Binary
)


# Arguments and format lists (sections 2.5 and 9)


class Piece(Node):
    """A stretch of a word; *text* is decoded, *quote* is ``'``, ``"`` or empty."""

    text: str
    quote: str = ""


class Word(Node):
    """One argument, a string: pieces glued together."""

    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        """The word as the dcmd sees it."""
        return "".join(piece.text for piece in self.pieces)


class Immediate(Node):
    """``$[ expression ]``: one numeric argument, or a count in a format list."""

    expression: Expression


Argument = Word | Immediate


class FormatCount(Node):
    """A decimal repeat count; alone in a hex dump also ``0x40``, ``0t64``, ``0o100``."""

    text: str


class FormatString(Node):
    """``"text"``, printed literally; *text* is decoded."""

    text: str


class FormatChar(Node):
    """One format letter; whether it is one that exists is asked when it is executed."""

    letter: str


FormatItem = FormatCount | Immediate | FormatString | FormatChar


# Commands (sections 3, 8)


class DcmdCall(Node):
    """``::name``, ``$c``, ``:c``, ``$<`` with arguments; *name* is without ``::`` and with ``$`` or ``:``."""

    name: str
    arguments: tuple[Argument, ...] = ()


class Assign(Node):
    """``>name`` or ``>/m/name``; the name is the first of *arguments* and checked when it is executed."""

    modifier: str | None
    arguments: tuple[Argument, ...] = ()


class Format(Node):
    """``/ \\ ? @ =`` with a format list."""

    verb: str
    items: tuple[FormatItem, ...] = ()


class HexDump(Node):
    """``/40``: a format list that is exactly one number dumps so many bytes (9.4)."""

    verb: str
    size: FormatCount | Immediate


class Write(Node):
    """``/v /w /W /Z /z``: each argument is evaluated and written (9.6)."""

    verb: str
    letter: str
    arguments: tuple[Argument, ...] = ()


class Search(Node):
    """``/l /L /M``: value and mask (9.7)."""

    verb: str
    letter: str
    arguments: tuple[Argument, ...] = ()


class ShellStage(Node):
    """``! 'text' |``: a shell command as the first or a middle stage of a pipeline."""

    text: str


Command = DcmdCall | Assign | Format | HexDump | Write | Search
Stage = Command | ShellStage


class Pipeline(Node):
    """At least one stage; the last one is never a shell command."""

    stages: tuple[Stage, ...]


class ShellEscape(Node):
    """``! text`` at the end of a statement; with *obey* (``!<``) its output is obeyed as commands.

    *quoted*: the text stood in quotes (which may hold ``;``); *text* is decoded then.
    """

    text: str
    quoted: bool = False
    obey: bool = False


class Statement(Node):
    """``address,count pipeline ! shell``, any of them absent; all absent: a blank line."""

    address: Expression | None = None
    count: Expression | None = None
    pipeline: Pipeline | None = None
    shell: ShellEscape | None = None

    @property
    def is_blank(self) -> bool:
        """True for an empty line, which repeats the last command with option ``repeatlast``."""
        return self.address is None and self.count is None and self.pipeline is None and self.shell is None
