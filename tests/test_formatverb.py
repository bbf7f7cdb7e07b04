"""The formatting verbs (mdb-language.md 9.2, 9.3, 9.5; dot and increment 5.1)."""

from __future__ import annotations

import time
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kshell.errors import Fault, KshellError, Reason
from kshell.formatverb import FormatRun, Step, resolve
from kshell.lang import ast
from kshell.lang.numbers import number_value
from kshell.lang.parser import parse
from kshell.page import Page


class Target:
    """Bytes from 0 on, where each is its own address; symbols; every instruction is two bytes."""

    byteorder: Literal["little", "big"] = "little"
    pointer_size = 8

    def __init__(self, data: bytes = bytes(range(256)), **symbols: int) -> None:
        self.data, self.symbols = data, symbols
        self.reads: list[tuple[str, int, int]] = []

    def read(self, space: str, address: int, size: int) -> bytes:
        self.reads.append((space, address, size))
        if address + size > len(self.data):
            held = self.data[address:]
            raise Fault(max(address, len(self.data)), size, Reason.NOT_MAPPED, partial=held)
        return self.data[address : address + size]

    def symbolize(self, address: int) -> tuple[str, int] | None:
        below = [(value, name) for name, value in self.symbols.items() if value <= address < value + 0x20]
        return (max(below)[1], address - max(below)[0]) if below else None

    def disassemble(self, space: str, address: int) -> tuple[str, int]:
        return f"insn{self.read(space, address, 2).hex()}", 2


def number(node: ast.Expression | None, default: int) -> int:
    return number_value(node.text, 16) if isinstance(node, ast.Number | ast.SymbolOrNumber) else default


def start(line: str, target: Target | None = None, **options: Any) -> FormatRun:
    (statement,) = parse(line)
    assert statement.pipeline
    (command,) = statement.pipeline.stages
    assert isinstance(command, ast.Format)
    dot = statement.address
    value = -number(dot.operand, 0) if isinstance(dot, ast.Unary) else number(dot, 0)
    steps = resolve(command, lambda node: number(node, 0))
    return FormatRun(command.verb, steps, target or Target(), value, count=number(statement.count, 1), **options)


def shown(line: str, target: Target | None = None, **options: Any) -> str:
    """Return what the verb prints, errors in brackets."""
    return "".join(item if isinstance(item, str) else f"[{item}]" for item in start(line, target, **options))


def test_9_2_rounds_go_on_on_the_line_unless_the_format_ends_it() -> None:
    assert shown("10,3/XXn") == (
        "0x10:           13121110        17161514        \n"
        "                1b1a1918        1f1e1d1c        \n"
        "                23222120        27262524        \n")
    assert shown("10,3/X") == "0x10:           13121110        17161514        1b1a1918        \n"


def test_9_2_exact_symbol_gets_a_line_of_its_own() -> None:
    target = Target(jiffies=0x10)
    assert shown("10/J", target) == "jiffies:\njiffies:        1716151413121110 \n"
    assert shown("0/J", target) == "0:              706050403020100 \n"
    assert shown("14/x", target) == "jiffies+4:      1514    \n"
    assert shown("1c/x", target) == "jiffies+0xc:    1d1c    \n"
    assert shown("10/x", target, symbolic=False) == "0x10:           1110    \n"


def test_9_2_long_headers_are_padded_to_the_next_16() -> None:
    target = Target(a_name_of_21_letters_=0x10)
    assert shown("10/x", target).split("\n")[1] == "a_name_of_21_letters_:          1110    "


def test_9_2_ai_and_ia() -> None:
    target = Target(f=0x10)
    assert shown("10/ai", target) == "f:\nf:              insn1011\n"
    assert shown("10,2/ia", target) == "f:              insn1011\nf+2:            insn1213\nf+4:            \n"


def test_9_2_lines_wrap_by_padded_fields() -> None:
    assert shown("0/5X") == (
        "0:              3020100         7060504         b0a0908         f0e0d0c\n"
        "                13121110        \n")
    assert shown("0/4X") == "0:              3020100         7060504         b0a0908         f0e0d0c\n"
    high = Target(b"\xff" * 64)
    assert shown("0/4J", high) == (
        "0:              " + "ffffffffffffffff " * 3 + "\n                ffffffffffffffff \n")
    assert shown("0/4E", high).split("\n")[0] == "0:              " + "18446744073709551615 " * 3


@pytest.mark.parametrize(("line", "text"), [
    ("-1=d", "-1      "), ("1ff=B", "ff      "), ("10=X", "10              "), ("41=c", "A"), ("41=cn", "A"),
    ("10=XD", "10              16              "), ("ff=C", "\\377"), ("5,3=B", "5       5       5       "),
])
def test_9_2_immediate_values(line: str, text: str) -> None:
    assert shown(line) == " " * 16 + text + "\n"


def test_9_2_equals_without_formats() -> None:
    with pytest.raises(KshellError, match="expected one or more format characters following '='"):
        start("1=")


def test_9_2_default_format() -> None:
    assert shown("10/") == "0x10:           13121110        = insn1011\n"


def test_9_2_errors_end_their_item_only() -> None:
    assert shown("fe/4xA\"end\"") == (
        '0xfe:           fffe    [failed to read data from target: no mapping for address]'
        "[invalid format character -- 'A']end\n")
    run = start("fe/4xA")
    assert not run.failed
    list(run)
    assert run.failed and run.last_value == 0xFFFE


def test_9_2_rounds_stop_where_nothing_more_can_be_read() -> None:
    for line in ("f8,5/X", 'f8,5/X"."'):
        run = start(line)
        errors = [item for item in run if isinstance(item, KshellError)]
        assert len(errors) == 1
        assert (run.dot, run.increment) == (0x100, 0)


def test_9_1_spaces() -> None:
    for verb, space in (("/", "virtual"), ("\\", "physical"), ("@", "physical"), ("?", "object")):
        target = Target()
        shown(f"10{verb}X", target)
        assert target.reads == [(space, 0x10, 4)]


def test_9_1_counts() -> None:
    assert shown("0/4X") == shown("0/XXXX") == shown("0/$[4]X") == shown("0/X 3 X")
    assert shown('0/4"a"X') == "0:              a3020100         \n"


@pytest.mark.parametrize(("line", "dot", "increment"), [
    ("10/X", 0x10, 4), ("10,3/X", 0x18, 4), ("10/4X", 0x10, 16), ("10/X4+X", 0x10, 12), ("10/X^D", 0x10, 4),
    ("10/Xn", 0x10, 4), ("10,3/XX", 0x20, 8), ("10/2-", 0x10, -2), ("10=X", 0x10, 0), ("10=4+X", 0x14, 0),
    ("10/2X^", 0x10, 0), ("10/2i", 0x10, 4), ("10,0/X", 0x10, 0), ("10/\"abc\"", 0x10, 0),
])
def test_5_1_dot_and_increment(line: str, dot: int, increment: int) -> None:
    run = start(line)
    list(run)
    assert (run.dot, run.increment) == (dot, increment)


@pytest.mark.parametrize(("line", "value"), [("10/x", 0x1110), ("-1=B", 0xFF), ("10/Xa", 0x14), ("10,3/B", 0x12)])
def test_5_2_variable_0(line: str, value: int) -> None:
    run = start(line)
    list(run)
    assert run.last_value == value


def test_9_3_moves() -> None:
    assert shown("10/X^D") == "0x10:           13121110        319951120       \n"
    assert shown("10/x4+x2-x") == "0x10:           1110    1716    1716    \n"


def test_9_3_strings() -> None:
    target = Target(b"abc\0d\ne\0\x1b[m\0" + b"x" * 300)
    assert shown("0/s", target) == "0:              abc\n"
    assert shown("0/2sX", target).startswith("0:              abc\\0d\n                e6d5b1b ")
    assert shown("4/S", target) == "4:              d\\ne\n"
    assert shown("8/s", target) == "8:              \\x1b[m\n"
    run = start("c/s", target)
    (error,) = [item for item in run if isinstance(item, KshellError)]
    assert str(error) == "failed to read data from target: no mapping for address"
    assert run.increment == 300


def test_9_3_strings_end_somewhere() -> None:
    target = Target(b"x" * (3 << 20))
    run = start("0/s", target)
    assert [str(item) for item in run if isinstance(item, KshellError)] == ["string is longer than 0x100000 bytes"]


def test_9_3_characters() -> None:
    target = Target(b"ab\0\n")
    assert shown("0/2c", target) == "0:              ab\n"
    assert shown("0/4C", target) == "0:              ab\\0\\n\n"


def test_9_3_pointers() -> None:
    values = (0x10, 0x1C, 0x5000, 0)
    target = Target(b"".join(value.to_bytes(8, "little") for value in values), f=0x10)
    assert shown("0/4p", target) == (
        "0:              f                  f+0xc              0x5000             \n"
        "                0                  \n")
    target.pointer_size = 4
    assert shown("0/p", target) == "0:              f                  \n"


def test_9_3_a_ignores_the_margin() -> None:
    assert shown("10/Xa") == "0x10:           13121110        0x14:           \n"
    assert shown("10,2/Xna") == (
        "0x10:           13121110        \n0x14:           17161514        \n0x18:           \n")


def test_9_3_layout() -> None:
    assert shown("0/c4rc", Target(b"ab")) == "0:              a    b\n"
    assert shown("0/c8tc", Target(b"ab")) == "0:              a       b\n"
    assert shown("0/c2nc", Target(b"ab")) == "0:              a\n                \n                b\n"
    assert shown("0/c90tc", Target(b"ab")) == "0:              a\n                b\n"


def test_9_3_j_on_lines_of_its_own() -> None:
    assert shown("1d=j") == (
        "                11101\n                ||| |\n                ||| +-- bit 0 mask 0x01\n"
        "                ||+---- bit 2 mask 0x04\n                |+----- bit 3 mask 0x08\n"
        "                +------ bit 4 mask 0x10\n")
    assert shown("0=j") == "                0\n"


def test_9_3_instructions_with_words() -> None:
    assert shown("10/2I", Target(f=0x10)).split("\n")[1] == "f:              f 10111213: insn1011"


def test_9_5_strings_in_the_list() -> None:
    assert shown('10/"a="X"b="Xn') == "0x10:           a=13121110        b=17161514        \n"
    assert shown('10="a\\nb"') == "                a\n                b\n"


def test_7_1_no_header_no_wrapping_for_pipes() -> None:
    assert shown("0/6X", header=False, page_width=None).count("\n") == 1


def test_big_endian() -> None:
    target = Target()
    target.byteorder = "big"
    assert shown("10/Xh", target) == "0x10:           10111213        1514    \n"


def test_multi_letter_rounds_read_ahead_but_not_past_the_end() -> None:
    target = Target(bytes(4096))
    shown("0,100/XJn", target)
    assert len(target.reads) < 30
    assert max(address + size for _, address, size in target.reads) == 12 * 0x100


@given(st.binary(max_size=600), st.sampled_from("BVvxudXUDJKEe"), st.integers(30, 120), st.text("ab", max_size=3))
def test_9_2_fast_lines_are_those_of_single_fields(data: bytes, letter: str, width: int, tail: str) -> None:
    target = Target(data)
    size = FormatRun("/", [Step(letter)], target, 0)._size(letter)
    count = len(data) // size
    fast = FormatRun("/", [Step(letter, count), Step("", text=tail)], target, 0, page_width=width)
    slow = FormatRun("/", [Step(letter)] * count + [Step("", text=tail)], target, 0, page_width=width)
    assert "".join(map(str, fast)) == "".join(map(str, slow))
    if count:
        rounds = FormatRun("/", [Step(letter)], target, 0, page_width=width, count=count)
        run = FormatRun("/", [Step(letter, count)], target, 0, page_width=width)
        assert "".join(map(str, rounds)) == "".join(map(str, run))
        assert (rounds.dot, rounds.increment, run.increment) == ((count - 1) * size, size, count * size)


@pytest.mark.parametrize(("count", "letter", "tail"), [(6, "E", "a"), (9, "e", "ab"), (8, "X", "a"), (16, "B", "a")])
def test_9_2_what_follows_full_lines_goes_where_it_would_after_single_fields(
    count: int, letter: str, tail: str
) -> None:
    assert shown(f'0/{count}{letter}"{tail}"') == shown(f'0/{letter * count}"{tail}"')


def test_a_million_cells_are_quick_and_the_first_line_is_there_at_once() -> None:
    target = Target(bytes(range(256)) * 15625)
    for line in ("0,f4240/X", "0/1000000X"):
        begin = time.perf_counter()
        items = iter(start(line, target))
        assert str(next(items)).startswith("0:              3020100")
        assert time.perf_counter() - begin < 0.05
        assert sum(len(str(item)) for item in items) > 16_000_000
        assert time.perf_counter() - begin < 3


def test_endless_counts_can_be_left() -> None:
    for line in ("1,ffffffffffff=X", "1=99999999999999X", "0/99999999999999n", "1,ffffffffffff/\"a\""):
        assert next(iter(start(line))) is not None


def test_page_keeps_no_text_after_flush() -> None:
    page = Page()
    page.field("x", 8)
    assert (page.flush(), page.flush()) == (" " * 16 + "x       ", "")
