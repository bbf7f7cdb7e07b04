"""The grammar (mdb-language.md sections 3, 4.2-4.3, 8, 9.4), and the way back to text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kshell.errors import ParseError
from kshell.lang import ast
from kshell.lang.expressions import MAX_DEPTH
from kshell.lang.parser import Parser, parse, parse_only_expression
from kshell.lang.unparse import quote_word, unparse
from tests.lang import trees


def shape(text: str) -> str:
    """Return the expression with every operation in parentheses."""
    def show(node: ast.Expression) -> str:
        match node:
            case ast.Binary():
                return f"({show(node.left)}{node.op}{show(node.right)})"
            case ast.Unary():
                return f"({node.op}{show(node.operand)})"
            case ast.Deref():
                return f"({node.space}{f'/{node.width}/' if node.width else ''}{show(node.operand)})"
            case ast.Group():
                return show(node.inner)
        return unparse(node)

    return show(parse_only_expression(text))


@pytest.mark.parametrize(("text", "expected"), [
    ("1+2*3", "(1+(2*3))"), ("4-1*3", "(4-(1*3))"), ("1*2%%3", "(1*(2%%3))"), ("5&3==3", "(5&(3==3))"),
    ("1|2^3&4", "(1|(2^(3&4)))"), ("1<<2+3", "(1<<(2+3))"), ("1-2-3", "((1-2)-3)"), ("7#4*2", "((7#4)*2)"),
    ("1==2<<3", "(1==(2<<3))"), ("(1+2)*3", "((1+2)*3)"),
])
def test_4_3_precedence(text: str, expected: str) -> None:
    assert shape(text) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("*g+h", "((*g)+h)"), ("*/4/g+8", "((*/4/g)+8)"), ("-*g", "(-(*g))"), ("1-*g", "(1-(*g))"), ("2**g", "(2*(*g))"),
    ("%/c/g", "(%/c/g)"), ("%g%%2", "((%g)%%2)"), ("##5", "(#(#5))"), ("~-1#4", "((~(-1))#4)"),
])
def test_4_2_unary(text: str, expected: str) -> None:
    assert shape(text) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("+", "+"), ("+ + +", "(+++)"), ("^-1", "(^-1)"), ("& & &", "(&&&)"), (". + <9", "(.+<9)"), ("1 + +", "(1++)"),
])
def test_4_1_dot_operands(text: str, expected: str) -> None:
    assert shape(text) == expected


def test_4_1_scoped_symbols() -> None:
    assert parse_only_expression("LM1`libc`malloc") == ast.SymbolRef("LM1`libc", "malloc")


@pytest.mark.parametrize(("text", "start", "message"), [
    ("1+", 2, "syntax error: expected a number, symbol, variable or ("),
    ("*/q/1", 0, "invalid cast -- */q/"),
    ("(1", 2, "syntax error: expected an operator or )"),
    ("1 2", 2, 'syntax error near "2": expected an operator or a command'),
    ("g+/X", 2, 'syntax error near "/": expected'),
    ("::x $y", 4, "syntax error: $ in an argument"),
    ('::x "ab', 4, 'syntax error: " unmatched'),
    ("::x a'b", 4, "syntax error: ' unmatched"),
    ("::x $[1", 4, "syntax error: $[ unmatched"),
    ("::x $[1;2", 4, "syntax error: $[ unmatched"),
    ("::x | 10::y", 6, 'syntax error near "10": expected a command (only the first'),
    ("! 'ls", 2, "syntax error: quote unmatched"),
    ("::x ! 'a' ! 'b'", 10, 'syntax error near "!"'),
    ("::x | ! 'a'", 6, 'syntax error near "!": expected a command'),
    ("!", 1, "syntax error: expected a shell command after !"),
    ("10 ! ls", 3, 'syntax error near "!"'),
    ("'abcdefghi'", 0, "character constant may not exceed 8 bytes"),
    ("::", 0, "syntax error: expected a dcmd name"),
    ("]", 0, 'syntax error near "]"'),
    ("(" * (MAX_DEPTH + 2), MAX_DEPTH + 1, "syntax error: expression is nested too deeply"),
])
def test_15_syntax_errors(text: str, start: int, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert caught.value.message.startswith(message)
    assert caught.value.start == start
    assert caught.value.text == text


def test_3_statement_forms() -> None:
    one, two = ast.Number("1"), ast.Number("2")
    call = ast.Pipeline((ast.DcmdCall("x"),))
    assert parse("::x;1::x;1,2::x;,2::x;1;1,2;,2") == (
        ast.Statement(None, None, call), ast.Statement(one, None, call), ast.Statement(one, two, call),
        ast.Statement(None, two, call), ast.Statement(one), ast.Statement(one, two), ast.Statement(None, two),
    )


def test_3_blank_lines_are_statements_and_comments_are_not() -> None:
    assert [statement.is_blank for statement in parse("1\n\n// c\n2;\n")] == [False, True, False]
    assert parse("") == ()


def test_2_6_digit_variable_then_number_is_an_error() -> None:
    with pytest.raises(ParseError):
        parse("<10=X")


def test_8_1_pipelines() -> None:
    (statement,) = parse("::walk proc p|::map *.|/X ! less")
    assert statement.pipeline and [type(stage).__name__ for stage in statement.pipeline.stages] == [
        "DcmdCall", "DcmdCall", "Format"]
    assert statement.shell == ast.ShellEscape("less")


def test_8_4_shell() -> None:
    assert parse("! a | b") == (ast.Statement(shell=ast.ShellEscape("a | b")),)
    assert parse("!< gen") == (ast.Statement(shell=ast.ShellEscape("gen", obey=True)),)
    (first, middle) = parse("! 'cat list' | ::x\n::y ! 'a; b' | ::x ! 'c'")
    assert first.pipeline == ast.Pipeline((ast.ShellStage("cat list"), ast.DcmdCall("x")))
    assert middle.pipeline == ast.Pipeline((ast.DcmdCall("y"), ast.ShellStage("a; b"), ast.DcmdCall("x")))
    assert middle.shell == ast.ShellEscape("c", quoted=True)


def test_9_formats() -> None:
    (statement,) = parse('A/"a="4X$[2+2]rn'.replace("A", "g"))
    assert statement.pipeline == ast.Pipeline((ast.Format("/", (
        ast.FormatString("a="), ast.FormatCount("4"), ast.FormatChar("X"),
        ast.Immediate(ast.Binary("+", ast.Number("2"), ast.Number("2"))), ast.FormatChar("r"), ast.FormatChar("n"),
    )),))


@pytest.mark.parametrize(("text", "size"), [
    ("0/40", ast.FormatCount("40")), ("0/0x40", ast.FormatCount("0x40")), ("0\\0t64", ast.FormatCount("0t64")),
    ("0@$[1]", ast.Immediate(ast.Number("1"))), ("0?0o17 // c", ast.FormatCount("0o17")),
])
def test_9_4_bare_counts(text: str, size: ast.FormatCount | ast.Immediate) -> None:
    (statement,) = parse(text)
    assert statement.pipeline and statement.pipeline.stages == (ast.HexDump(text[1], size),)


@pytest.mark.parametrize("text", ["0=40", "0/40x", "0/4 X", "0/4 5", "0/0x40X"])
def test_9_4_mdb_meaning_holds_otherwise(text: str) -> None:
    (statement,) = parse(text)
    assert statement.pipeline and isinstance(statement.pipeline.stages[0], ast.Format)


def test_9_6_write_and_search() -> None:
    (write, search) = parse("g/W 5 <v; g?L $[1] f")
    word = ast.Word((ast.Piece("5"),)), ast.Word((ast.Piece("<v"),))
    assert write.pipeline and write.pipeline.stages == (ast.Write("/", "W", word),)
    assert search.pipeline and isinstance(search.pipeline.stages[0], ast.Search)


def test_2_7_unknown_dcmd_is_reported_before_the_rest_of_the_statement() -> None:
    parser = Parser("1=X; ::nosuch $[; 2=X", lambda name: "unknown dcmd name" if name == "nosuch" else None)
    assert parser.next_statement() is not None
    with pytest.raises(ParseError, match=r"^invalid command '::nosuch': unknown dcmd name$") as caught:
        parser.next_statement()
    assert (caught.value.start, caught.value.end) == (5, 13)


def statements_and_errors(text: str) -> Iterator[ast.Statement | ParseError]:
    """Yield the statements of a script; for one that is not in the language its error, then go on."""
    parser = Parser(text)
    while True:
        try:
            statement = parser.next_statement()
        except ParseError as error:
            yield error
            parser.recover()
        else:
            if statement is None:
                return
            yield statement


def test_7_5_a_script_goes_on_after_the_next_semicolon_or_newline() -> None:
    items = list(statements_and_errors("1=X; $[ ; 2=X\n)\n::x $[1\n3=X ("))
    assert [unparse(item) if isinstance(item, ast.Statement) else "error" for item in items] == [
        "1=X", "error", "2=X", "error", "error", "3=X("]
    assert [type(item).__name__ for item in statements_and_errors("::x '\r\n4=X")] == ["ParseError", "Statement"]


def test_7_5_a_line_with_an_error_is_not_blank() -> None:
    items = statements_and_errors(")\n\n);\n")
    assert [isinstance(item, ast.Statement) and item.is_blank for item in items] == [False, True, False]


def test_16_the_end_of_the_text_ends_the_last_statement() -> None:
    assert parse("::x\n1=X") == parse("::x\n1=X\n")


def test_2_2_no_line_continuation() -> None:
    first, second = parse("1\\\n2")
    assert first.pipeline == ast.Pipeline((ast.Format("\\"),))
    assert second.address == ast.Number("2")


def test_spans_are_the_places_in_the_text() -> None:
    text = "foo+1,2::print -t 'a b' $[3]"
    (statement,) = parse(text)
    assert statement.address and statement.count and statement.pipeline
    call = statement.pipeline.stages[0]
    assert isinstance(call, ast.DcmdCall)
    assert [text[node.start : node.end] for node in (statement.address, statement.count, call, *call.arguments)] == [
        "foo+1", "2", "::print -t 'a b' $[3]", "-t", "'a b'", "$[3]"]
    assert text[statement.start : statement.end] == text


def test_long_sums_cost_no_stack() -> None:
    expression = parse_only_expression("1" + "+1" * 20000)
    assert unparse(expression).count("+") == 20000


@pytest.mark.parametrize("text", ["0/ /X", "0= =X", "0/$ [1", "0/0 x4X", "0/4 5X", "% %g=X", "> >x", "0/X\"a\"4"])
def test_unparse_keeps_tokens_apart(text: str) -> None:
    (statement,) = parse(text)
    assert unparse(statement) == text


@given(trees.EXPRESSIONS)
def test_unparse_expression(node: ast.Expression) -> None:
    assert parse_only_expression(unparse(node)) == node


@given(trees.STATEMENTS)
def test_unparse_statement(node: ast.Statement) -> None:
    assert parse(unparse(node) + "\n") == (node,)


def unparse_all(statements: Iterable[ast.Statement]) -> str:
    """Return the text of *statements*, a line each."""
    return "".join(unparse(statement) + "\n" for statement in statements)


@given(st.lists(trees.STATEMENTS, max_size=4))
def test_unparse_all(nodes: list[ast.Statement]) -> None:
    assert parse(unparse_all(nodes)) == tuple(nodes)


@given(st.text(alphabet=list("01fgx.`_ \t\n;/\\?@=:$<>[]()+-*%#&^|~!,'\"XW4{"), max_size=40) | st.text())
def test_no_text_crashes_the_parser(text: str) -> None:
    try:
        nodes = parse(text)
    except ParseError as error:
        assert 0 <= error.start <= error.end <= len(text)
    else:
        assert parse(unparse_all(nodes)) == nodes
    for _ in statements_and_errors(text):
        pass


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_quote_word(text: str) -> None:
    (statement,) = parse(f"::x {quote_word(text)}")
    assert statement.pipeline
    (call,) = statement.pipeline.stages
    assert isinstance(call, ast.DcmdCall)
    (word,) = call.arguments
    assert isinstance(word, ast.Word) and word.text == text
