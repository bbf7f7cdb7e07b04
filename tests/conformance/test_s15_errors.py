"""mdb-language.md section 15: the texts of errors, and that they show the place."""

from __future__ import annotations

import pytest

from tests.conformance.run import Case, Machine, cases, check

NO_MAPPING = "no mapping for address"


@cases(
    Case("15-unknown-dcmd", "::foo", error="invalid command '::foo': unknown dcmd name"),
    Case("15-unknown-module", "::foo`ps", error="invalid command '::foo`ps': specified module is not loaded"),
    Case("15-double-quote", '::echo "a', error='syntax error: " unmatched'),
    Case("15-single-quote", "::echo 'a", error="syntax error: ' unmatched"),
    Case("15-bracket", "::echo $[1", error="syntax error: $[ unmatched"),
    Case("15-shell-quote", "::echo ! 'a", error="syntax error: quote unmatched"),
    Case("15-quote-in-a-format-list", '1="a', error='syntax error: " unmatched'),
    Case("15-unknown-symbol", "nosuch=X", error="failed to dereference symbol: unknown symbol name"),
    Case("15-undefined-variable", "<x=X", error="variable 'x' is not defined"),
    Case("15-bad-digit", "2$d; 15=X", error="digit '5' is invalid in current base"),
    Case("15-overflow", "1ffffffffffffffff=X", error="specified value exceeds maximum immediate value"),
    Case("15-division", "1%0=X", error="attempted to divide by zero"),
    Case("15-divide-overflow", "8000000000000000%-1=X", error="divide overflow"),
    Case("15-character-constant", "'123456789'=X", error="character constant may not exceed 8 bytes"),
    Case("15-width", "*/q/0=X", error="invalid cast -- */q/"),
    Case("15-star-read", "*f000000000001000=X",
         error=f"failed to read from address f000000000001000: {NO_MAPPING}"),
    Case("15-format", "1=A", error="=: invalid format character -- 'A'"),
    Case("15-read-only-variable", "5>thread", error=">: cannot modify read-only variable 'thread'"),
    Case("15-modifier", "5>/x/a", error=">: x is not a valid // modifier"),
    Case("15-walk", "::walk nosuchwalk", error='::walk: failed to perform walk: unknown walk name'),
    Case("15-option", "::dump -z", error="::dump: illegal option -- z"),
    Case("15-option-argument", "::dump -l", error="::dump: option requires an argument -- l"),
    Case("15-equals-needs-formats", "1=", error="=: expected one or more format characters following '='"),
)
def test_texts(case: Case) -> None:
    check(case)


@cases(
    ("15-read", "f000000000001000/X", f"/: failed to read data from target: {NO_MAPPING}"),
    ("15-write", "init_task/W 5",
     "/W: failed to write 5 at address 0xffff888000000100: target is not open for writing"),
    ("15-walkers-are-guessed", "::walk prc", '::walk: failed to perform walk: unknown walk name; did you mean'),
    ("15-symbols-are-guessed", "jifies=X",
     'failed to dereference symbol: unknown symbol name; did you mean "jiffies"?'),
    ("15-dcmds-are-guessed", "::whatsi", "invalid command '::whatsi': unknown dcmd name; did you mean ::whatis"),
    ("15-variables-are-guessed", "5>count; <cuont=X", "variable 'cuont' is not defined; did you mean <count?"),
    ("15-a-dcmd-without-its-colons", "walk=X",
     'failed to dereference symbol: unknown symbol name; did you mean "::walk"'),
)
def test_beginnings(case: Case) -> None:
    errors = Machine().run(case.line).errors
    assert errors
    assert errors[0].startswith(case.out)


@pytest.mark.parametrize("line, mark", [
    ("1+nosuch=X", "  ^^^^^^"),
    ("1=X;2+<nosuch=X", "      ^^^^^^^"),
    ("::echo $[1+nosuch]", "           ^^^^^^"),
    ("5,nosuch=X", "  ^^^^^^"),
    ("::bad", "^^^^^"),
    ("\t::bad", "\t^^^^^"),
    ("1%0=X", "^^^"),
    ("::echo 'abc", "       ^^^^"),
    ("1 +", None),
])
def test_15_a_caret_under_the_place(line: str, mark: str | None) -> None:
    said = Machine().run(line).err.splitlines()
    if mark is None:
        assert said == ["kshell: syntax error: expected a number, symbol, variable or ("]
    else:
        assert said[:2] == ["  " + line, "  " + mark]


def test_15_the_line_of_a_string_that_is_obeyed_is_shown() -> None:
    assert Machine().run("::eval '1+nosuch=J'").err.splitlines()[:2] == ["  1+nosuch=J", "    ^^^^^^"]


def test_15_a_long_line_is_shown_around_the_place() -> None:
    said = Machine().run("1" + "+1" * 400 + "+nosuch" + "+1" * 400 + "=X").err.splitlines()
    assert len(said[0]) < 140
    at = said[1].index("^")
    assert said[0][at:at + 6] == "nosuch"


def test_15_control_characters_in_a_line_are_escaped() -> None:
    said = Machine().run("\x1b[2J+1=X").err
    assert "\x1b" not in said
