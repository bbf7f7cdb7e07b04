"""Text from a syntax tree, such that ``parse(unparse(tree)) == tree`` for every tree that the parser makes.

Blanks are put where two tokens would otherwise become one (``/ /`` is not ``//``, ``% %x`` is not ``%%x``).
"""

from __future__ import annotations

import re
from itertools import pairwise

from kshell.lang import ast
from kshell.lang.expressions import PRECEDENCE
from kshell.lang.quoting import escape

_UNARY_LEVEL = max(PRECEDENCE.values()) + 1
_PREFIX_LETTERS = "xXtToO"
_NEEDS_QUOTES = re.compile(r"""[ \t\n;!|"'$]""")


def unparse(node: ast.Statement | ast.Pipeline | ast.Stage | ast.Expression | ast.Argument) -> str:
    """Return the text of a statement, a pipeline, a command, an expression or an argument."""
    match node:
        case ast.Statement():
            return _statement(node)
        case ast.Pipeline():
            return _stages(node.stages)
        case ast.Word():
            return "".join(_piece(piece) for piece in node.pieces)
        case ast.Immediate():
            return f"$[{_expression(node.expression)}]"
        case ast.ShellStage():
            return _shell_quoted("!", node.text)
        case (
            ast.DcmdCall() | ast.Assign() | ast.Format() | ast.HexDump() | ast.Write() | ast.Search()
        ):
            return _command(node)
    return _expression(node)


def quote_word(text: str) -> str:
    """Return an argument word that a dcmd sees as *text*."""
    if text and not _NEEDS_QUOTES.search(text) and not text.startswith("//") and text.isprintable():
        return text
    return f'"{escape(text)}"'


# Expressions


def _level(node: ast.Expression) -> int:
    return PRECEDENCE[node.op] if isinstance(node, ast.Binary) else _UNARY_LEVEL


def _expression(node: ast.Expression) -> str:
    # The left side may be very deep (1+1+1+...), the right side is not: the parser's MAX_DEPTH bounds it.
    tail: list[str] = []
    while isinstance(node, ast.Binary):
        level = PRECEDENCE[node.op]
        tail.append(f" {node.op} {_operand(node.right, level + 1)}")
        if _level(node.left) < level:
            return f"({_expression(node.left)})" + "".join(reversed(tail))
        node = node.left
    return _simple(node) + "".join(reversed(tail))


def _operand(node: ast.Expression, level: int) -> str:
    return _expression(node) if _level(node) >= level else f"({_expression(node)})"


def _simple(node: ast.Expression) -> str:
    match node:
        case ast.Number() | ast.SymbolOrNumber():
            return node.text
        case ast.CharConst():
            return f"'{node.text}'"
        case ast.SymbolRef():
            return node.name if node.object is None else f"{node.object}`{node.name}"
        case ast.VarRef():
            return f"<{node.name}"
        case ast.Dot():
            return "."
        case ast.LastAddress():
            return "&"
        case ast.PlusDot():
            return "+"
        case ast.CaretDot():
            return "^"
        case ast.Group():
            return f"({_expression(node.inner)})"
        case ast.Unary():
            return node.op + _operand(node.operand, _UNARY_LEVEL)
        case ast.Deref():
            operand = _operand(node.operand, _UNARY_LEVEL)
            if node.width is not None:
                return f"{node.space}/{node.width}/{operand}"
            return node.space + (" " if operand.startswith("%") else "") + operand
        case ast.Binary():
            return _expression(node)


# Commands


def _statement(node: ast.Statement) -> str:
    text = "" if node.address is None else _expression(node.address)
    if node.count is not None:
        text += f",{_expression(node.count)}"
    if node.pipeline is not None:
        body = _stages(node.pipeline.stages)
        text += f" {body}" if text and body[0] == "!" else body
    if node.shell is not None:
        mark = "!<" if node.shell.obey else "!"
        shell = _shell_quoted(mark, node.shell.text) if node.shell.quoted else f"{mark} {node.shell.text}"
        text = f"{text} {shell}" if text else shell
    return text


def _stages(stages: tuple[ast.Stage, ...]) -> str:
    text = unparse(stages[0])
    for before, stage in pairwise(stages):
        is_shell = isinstance(stage, ast.ShellStage)
        assert not (is_shell and isinstance(before, ast.ShellStage))
        text += (" " if is_shell else " | ") + unparse(stage)
    return text


def _shell_quoted(mark: str, text: str) -> str:
    return f'{mark} "{escape(text)}"'


def _command(node: ast.Command) -> str:
    match node:
        case ast.Format():
            return node.verb + _items(node.verb, node.items)
        case ast.HexDump():
            return node.verb + _item(node.size)
        case ast.DcmdCall():
            head = node.name if node.name[0] in "$:" else f"::{node.name}"
        case ast.Assign():
            head = ">" if node.modifier is None else f">/{node.modifier}/"
            if node.arguments:
                first = unparse(node.arguments[0])
                if re.match(r"[0-9A-Za-z_]", first):
                    return " ".join([head + first, *(unparse(argument) for argument in node.arguments[1:])])
        case ast.Write() | ast.Search():
            head = node.verb + node.letter
    return " ".join([head, *(unparse(argument) for argument in node.arguments)])


def _piece(piece: ast.Piece) -> str:
    if piece.quote == '"':
        return f'"{escape(piece.text)}"'
    return f"{piece.quote}{piece.text}{piece.quote}"


def _items(verb: str, items: tuple[ast.FormatItem, ...]) -> str:
    text, before = "", verb
    for item in items:
        this = _item(item)
        if _would_join(before, this, item):
            text += " "
        text += this
        before = this
    return text


def _would_join(before: str, this: str, item: ast.FormatItem) -> bool:
    """True if the scanner would take the end of *before* and the start of *this* for one token."""
    if isinstance(item, ast.FormatCount):
        return before[-1].isdigit()
    return before + this in ("//", "==", "$[") or (before == "0" and this in _PREFIX_LETTERS)


def _item(item: ast.FormatItem) -> str:
    match item:
        case ast.FormatCount():
            return item.text
        case ast.FormatString():
            return f'"{escape(item.text)}"'
        case ast.FormatChar():
            return item.letter
        case ast.Immediate():
            return unparse(item)
