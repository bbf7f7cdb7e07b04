"""mdb-language.md section 4: operands, unary operators, binary operators and their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance.run import KERNEL, Case, Machine, cases, check

TASK = KERNEL + 0x100


@cases(
    ("4.1-number", "10=J", "10"),
    ("4.1-character", "'a'=J", "61"),
    ("4.1-symbol", "init_task=J", f"{TASK:x}"),
    ("4.1-scoped-symbol", "mod`helper=J", f"{KERNEL + 0x300:x}"),
    ("4.1-kernel-scope", "vmlinux`init_task=J", f"{TASK:x}"),
    ("4.1-variable", "5>x; <x=J", "5"),
    ("4.1-dot", "7=X; .=J", "7 7"),
    ("4.1-ampersand-is-the-address-of-the-last-dcmd", "1234::eval 0; &=J", "1234"),
    ("4.1-plus-is-dot-and-increment", "init_task/X; +=J", f"init_task: init_task: 3020100 {TASK + 4:x}"),
    ("4.1-caret-is-dot-less-increment", "init_task/J; ^=J", f"init_task: init_task: 706050403020100 {TASK - 8:x}"),
    ("4.1-plus-shows-the-next", "init_task/X; +/X", "init_task: init_task: 3020100 init_task+4: 7060504"),
    ("4.1-caret-shows-the-one-before", "init_task+8/X; ^/X", "init_task+8: b0a0908 init_task+4: 7060504"),
    ("4.1-group", "(2+3)*4=J", "14"),
    ("4.1-groups-in-groups", "((((1))))=J", "1"),
    ("4.1-ampersand-as-an-operand-and-as-an-operator", "6::eval 0; &&3=J", "2"),
    ("4.1-plus-as-an-operand-and-as-an-operator", "5::eval .; ++3=J", "8"),
    Case("4.1-unknown-symbol", "nosuchthing=J", error="failed to dereference symbol: unknown symbol name"),
    Case("4.1-unknown-symbol-is-guessed", "jifies=J",
         error='failed to dereference symbol: unknown symbol name; did you mean "jiffies"?'),
    Case("4.1-unknown-variable", "<nosuch=J", error="variable 'nosuch' is not defined"),
)
def test_operands(case: Case) -> None:
    check(case)


def test_4_1_plus_may_not_cross_the_sign_bit() -> None:
    machine = Machine()
    machine.session.dot, machine.session.increment = 0x7FFF_FFFF_FFFF_FFFC, 4
    assert machine.run("+=J").errors == ["'+' would cause '.' to overflow"]
    machine.session.increment = 2
    assert machine.run("+=J").words == "7ffffffffffffffe"


def test_4_1_caret_may_not_wrap() -> None:
    machine = Machine()
    machine.session.dot, machine.session.increment = 2, 4
    assert machine.run("^=J").errors == ["'^' would cause '.' to underflow"]


@cases(
    ("4.2-negate", "-1=J", "ffffffffffffffff"),
    ("4.2-complement", "~1=J", "fffffffffffffffe"),
    ("4.2-not-of-0", "#0=J", "1"),
    ("4.2-not-of-5", "#5=J", "0"),
    ("4.2-right-associative", "-~0=J", "1"),
    ("4.2-twice", "##5=J", "1"),
    ("4.2-pointer", "*init_task=J", "706050403020100"),
    ("4.2-c", "*/c/ init_task=J", "0"),
    ("4.2-1", "*/1/init_task+1=J", "1"),
    ("4.2-s", "*/s/init_task=J", "100"),
    ("4.2-2", "*/2/init_task=J", "100"),
    ("4.2-i", "*/i/init_task=J", "3020100"),
    ("4.2-4", "*/4/init_task=J", "3020100"),
    ("4.2-l", "*/l/init_task=J", "706050403020100"),
    ("4.2-8", "*/8/init_task=J", "706050403020100"),
    ("4.2-values-are-unsigned", "*/c/(init_task+ff)=J", "ff"),
    ("4.2-tighter-than-plus", "*init_task+8=J", "706050403020108"),
    ("4.2-width-tighter-than-plus", "*/4/init_task+8=J", "3020108"),
    ("4.2-minus-of-a-read", "-*/c/(init_task+1)=e", "-1"),
    Case("4.2-other-widths", "*/q/init_task=J", error="invalid cast -- */q/"),
    Case("4.2-other-widths-of-percent", "%/q/init_task=J", error="invalid cast -- %/q/"),
    Case("4.2-no-type-names", "%/uint8_t/init_task=J", error='syntax error near "/": expected a number, symbol, '
         "variable or ("),
    Case("4.2-a-failed-read-drops-the-statement", "*1000=J",
         error="failed to read from address 1000: 0x1000 is a user address and there is no process context"),
    Case("4.2-a-failed-kernel-read", "*f000000000000000=J",
         error="failed to read from address f000000000000000: no mapping for address"),
)
def test_unary(case: Case) -> None:
    check(case)


@cases(
    ("4.3-product-before-sum", "2+3*4=X", "e"),
    ("4.3-adb-would-say-9", "4-1*3=X", "1"),
    ("4.3-left-associative", "2+3*4%5=X", "4"),
    ("4.3-equals-before-and", "5&3==3=X", "1"),
    ("4.3-round-up", "7#4=X", "8"),
    ("4.3-round-up-what-is-round", "8#4=X", "8"),
    ("4.3-percent-is-signed-division", "-8%3=e", "-2"),
    ("4.3-percent-truncates", "8%-3=e", "-2"),
    ("4.3-remainder", "0t17%%5=X", "2"),
    ("4.3-remainder-is-unsigned", "-1%%10=X", "f"),
    ("4.3-remainder-binds-tighter-than-product", "2*7%%4=X", "6"),
    ("4.3-sums-wrap", "ffffffffffffffff+2=J", "1"),
    ("4.3-differences-wrap", "0-1=J", "ffffffffffffffff"),
    ("4.3-products-wrap", "8000000000000000*2=J", "0"),
    ("4.3-shift-left", "1<<4=X", "10"),
    ("4.3-shifts-are-logical", "-1>>3f=J", "1"),
    ("4.3-shift-after-sum", "1<<2+2=X", "10"),
    ("4.3-shift-by-64", "1<<40=J", "0"),
    ("4.3-shift-right-by-more", "-1>>ffff=J", "0"),
    ("4.3-equal", "5==5=X", "1"),
    ("4.3-not-equal-needs-no-quotes", "5!=5=X", "0"),
    ("4.3-and", "c&a=X", "8"),
    ("4.3-xor", "c^a=X", "6"),
    ("4.3-or", "c|a=X", "e"),
    ("4.3-or-is-last", "1|2^3&1==1=X", "3"),
    ("4.3-xor-before-or", "1|1^1=X", "1"),
    ("4.3-and-before-xor", "1^1&0=X", "1"),
    ("4.3-left-of-one-level", "0t100-0t30-0t20=D", "50"),
    ("4.3-left-of-shifts", "1<<2<<3=X", "20"),
    ("4.3-blanks", "1 + 2 =X", "3"),
    Case("4.3-division-by-zero", "1%0=X", error="attempted to divide by zero"),
    Case("4.3-remainder-by-zero", "1%%0=X", error="attempted to divide by zero"),
    Case("4.3-rounding-to-zero", "1#0=X", error="attempted to divide by zero"),
    Case("4.3-divide-overflow", "8000000000000000%-1=X", error="divide overflow"),
    Case("4.3-a-lone-exclamation-mark-is-the-shell", "5 ! 6=X",
         error='syntax error near "!": expected a command after the address'),
    Case("4.3-no-less-than", "5<6=X", error='syntax error near "<6": expected an operator or a command'),
    ("4.3-no-logical-and", "3::eval .; 5&&=X", "1"),  # the second one is an operand
)
def test_binary(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("line", ["1|2=X | ::map .", "1=X|2"])
def test_4_3_after_a_verb_the_bar_is_the_pipe(line: str) -> None:
    assert Machine().run(line).good is (line == "1|2=X | ::map .")


#: the operators of 4.3 and how they bind, as the reference has it, and what they do
BINDS = {"%%": 8, "*": 7, "%": 7, "#": 7, "+": 6, "-": 6, "<<": 5, ">>": 5, "==": 4, "!=": 4, "&": 3, "^": 2, "|": 1}
ALL = (1 << 64) - 1


def signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def quotient(left: int, right: int) -> int:
    """Divide as C does: towards zero."""
    whole = abs(signed(left)) // abs(signed(right))
    return (-whole if (signed(left) < 0) != (signed(right) < 0) else whole) & ALL


DOES: dict[str, Callable[[int, int], int]] = {
    "%%": lambda left, right: left % right, "*": lambda left, right: left * right & ALL, "%": quotient,
    "#": lambda left, right: quotient((left + right - 1) & ALL, right) * right & ALL,
    "+": lambda left, right: left + right & ALL, "-": lambda left, right: left - right & ALL,
    "<<": lambda left, right: left << right & ALL if right < 64 else 0,
    ">>": lambda left, right: left >> right if right < 64 else 0,
    "==": lambda left, right: int(left == right), "!=": lambda left, right: int(left != right),
    "&": lambda left, right: left & right, "^": lambda left, right: left ^ right, "|": lambda left, right: left | right,
}
ALONE: dict[str, Callable[[int], int]] = {
    "-": lambda value: -value & ALL, "~": lambda value: ~value & ALL, "#": lambda value: int(not value)}

Piece = tuple[str, "int | Sum"]


class Sum(NamedTuple):
    """Operands with their unary operators, and the operators between them: a flat text, nothing in parentheses."""

    operands: list[Piece]
    operators: list[str]

    @property
    def text(self) -> str:
        words = []
        for (unary, inner), operator in zip(self.operands, ["", *self.operators], strict=True):
            words += [operator, *unary, f"({inner.text})" if isinstance(inner, Sum) else f"0t{inner}"]
        return " ".join(word for word in words if word)

    @property
    def value(self) -> int:
        """Of all operators that bind tightest the leftmost is done first, until one number is left."""
        values = []
        for unary, inner in self.operands:
            value = inner.value if isinstance(inner, Sum) else inner
            for operator in reversed(unary):
                value = ALONE[operator](value)
            values.append(value)
        left = list(self.operators)
        while left:
            at = max(range(len(left)), key=lambda number: (BINDS[left[number]], -number))
            values[at : at + 2] = [DOES[left.pop(at)](values[at], values[at + 1])]
        return values[0]


def sums(inner: st.SearchStrategy[Sum]) -> st.SearchStrategy[Sum]:
    number = st.integers(0, 70) | st.integers(0, ALL)
    operand = st.tuples(st.text("-~#", max_size=2), number | inner)
    return st.lists(operand, min_size=1, max_size=6).flatmap(lambda operands: st.builds(
        Sum, st.just(operands), st.lists(st.sampled_from(list(BINDS)), min_size=len(operands) - 1,
                                         max_size=len(operands) - 1)))


@given(st.recursive(sums(st.nothing()), sums, max_leaves=4))
@settings(max_examples=400, deadline=None)
def test_4_3_text_against_another_parser(expression: Sum) -> None:
    """Text is parsed and computed by another rule altogether: the tightest operator first, by a table of numbers."""
    said = Machine().run(f"{expression.text}=J")
    try:
        expected = expression.value
    except ZeroDivisionError:
        assert said.errors == ["attempted to divide by zero"]
        return
    assert said.errors in ([], ["divide overflow"]), expression.text
    if not said.errors:
        assert int(said.words, 16) == expected, expression.text
