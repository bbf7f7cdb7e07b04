"""mdb-language.md sections 18.1 and 18.3: where source and manual differ, and the subtle rules, by their numbers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conformance.run import KERNEL, Case, Machine, cases, check
from tests.conformance.test_s07_running import THREE, machine


@cases(
    ("18.1-product-quotient-and-round-up-are-one-level", "7#4*2=J; 2*7#4=J; 8%2*3=J", "10 10 c"),
    ("18.1-remainder-is-the-highest-level", "2*7%%4=J", "6"),
    ("18.1-map-and-echo-have-no-prefix", "::echo $[init_task]", f"{KERNEL + 0x100:x}"),
    ("18.1-an-address-before-any-command-does-nothing", "5; .=J", "0"),
    ("18.3.1-precedence", "2+3*4=J; -7%2=e; 7%%2*2=J; *init_task+1=J", "e -3 2 706050403020101"),
    ("18.3.2-hex-looking-words", "fade=J; 0fade=J", "fade fade"),
    ("18.3.3-radix-of-options-and-counts", "1=10B", "1 1 1 1 1 1 1 1 1 1"),
    ("18.3.4-base-threshold", "::echo 9 | ::map .; ::echo a | ::map .", "9 0xa"),
    ("18.3.7-a-naked-address-runs-again", "1=J; 2", "1 2"),
    Case("18.3.7-and-only-sets-dot-in-a-string", "1=J; 2", "1", how="string"),
    ("18.3.7-and-is-data-in-a-pipe", "::echo 2 | ::map .", "2"),
    ("18.3.8-pipe-contents-have-their-own-dot", "7::eval .; ::echo 5 | ::map .; ::echo 6 ! cat; .=J", "5 6 5"),
    ("18.3.8-eval-changes-dot", "7::eval 9; .=J", "9"),
    ("18.3.9-brackets-see-the-dot-of-before", "2::eval .; 5=$[.]J", "5 5"),
    ("18.3.10-equals-has-no-write-letters", "5=X; 5=w; 5=W", "5 5 5"),
    ("18.3.11-no-newline-between-items", "1=XX ! wc -l", "1"),
    ("18.3.12-counts-belong-to-the-next-character", "1=2XB", "1 1 1"),
    ("18.3.12-a-string-resets-the-count", '1=3"x"X', "x1"),
    Case("18.3.13-a-script-goes-on", "::bad\n1=J", "1", how="script",
         error="invalid command '::bad': unknown dcmd name"),
    Case("18.3.13-a-string-stops", "::bad; 1=J", how="string", error="invalid command '::bad': unknown dcmd name"),
    Case("18.3.14-one-digit-variables", "<10=J",
         error='syntax error near "0": expected an operator or a command'),
    ("18.3.14-shift", "10>>4=J", "1"),
    ("18.3.14-not-equal", "1!=2=J", "1"),
    ("18.3.14-comment-behind-an-address", "1=J; 2//=X", "1 2"),
    ("18.3.15-quotes", "::echo '\\n'", "\\n"),
    ("18.3.17-echo", "::echo a b ! od -An -c | tr -d ' '", "ab\\n"),
    Case("18.3.18-dot-letter-is-a-symbol", ".x=J", error="failed to dereference symbol: unknown symbol name"),
    ("18.3.18-dot-plus-is-a-sum", "5>x; 5::eval .; .+<x=J", "a"),
)
def test_subtle(case: Case) -> None:
    check(case)


def test_18_1_a_pipeline_goes_on_after_ERR_and_stops_after_ABORT() -> None:
    assert machine().run(THREE + "::ends ERR | ::map .+1").words == "2 3 4"
    assert machine().run(THREE + "::ends ABORT | ::map .+1").words == "2"


def test_18_3_6_rounds_move_by_the_increment_left() -> None:
    made = machine()
    assert made.run("5,3::ends OK").words == "5 6 7"
    assert made.run("5,2=J").words == "5 5"


def test_18_3_11_a_line_of_a_margin_only_vanishes() -> None:
    assert Machine().run("init_task/X n").raw.endswith("3020100         \n")


def test_18_3_16_headers_once_and_none_into_pipes() -> None:
    made = machine()
    assert made.run("5,2::table").words.count("ADDR") == 1
    assert "ADDR" not in made.run("5::table | ::map .").words


@pytest.mark.parametrize("line, status", [("::bad\n1=X", 0), ("1=X", 0)])
def test_18_3_13_standard_input_ends_with_0(line: str, status: int) -> None:
    done = subprocess.run([sys.executable, "-m", "kshell", "-n"], input=line, capture_output=True, text=True,
                          check=False, timeout=60)
    assert done.returncode == status
    assert done.stdout.split() == ["1"]
