"""mdb-language.md section 3: the forms of a statement."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance.run import KERNEL, Case, Machine, cases, check

EXPECTED = "syntax error near"


@cases(
    ("3-pipeline-leaves-dot", "7::eval .; ::echo a; .=J", "a 7"),
    ("3-address-sets-dot", "init_task::eval .; .=J", f"{KERNEL + 0x100:x}"),
    ("3-count-runs-it-again", "5,3::eval '.=J'", "5 5 5"),
    ("3-count-0-sets-dot-only", "7,0::nm; .=J", "7"),
    ("3-count-without-an-address", ",2::echo a", "a a"),
    ("3-count-without-an-address-leaves-dot", "7::eval .; ,2::eval 0; .=J", "0"),
    ("3-count-is-an-expression", "5,1+1=J", "5 5"),
    ("3-naked-address-runs-the-last-list-again", "1=J; 10", "1 10"),
    ("3-naked-address-before-anything-ran", "10; .=J", "0"),
    ("3-naked-address-and-count", "init_task/B; init_task+10,2", "init_task: init_task: 0 init_task+0x10: 10 11"),
    ("3-naked-count-goes-on-behind", "init_task/B; ,2", "init_task: init_task: 0 init_task+1: 1 2"),
    ("3-a-blank-line-does-nothing", "init_task/B\n\n", "init_task: init_task: 0"),
    ("3-blank-line-with-repeatlast", "::set -o repeatlast\ninit_task/B\n\n\n",
     "init_task: init_task: 0 init_task+1: 1 init_task+2: 2"),
    ("3-blanks-around", "  1   =   J  ", "1"),
    ("3-no-blank-needed", "init_task::eval '.=J'", f"{KERNEL + 0x100:x}"),
    ("3-shell", "! echo hello", "hello"),
    ("3-pipe-to-the-shell", "1=J ! tr 1 2", "2"),
    ("3-naked-address-in-a-pipe-is-data", "::echo 5 | ::map .+1", "6"),
    Case("3-naked-address-in-a-string-sets-dot", "1=J; 10; .=J", "1 10", how="string"),
    Case("3-naked-count-in-a-string-does-nothing", "1=J; ,5", "1", how="string"),
    Case("3-the-shell-takes-no-address", "5 ! echo", error=f'{EXPECTED} "!": expected a command after the address'),
    Case("3-two-addresses", "5 6=X", error=f'{EXPECTED} "6": expected an operator or a command'),
    Case("3-open-parenthesis", "(1=X", error=f'{EXPECTED} "=": expected an operator or )'),
    Case("3-count-is-missing", "5,=X", error=f'{EXPECTED} "=": expected a number, symbol, variable or ('),
    Case("3-no-stage", "::echo a |", error="syntax error: expected a command"),
    Case("3-address-in-a-later-stage", "::echo a | 5::echo",
         error=f'{EXPECTED} "5": expected a command (only the first of a pipeline takes an address or count)'),
    Case("3-shell-without-a-command", "!", error="syntax error: expected a shell command after !"),
    Case("3-negative-count", "5,-1=X", error="a count of 0xffffffffffffffff is too large, or negative"),
    Case("3-count-of-2-to-the-63", "5,8000000000000000=X",
         error="a count of 0x8000000000000000 is too large, or negative"),
)
def test_statements(case: Case) -> None:
    check(case)


def test_7_4_naked_address_keeps_the_evaluated_arguments() -> None:
    """``$[ ]`` is not computed again."""
    machine = Machine()
    assert machine.run("2>x; 7=$[<x]X").words == "7 7"
    machine.session.variables["x"] = 5
    assert machine.run("8").words == "8 8"


def test_3_a_lone_dollar_is_the_status() -> None:
    machine = Machine()
    assert machine.run("$").errors == machine.run("$?").errors


_PIECES = st.sampled_from([
    "1", "0t10", "ff", "init_task", "nosuch", ".", "+", "-", "^", "&", "*", "%", "%%", "#", "~", "(", ")", "<x", "<9",
    ",", ",2", ">x", ">/c/y", "=", "/", "\\", "@", "?", "X", "J", "s", "4", "n", "v", "W", "L", "::echo", "::eval",
    "::map", "::grep", "::head", "::dump", "::nosuch", "$[", "]", "$d", "|", ";", "\n", " ", "'", '"', "//", "\t",
    "'.+1'", '"1=X"', "<<", ">>", "==", "\0", "\x1b", "é", "`",
])


@given(st.lists(_PIECES, max_size=12).map("".join))
@settings(max_examples=300, deadline=None)
def test_3_any_line_is_obeyed_or_refused(line: str) -> None:
    """Also behind the parser: a line prints something, or a named error, in time. No ! is among them: no shell runs."""
    machine = Machine(writable=True)
    start = time.monotonic()
    said = machine.run(line, "script")
    assert time.monotonic() - start < 5
    assert "bug in kshell" not in said.err
    assert "\x1b" not in said.raw + said.err
    assert machine.session.nesting == 0
    assert 0 <= machine.session.dot < 1 << 64
