"""Hypothesis strategies for syntax trees that the parser could have made."""

from __future__ import annotations

from hypothesis import strategies as st

from kshell.lang import ast
from kshell.lang.expressions import PRECEDENCE

NAME = st.from_regex(r"[g-z_][0-9a-z_]{0,6}", fullmatch=True)
NUMBER = st.from_regex(r"0x[0-9a-f]{1,8}|0t[0-9]{1,8}|0o[0-7]{1,5}|0i[01]{1,5}|[0-9][0-9a-f_]{0,6}", fullmatch=True)
OPERANDS: st.SearchStrategy[ast.Expression] = st.one_of(
    NUMBER.map(ast.Number),
    st.from_regex(r"[a-f][0-9a-f]{0,5}", fullmatch=True).map(ast.SymbolOrNumber),
    st.builds(ast.SymbolRef, st.none() | NAME, NAME),
    (NAME | st.sampled_from("0129")).map(ast.VarRef),
    st.from_regex(r"([ -&(-[\]-~é]|\\n){0,4}", fullmatch=True).map(ast.CharConst),
    st.sampled_from([ast.Dot(), ast.LastAddress(), ast.PlusDot(), ast.CaretDot()]),
)


def level(node: ast.Expression) -> int:
    return PRECEDENCE[node.op] if isinstance(node, ast.Binary) else 9


def grouped(node: ast.Expression, least: int) -> ast.Expression:
    return node if level(node) >= least else ast.Group(node)


def _binary(op: str, left: ast.Expression, right: ast.Expression) -> ast.Expression:
    return ast.Binary(op, grouped(left, PRECEDENCE[op]), grouped(right, PRECEDENCE[op] + 1))


def _larger(inner: st.SearchStrategy[ast.Expression]) -> st.SearchStrategy[ast.Expression]:
    unary = inner.map(lambda node: grouped(node, 9))
    return st.one_of(
        st.builds(_binary, st.sampled_from(sorted(PRECEDENCE)), inner, inner),
        st.builds(ast.Unary, st.sampled_from("-~#"), unary),
        st.builds(ast.Deref, st.sampled_from("*%"), st.none() | st.sampled_from("csil1248"), unary),
        inner.map(ast.Group),
    )


EXPRESSIONS = st.recursive(OPERANDS, _larger, max_leaves=12)

_PLAIN = st.text(st.characters(exclude_characters=" \t\n;!|\"'$", exclude_categories=["Cs"]), min_size=1, max_size=6)
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
_PIECES = st.one_of(
    _PLAIN.map(ast.Piece),
    _TEXT.filter(lambda text: "'" not in text and "\n" not in text).map(lambda text: ast.Piece(text, "'")),
    _TEXT.map(lambda text: ast.Piece(text, '"')),
)


def _word(pieces: list[ast.Piece]) -> ast.Word | None:
    alternate = [
        piece for index, piece in enumerate(pieces) if index == 0 or piece.quote or pieces[index - 1].quote
    ]
    if not alternate[0].quote and alternate[0].text.startswith("//"):
        return None
    return ast.Word(tuple(alternate))


WORDS = st.lists(_PIECES, min_size=1, max_size=3).map(_word).filter(lambda word: word is not None)
IMMEDIATES = EXPRESSIONS.map(ast.Immediate)
ARGUMENTS = st.lists(WORDS | IMMEDIATES, max_size=3).map(tuple)
_COUNTS = st.from_regex(r"[0-9]{1,3}", fullmatch=True).map(ast.FormatCount)
_LETTERS = st.characters(exclude_characters=" \t\n;!|\"0123456789", exclude_categories=["Cs"])
_ITEMS = st.lists(
    st.one_of(_COUNTS, IMMEDIATES, _TEXT.map(ast.FormatString), _LETTERS.map(ast.FormatChar)), max_size=5
)


def _format(verb: str, items: list[ast.FormatItem]) -> ast.Format | None:
    if verb != "=" and len(items) == 1 and isinstance(items[0], ast.FormatCount | ast.Immediate):
        return None
    if verb in "/\\?" and items and isinstance(items[0], ast.FormatChar) and items[0].letter in "vwzWZlLM":
        return None
    return ast.Format(verb, tuple(items))


_NAMES = st.sampled_from(["ps", "a`b", "$c", ":c", "$<", "$<<", "$>", "$?", "_x9"])
_SIZES = _COUNTS | st.sampled_from(["0x40", "0t9", "0o7"]).map(ast.FormatCount) | IMMEDIATES
COMMANDS = st.one_of(
    st.builds(ast.DcmdCall, _NAMES, ARGUMENTS),
    st.builds(ast.Assign, st.none() | st.sampled_from("csil9"), ARGUMENTS),
    st.builds(_format, st.sampled_from("/\\?@="), _ITEMS).filter(lambda node: node is not None),
    st.builds(ast.HexDump, st.sampled_from("/\\?@"), _SIZES),
    st.builds(ast.Write, st.sampled_from("/\\?"), st.sampled_from("vwWZz"), ARGUMENTS),
    st.builds(ast.Search, st.sampled_from("/\\?"), st.sampled_from("lLM"), ARGUMENTS),
)
_STAGES = st.lists(st.tuples(st.none() | _TEXT.map(ast.ShellStage), COMMANDS), min_size=1, max_size=3)
PIPELINES = _STAGES.map(
    lambda pairs: ast.Pipeline(tuple(stage for pair in pairs for stage in pair if stage is not None))
)
_SHELL = st.one_of(
    st.builds(ast.ShellEscape, _TEXT, st.just(True), st.booleans()),
    st.builds(ast.ShellEscape, st.from_regex(r"[a-z=][a-z |'\"$]{0,5}", fullmatch=True), st.just(False), st.booleans()),
)
_MAYBE = st.none() | EXPRESSIONS
STATEMENTS = st.one_of(
    st.builds(ast.Statement, _MAYBE, _MAYBE, PIPELINES, st.none() | _SHELL),
    st.builds(ast.Statement, st.none() | EXPRESSIONS, EXPRESSIONS, st.none(), st.none() | _SHELL),
    st.builds(ast.Statement, EXPRESSIONS),
    st.builds(ast.Statement, shell=_SHELL),
    st.just(ast.Statement()),
)
