"""Expressions have 64-bit values (mdb-language.md section 4)."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kshell.errors import EvaluateError, Fault, KshellError, Reason
from kshell.evaluate import MASK, evaluate
from kshell.lang import ast
from kshell.lang.parser import parse_only_expression
from tests.lang import trees

MEMORY = bytes(range(256))


class Env:
    """Symbols, variables and 256 bytes of memory at 0x1000."""

    byteorder: Literal["little", "big"] = "little"
    pointer_size = 8

    def __init__(self, radix: int = 16, dot: int = 0x100, increment: int = 8) -> None:
        self.radix, self.dot, self.increment = radix, dot, increment
        self.last_address = 0x42
        self.symbols = {"add": 0x1008, "init_task": 0x1010, "ext4`iget": 0x1020}
        self.reads: list[tuple[int, int, str]] = []

    def symbol(self, name: str, object: str | None) -> int | None:
        if object == "nosuch":
            raise KshellError("unknown object file name")
        return self.symbols.get(name if object is None else f"{object}`{name}")

    def variable(self, name: str) -> int:
        return {"thread": 0x77, "1": 1, "minus": -1}[name]

    def read(self, address: int, size: int, space: str) -> bytes:
        self.reads.append((address, size, space))
        if not 0x1000 <= address <= 0x1100 - size:
            raise Fault(address, size, Reason.NOT_MAPPED)
        return MEMORY[address - 0x1000 : address - 0x1000 + size]


def value(text: str, env: Env | None = None) -> int:
    return evaluate(parse_only_expression(text), env or Env())


@pytest.mark.parametrize(("text", "result"), [
    ("2+3*4", 0xE), ("4-1*3", 1), ("2+3*4%5", 4), ("5&3==3", 1), ("7#4", 8), ("-8%3", -2 & MASK), ("-8%%3", 2),
    ("1<<3f", 1 << 63), ("1<<40", 0), ("1>>40", 0), ("-1>>3f", 1), ("8#8", 8), ("9#8", 16), ("0#8", 0),
    ("1!=2", 1), ("1==2", 0), ("6^3", 5), ("6|1", 7), ("-7%2", -3 & MASK), ("7%-2", -3 & MASK), ("-7%-2", 3),
])
def test_4_3_binary(text: str, result: int) -> None:
    assert value(text) == result


@pytest.mark.parametrize(("text", "result"), [
    ("-1", MASK), ("~0", MASK), ("#0", 1), ("#5", 0), ("*1000", 0x0706050403020100), ("*/c/1001", 1),
    ("*/2/1001", 0x0201), ("*/i/1000", 0x03020100), ("*/8/1000", 0x0706050403020100), ("*/1/add+1", 9),
    ("-*/1/1001", MASK), ("'ab'", 0x6162), ("(1+2)*3", 9),
])
def test_4_2_unary(text: str, result: int) -> None:
    assert value(text) == result


def test_4_1_operands() -> None:
    assert (value("."), value("+"), value("^"), value("&")) == (0x100, 0x108, 0xF8, 0x42)
    assert (value("<thread"), value("<1"), value("<minus")) == (0x77, 1, MASK)
    assert (value("init_task+8"), value("ext4`iget")) == (0x1018, 0x1020)


def test_2_4_hex_words_are_symbols_first() -> None:
    assert (value("add"), value("0xadd"), value("0add"), value("dead")) == (0x1008, 0xADD, 0xADD, 0xDEAD)


def test_5_3_radix() -> None:
    assert (value("10", Env(radix=10)), value("0x10", Env(radix=10)), value("10", Env(radix=8))) == (10, 16, 8)


def test_4_2_spaces_and_pointer_size() -> None:
    env = Env()
    env.pointer_size = 4
    assert value("%1000", env) == 0x03020100
    env.byteorder = "big"
    assert value("*/s/1000", env) == 1
    assert env.reads == [(0x1000, 4, "object"), (0x1000, 2, "virtual")]


@pytest.mark.parametrize(("text", "start", "end", "message"), [
    ("1+2%0", 2, 5, "attempted to divide by zero"), ("1%%0", 0, 4, "attempted to divide by zero"),
    ("1#0", 0, 3, "attempted to divide by zero"), ("8000000000000000%-1", 0, 19, "divide overflow"),
    ("1+nosuchsym", 2, 11, "failed to dereference symbol: unknown symbol name"),
    ("nosuch`iget", 0, 11, "failed to dereference symbol: unknown object file name"),
    ("<x+1", 0, 2, "variable 'x' is not defined"),
    ("*2000", 0, 5, "failed to read from address 2000: no mapping for address"),
    ("10000000000000000", 0, 17, "specified value exceeds maximum immediate value"),
])
def test_15_errors(text: str, start: int, end: int, message: str) -> None:
    with pytest.raises(EvaluateError) as caught:
        value(text)
    assert (str(caught.value), caught.value.start, caught.value.end) == (message, start, end)


def test_15_bad_digit() -> None:
    with pytest.raises(EvaluateError, match="digit '9' is invalid in current base"):
        value("19", Env(radix=8))


def test_15_did_you_mean() -> None:
    with pytest.raises(EvaluateError, match='unknown symbol name; did you mean "init_task"'):
        evaluate(parse_only_expression("init_tsk"), Env(), lambda name: ["init_task"])


def test_15_dot_arithmetic() -> None:
    with pytest.raises(EvaluateError, match=r"'\+' would cause '\.' to overflow"):
        value("+", Env(dot=2**63 - 1))
    with pytest.raises(EvaluateError, match=r"'\^' would cause '\.' to underflow"):
        value("^", Env(dot=7))
    assert value("+", Env(dot=0x10, increment=-8)) == 8


def test_long_sums_cost_no_stack() -> None:
    assert value("1" + "+1" * 20000) == 20001


class Everything(Env):
    """Has every symbol and variable, and memory everywhere."""

    def symbol(self, name: str, object: str | None) -> int | None:
        return len(name) << 60 | 5

    def variable(self, name: str) -> int:
        return len(name)

    def read(self, address: int, size: int, space: str) -> bytes:
        return ((address * 0x9E3779B97F4A7C15 + len(space)) & MASK).to_bytes(8, "big")[:size]


def _signed(number: int) -> int:
    return (number & MASK ^ 1 << 63) - (1 << 63)


def reference(node: ast.Expression, env: Env) -> int:
    """An evaluator of another make: Python's own integers, reduced only at the end of each step."""
    def go(node: ast.Expression) -> int:
        return reference(node, env)

    match node:
        case ast.Binary("%%", left, right):
            return go(left) % go(right)
        case ast.Binary("%", left, right):
            return _truncated(_signed(go(left)), _signed(go(right))) & MASK
        case ast.Binary("#", left, right):
            by = _signed(go(right))
            return _truncated(_signed(go(left) + by - 1), by) * by & MASK
        case ast.Binary("<<" | ">>" as op, left, right):
            bits, shift = go(left), go(right)
            return 0 if shift > 63 else (bits << shift if op == "<<" else bits >> shift) & MASK
        case ast.Binary(op, left, right):
            return int(eval(f"({go(left)}) {op} ({go(right)})")) & MASK
        case ast.Unary("#", operand):
            return int(not go(operand))
        case ast.Unary(op, operand):
            return int(eval(f"{op}({go(operand)})")) & MASK
        case ast.Group(inner):
            return go(inner)
        case ast.Deref(space, width, operand):
            size = {None: 8, "c": 1, "s": 2, "i": 4, "l": 8}.get(width) or int(width or 0)
            data = env.read(go(operand), size, {"*": "virtual", "%": "object"}[space])
            return sum(byte << 8 * index for index, byte in enumerate(data))
    return evaluate(node, env)  # an operand


def _truncated(dividend: int, divisor: int) -> int:
    if (dividend, divisor) == (-(2**63), -1):
        raise ZeroDivisionError
    quotient, remainder = divmod(dividend, divisor)
    return quotient + (remainder != 0 and quotient < 0)


@given(trees.EXPRESSIONS)
def test_4_expressions_against_another_evaluator(node: ast.Expression) -> None:
    env = Everything()
    try:
        expected = reference(node, env)
    except ZeroDivisionError:
        with pytest.raises(EvaluateError, match="divide"):
            evaluate(node, env)
    else:
        assert evaluate(node, env) == expected


@given(st.integers(0, MASK), st.integers(0, MASK), st.sampled_from(["%", "%%", "#", "<<", ">>", "-", "*", "^"]))
def test_4_3_operators_on_large_numbers(left: int, right: int, op: str) -> None:
    node = ast.Binary(op, ast.Number(f"0x{left:x}"), ast.Number(f"0x{right:x}"))
    try:
        expected = reference(node, Env())
    except ZeroDivisionError:
        with pytest.raises(EvaluateError):
            evaluate(node, Env())
    else:
        assert evaluate(node, Env()) == expected
