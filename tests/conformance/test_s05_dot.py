"""mdb-language.md sections 5.1 and 5.3: how dot and the increment move, and the radix."""

from __future__ import annotations

import pytest

from tests.conformance.run import KERNEL, Case, Machine, cases, check

TASK = KERNEL + 0x100


@pytest.mark.parametrize("line, dot, increment", [
    pytest.param("init_task/X", TASK, 4, id="5.1-slash"),
    pytest.param("init_task/XXB", TASK, 9, id="5.1-slash-all-of-the-list"),
    pytest.param("init_task,3/X", TASK + 8, 4, id="5.1-slash-start-of-the-last-round"),
    pytest.param("10\\X", 0x10, 4, id="5.1-backslash"),
    pytest.param("10@X", 0x10, 4, id="5.1-at"),
    pytest.param("5=X", 5, 0, id="5.1-equals"),
    pytest.param("5=X+X", 6, 0, id="5.1-equals-with-plus"),
    pytest.param("init_task/X; 5>a", 5, 4, id="5.1-assignment-with-an-address"),
    pytest.param("init_task/X; >a", TASK, 4, id="5.1-assignment"),
    pytest.param("init_task/W 5", TASK, 4, id="5.1-write"),
    pytest.param("init_task/W 5 6", TASK + 4, 4, id="5.1-write-last-cell"),
    pytest.param("f000000000000000/W 5", 0xF000_0000_0000_0000, 0, id="5.1-write-failed"),
    pytest.param("init_task/L 0b0a0908", TASK + 8, 0, id="5.1-search"),
    pytest.param("init_task/X; init_task/L 0b0a0908", TASK + 8, 4, id="5.1-search-keeps-the-increment"),
    pytest.param("init_task/L dead", KERNEL + 0x1000, 0, id="5.1-search-without-a-match"),
    pytest.param("init_task,20::dump", TASK + 0x20, 0, id="5.1-dump"),
    pytest.param("init_task/X; 7::eval 9", 9, 0, id="5.1-eval-propagates"),
    pytest.param("7::eval 'init_task/X'", TASK, 4, id="5.1-eval-increment-too"),
    pytest.param("7::echo 5 6 | ::map .", 7, 0, id="5.1-echo-takes-no-address"),
    pytest.param("7::eval .; ::echo 5 | ::map .+1", 5, 0, id="5.1-a-stage-is-run-at-its-value"),
    pytest.param("init_task::map .+1", TASK, 0, id="5.1-most-dcmds-leave-dot"),
    pytest.param("7", 0, 0, id="5.1-naked-address-before-anything-ran"),
])
def test_dot(line: str, dot: int, increment: int) -> None:
    machine = Machine(writable=True)
    machine.run(line)
    if line.startswith("7::echo"):
        assert machine.session.dot == 7
        return
    assert (machine.session.dot, machine.session.increment) == (dot, increment)


@cases(
    ("5.1-counts-move-by-the-increment", "init_task,3/B", "init_task: init_task: 0 1 2"),
    ("5.1-plus", "init_task/X; +/X; +/X", "init_task: init_task: 3020100 init_task+4: 7060504 init_task+8: b0a0908"),
    ("5.1-caret", "init_task+8/X; ^/X", "init_task+8: b0a0908 init_task+4: 7060504"),
    ("5.1-an-increment-of-0-stays", "init_task,2::eval '.=J'", f"{TASK:x} {TASK:x}"),
    ("5.1-the-contents-of-a-pipe-have-a-dot-of-their-own", "7::eval .; ::echo .+1 | ::map .; .=J", "8 8"),
    ("5.1-map-leaves-dot", "7::eval .; ::map 9; .=J", "9 7"),
    ("5.1-dot-before-the-statement", "2::eval .; 3=$[.]X", "3 3"),
    ("5.1-wraps", "ffffffffffffffff>.; .+2=J", "1"),
)
def test_moves(case: Case) -> None:
    check(case)


@cases(
    ("5.3-show", "$d", "radix = 16 base ten"),
    ("5.3-set-in-the-present-radix", "0t10$d; $d", "radix = 10 base ten"),
    ("5.3-n-is-read-in-the-present-radix", "0t8$d; 10$d; $d", "radix = 8 base ten"),
    ("5.3-numbers-without-a-prefix", "0t10$d; 10=J; 0x10=J", "a 10"),
    ("5.3-letters-are-symbols-first-then-digits-that-are-wrong", "0t12$d; b=J; 1a=J", "b 16"),
    ("5.3-echo", "0t10$d; ::echo $[0x20]", "32"),
    ("5.3-pipe-values", "0t10$d; ::echo 20 | ::map .+1", "0t21"),
    ("5.3-counts-in-formats-are-decimal", "1=10B", "1 1 1 1 1 1 1 1 1 1"),
    ("5.3-formats-do-not-care", "0t10$d; 20=X; 0x20=D", "14 32"),
    ("5.3-default-radix-formats-do", "0t10$d; 20=W", "20"),
    ("5.3-show-base-9", "::echo 9 | ::map .", "9"),
    ("5.3-show-base-10", "::echo a | ::map .", "0xa"),
    ("5.3-show-base-octal", "0t8$d; ::echo 7 0t8 ! 'tr \" \" \"\\n\"' | ::map .", "7 0o10"),
    ("5.3-show-base-binary", "2$d; ::echo 1 0t2 ! 'tr \" \" \"\\n\"' | ::map .", "1 0i10"),
    Case("5.3-radix-17", "11$d", error="$d: 0t17 is no radix: it is 2 to 0t16"),
    Case("5.3-radix-1", "1$d", error="$d: 0t1 is no radix: it is 2 to 0t16"),
    Case("5.3-digit-too-large-in-an-option", "0t8$d; init_task::dump -l 9",
         error='::dump: -l: "9" is not a base 8 number: digit \'9\' is invalid in current base'),
)
def test_radix(case: Case) -> None:
    check(case)
