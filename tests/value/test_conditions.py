"""Conditions over members: against Python's own idea of the same expression, and what cannot be read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kshell.errors import Fault, KshellError, ParseError, SymbolNotFoundError
from kshell.lang.conditions import parse_condition
from kshell.types.model import Symbol
from kshell.value import Value
from kshell.value.conditions import Condition
from tests.value.test_vector import build
from tests.value.universe import INIT_TASK, TASK, FakeTarget

UNIVERSE, TASKS = build(40)


class Target(FakeTarget):
    def symbol(self, name: str) -> Symbol:
        if name != "init_task":
            raise SymbolNotFoundError(name)
        return Symbol(name, INIT_TASK, 0x200, "D")


TARGET = Target(UNIVERSE.kernel)  # type: ignore[arg-type]
VALUES = [Value(TARGET, TASK, address) for address in TASKS]


def rows(text: str, addresses: list[int] | None = None, type: Any = TASK, radix: int = 16) -> list[bool | Fault]:
    condition = Condition(TARGET, parse_condition(text, radix), text, type, radix)
    return list(condition.rows(TASKS if addresses is None else addresses, TARGET.kernel))


def expected(function: Any) -> list[bool]:
    return [bool(function(value)) for value in VALUES]


@pytest.mark.parametrize(("text", "meaning"), [
    ("pid == 5", lambda t: t.pid.integer() == 5),
    ("pid > 0t10", lambda t: t.pid.integer() > 10),
    ("pid > 10", lambda t: t.pid.integer() > 16),
    ("pid < 0", lambda t: t.pid.integer() < 0),
    ("pid == -5", lambda t: t.pid.integer() == -5),
    ("-5 == pid", lambda t: t.pid.integer() == -5),
    ("pid & 1 && pid > 5", lambda t: t.pid.integer() & 1 and t.pid.integer() > 5),
    ("pid==1||pid==2", lambda t: t.pid.integer() in (1, 2)),
    ("!(pid > 5)", lambda t: not t.pid.integer() > 5),
    ("pid + 1 == 3", lambda t: t.pid.integer() + 1 == 3),
    ("1 << 4 == pid", lambda t: t.pid.integer() == 16),
    ('comm == "task7"', lambda t: t.comm.string() == "task7"),
    ("comm == task7", lambda t: t.comm.string() == "task7"),
    ('comm =~ "^task1.$"', lambda t: t.comm.string()[:5] == "task1" and len(t.comm.string()) == 6),
    ('comm !~ "1"', lambda t: "1" not in t.comm.string()),
    ('comm < "task2"', lambda t: t.comm.string() < "task2"),
    ("parent->pid == 3", lambda t: t["parent->pid"].integer() == 3),
    ("parent == init_task", lambda t: t.parent.integer() == TARGET.symbol("init_task").address),
    ("mm", lambda t: t.mm.integer() != 0),
], ids=lambda value: value if isinstance(value, str) else "")
def test_conditions_hold_where_c_says_so(text: str, meaning: Any) -> None:
    assert rows(text) == expected(meaning)
    assert 0 < sum(expected(meaning)) < len(VALUES)


NUMBERS = st.integers(0, 40)
OPERATORS = st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "&", "|", "^", "&&", "||"])
LEVELS = [["||"], ["&&"], ["|"], ["^"], ["&"], ["==", "!="], ["<", "<=", ">", ">="], ["+", "-"], ["*"]]


def tight(operator: str) -> int:
    return next(level for level, operators in enumerate(LEVELS) if operator in operators)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(OPERATORS, st.one_of(NUMBERS, st.just("pid"))), min_size=1, max_size=6))
def test_precedence_is_that_of_c(parts: list[tuple[str, int | str]]) -> None:
    shown = [(operator, operand if operand == "pid" else f"0t{operand}") for operator, operand in parts]
    text = "pid " + " ".join(f"{operator} {operand}" for operator, operand in shown)
    for value, got in zip(VALUES[:12], rows(text, TASKS[:12]), strict=True):
        pid = value.pid.integer()
        assert got == bool(fold([pid, *(pid if operand == "pid" else operand for _, operand in parts)],
                                [operator for operator, _ in parts])), text


def fold(operands: list[Any], operators: list[str]) -> int:
    """Evaluate by reducing the tightest operator first, from the left: another road than the parser's."""
    operands, operators = list(operands), list(operators)
    for level in reversed(range(len(LEVELS))):
        at = 0
        while at < len(operators):
            if tight(operators[at]) != level:
                at += 1
                continue
            left, right = operands[at], operands[at + 1]
            operands[at : at + 2] = [int({
                "==": left == right, "!=": left != right, "<": left < right, "<=": left <= right, ">": left > right,
                ">=": left >= right, "+": left + right, "-": left - right, "*": left * right, "&": left & right,
                "|": left | right, "^": left ^ right, "&&": bool(left and right), "||": bool(left or right),
            }[operators[at]])]
            del operators[at]
    return int(operands[0])


def test_what_cannot_be_read_is_an_error_of_its_row() -> None:
    found = rows("pid == 5", [TASKS[10], 0x1000, TASKS[11]])
    assert found[0] is True and isinstance(found[1], Fault) and found[2] is False


def test_the_value_itself_needs_no_type() -> None:
    assert rows(". & 1", [1, 2, 3], None) == [True, False, True]


@pytest.mark.parametrize(("text", "told"), [
    ("", "at the end"), ("pid >", "at the end"), ("(pid", "expected )"), ("pid pid", "expected an operator"),
    ("pid == \"x", "unmatched"), ("pid / 2", "near '/'"), ("((((" * 40 + "1", "nested"), ("x" * 70_000, "70000"),
    ("pid =~ 5", "regular expression"), ('comm =~ "("', "not a regular expression"), ('pid == "a"', "no string"),
    ("comm", "compare it"), ("nosuch == 1", "nosuch"),
    ('"a"', "compared"), ("0t1z == 1", "near"), ("se == 1", "no .*se"),
])
def test_what_is_no_condition_is_told(text: str, told: str) -> None:
    with pytest.raises(KshellError, match=told.replace("(", r"\(").replace(")", r"\)")):
        rows(text)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="pid commparent->[]().0123456789abcdef\"\\=!<>&|^~+-* ", max_size=40))
def test_no_text_crashes_the_parser(text: str) -> None:
    try:
        parse_condition(text)
    except ParseError as error:
        assert 0 <= error.start <= len(text) + 1
