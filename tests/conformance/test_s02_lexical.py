"""mdb-language.md section 2: what the scanner makes of characters, state by state."""

from __future__ import annotations

from typing import cast

import pytest

from kshell.types.model import Symbol
from tests.conformance.run import Case, Machine, cases, check
from tests.fake_target import FakeTarget

SYNTAX = "syntax error near"


@cases(
    ("2.2-semicolon-ends-a-statement", "1=X;2=X", "1 2"),
    ("2.2-newline-ends-a-statement", "1=X\n2=X", "1 2"),
    ("2.2-semicolon-ends-a-format-list", "1=X ; 2=X", "1 2"),
    ("2.2-semicolon-ends-arguments", "::echo a;::echo b", "a b"),
    ("2.2-semicolon-ends-a-shell-command", "! echo a; ::echo b", "a b"),
    ("2.2-blanks-in-a-format-list", "1=X X\tX", "1 1 1"),
    ("2.2-empty-statements", ";;; ;1=X;;", "1"),
    ("2.2-comment-of-a-line", "// 1=X"),
    ("2.2-comment-behind-a-command", "1=X // 2", "1"),
    ("2.2-comment-in-arguments", "::echo a // b", "a"),
    ("2.2-comment-in-a-format-list", "1=X//X", "1"),
    ("2.2-comment-ends-at-the-newline", "::echo a // b; c\n::echo d", "a d"),
    ("2.2-no-comment-inside-a-word", "::echo foo//bar", "foo//bar"),
    ("2.2-comment-after-an-address", "1=J; 10//X", "1 10"),  # a naked address
    Case("2.2-backslash-does-not-continue", "::echo a \\\n::echo b", "a \\ b"),
    Case("2.2-no-hash-comments", "# comment", error="failed to dereference symbol: unknown symbol name"),
    Case("2.2-no-newline-in-quotes", '::echo "a\nb"', error='syntax error: " unmatched'),
)
def test_separators_and_comments(case: Case) -> None:
    check(case)


@cases(
    ("2.3-0x", "0x1f=J", "1f"), ("2.3-0X", "0X1F=J", "1f"),
    ("2.3-0t", "0t12=J", "c"), ("2.3-0T", "0T12=J", "c"),
    ("2.3-0o", "0o17=J", "f"), ("2.3-0O", "0O17=J", "f"),
    ("2.3-0i", "0i101=J", "5"), ("2.3-0I", "0I101=J", "5"),
    ("2.3-double", "0t1.5=F", "+1.5000000000000000e+00"),
    ("2.3-double-is-its-bits", "0t1.5=J", "3ff8000000000000"),
    ("2.3-default-radix-is-16", "10=J", "10"),
    ("2.3-no-octal-by-a-zero", "010=J", "10"),
    ("2.3-no-0b", "0b1=J", "b1"),
    ("2.3-no-0d", "0d10=J", "d10"),
    ("2.3-underscores", "0x123_4567=J; 0t1_000_000=J; 44_44_=J", "1234567 f4240 4444"),
    ("2.3-characters", "'ab'=J", "6162"),
    ("2.3-eight-characters", "'abcdefgh'=J", "6162636465666768"),
    ("2.3-no-characters", "''=J", "0"),
    ("2.3-escapes-in-characters", r"'\n'=J; '\101'=J; '\\'=J", "a 41 5c"),
    ("2.3-largest", "ffffffffffffffff=J", "ffffffffffffffff"),
    Case("2.3-underscore-is-not-first", "0x_1=J", error=f'{SYNTAX} "x_1": expected an operator or a command'),
    Case("2.3-nine-characters", "'abcdefghi'=J", error="character constant may not exceed 8 bytes"),
    Case("2.3-digit-too-large", "0t8$d; 19=J", error="digit '9' is invalid in current base"),
    Case("2.3-value-too-large", "10000000000000000=J", error="specified value exceeds maximum immediate value"),
    Case("2.3-0i12-is-two-tokens", "0i12=J", error=f'{SYNTAX} "2": expected an operator or a command'),
    Case("2.3-0o89-is-two-tokens", "0o89=J", error=f'{SYNTAX} "o89": expected an operator or a command'),
    Case("2.3-0tp-is-two-tokens", "0tp=J", error=f'{SYNTAX} "tp": expected an operator or a command'),
)
def test_numbers(case: Case) -> None:
    check(case)


UNKNOWN = "failed to dereference symbol: unknown symbol name"


@cases(
    ("2.4-a-digit-first-is-a-number", "0dead=J", "dead"),
    ("2.4-hex-letters-without-such-a-symbol", "dead=J; feed_beef=J", "dead feedbeef"),
    ("2.4-dot-and-operators", "10>.; .+8=J; 10>.; .-8=J", "18 8"),
    ("2.4-dot-and-verbs", "10>.; .=J; .::eval .=J", "10 10"),
    Case("2.4-longer-words-are-symbols", "deadlock=J", error=UNKNOWN),
    Case("2.4-dots-in-symbols", "a.out=J", error=UNKNOWN),
    Case("2.4-underscore-first", "_007=J", error=UNKNOWN),
    Case("2.4-dot-letter", ".x=J", error=UNKNOWN),
    Case("2.4-dot-digit", ".3=J", error=UNKNOWN),
    Case("2.4-dot-dot", "..=J", error=UNKNOWN),
    Case("2.4-no-suffixes", "5+/X", error=f'{SYNTAX} "/": expected a number, symbol, variable or ('),
    ("2.4-sum-of-a-symbol", "init_task+8=J", "ffff888000000108"),
)
def test_names_and_numbers(case: Case) -> None:
    check(case)


def test_2_4_hex_letters_are_a_symbol_first() -> None:
    machine = Machine()
    cast(FakeTarget, machine.session.target).symbols.all["add"] = Symbol("add", 0x1000, 8, "D")
    assert machine.run("add=J; 0xadd=J; 0add=J; ad=J").words == "1000 add add ad"


@cases(
    ("2.5-pieces-are-glued", "::echo a\"b c\"d", "ab cd \n"),
    ("2.5-single-quotes-are-literal", r"::echo 'a\n\101'", "a\\n\\101 \n"),
    ("2.5-double-quotes-have-escapes", r'''::echo "x\ty\"\\\101"''', 'x\ty"\\A \n'),
    ("2.5-newline-in-double-quotes", r'::echo "x\ny"', "x\ny \n"),
    ("2.5-unknown-escapes-keep-the-backslash", r'::echo "\q"', "\\q \n"),
    ("2.5-backslash-outside-quotes", r"::echo a\nb", "a\\nb \n"),
    ("2.5-ordinary-characters", "::echo > < = / ? \\ : ( ) , * & # @ ~ [ ] { }",
     "> < = / ? \\ : ( ) , * & # @ ~ [ ] { } \n"),
    ("2.5-an-empty-word", "::echo '' a", " a \n"),
    ("2.5-immediate-is-an-argument-of-its-own", "::echo a$[1]b", "a 1 b \n"),
    ("2.5-immediate-is-a-number", "::echo $[2+3]", "5 \n"),
    ("2.5-quotes-in-quotes", """::echo "it's" 'say "x"'""", "it's say \"x\" \n"),
    Case("2.5-dollar-needs-quotes", "::echo $x",
         error="syntax error: $ in an argument needs quotes, or [ for a number"),
    Case("2.5-open-single-quote", "::echo 'abc", error="syntax error: ' unmatched"),
    Case("2.5-open-double-quote", '::echo a"bc', error='syntax error: " unmatched'),
    Case("2.5-open-bracket", "::echo $[1", error="syntax error: $[ unmatched"),
)
def test_words(case: Case) -> None:
    """Blanks at the ends of lines do not count (Case), so those of ``::echo`` are cut off here too."""
    check(case._replace(out="".join(line.rstrip() + "\n" for line in case.out.splitlines())))


def test_2_5_option_values_are_in_the_default_radix() -> None:
    machine = Machine()
    assert len(machine.run("init_task::dump -l 20").out.splitlines()) == 3, "20 is 0x20: two lines behind the header"
    assert len(machine.run("init_task::dump -l 0t20").out.splitlines()) == 3
    assert len(machine.run("init_task::dump -l 30").out.splitlines()) == 4


@cases(
    ("2.6-variable", "5>x; <x=J", "5"),
    ("2.6-one-digit", "5>1; <1=J", "5"),
    ("2.6-assignment", "5>a; <a=J", "5"),
    ("2.6-shift-wins", "a>>1=J; 5<<1=J", "5 a"),
    Case("2.6-two-digits", "<10=J", error=f'{SYNTAX} "0": expected an operator or a command'),
    Case("2.6-unknown", "<x=J", error="variable 'x' is not defined"),
)
def test_variables(case: Case) -> None:
    check(case)


@cases(
    ("2.7-colons", "::echo a", "a"),
    ("2.7-dollar-name", "$d", "radix = 16 base ten"),
    ("2.7-assign-with-a-modifier", "1234>/c/x; <x=J", "34"),
    ("2.7-write-letters-take-arguments", "init_task/v 5",
     ""),
    Case("2.7-unknown-names-are-reported-at-once", "1=X; ::nosuch 'a", "1",
         error="invalid command '::nosuch': unknown dcmd name"),
    Case("2.7-nothing-of-that-statement-runs", "5>x; ::echo a | ::nosuch",
         error="invalid command '::nosuch': unknown dcmd name"),
    Case("2.7-unknown-names-are-guessed", "::ecoh",
         error="invalid command '::ecoh': unknown dcmd name; did you mean ::echo?"),
    Case("2.7-scope-that-is-not-loaded", "::nosuch`echo",
         error="invalid command '::nosuch`echo': specified module is not loaded"),
    ("2.7-scope", "::language`echo a", "a"),
)
def test_verbs(case: Case) -> None:
    if case.rule == "2.7-write-letters-take-arguments":
        said = Machine(writable=True).run(case.line)
        assert said.words == "init_task: 0 = 0x5"
        return
    check(case)


@pytest.mark.parametrize("letter", "vwWZ")
def test_2_7_blanks_before_a_write_letter(letter: str) -> None:
    assert Machine(writable=True).run(f"init_task/ {letter} 5").good


@pytest.mark.parametrize("text", [
    "(" * 100_000 + "1", "-" * 100_000 + "1=X", "1" + "+1" * 300_000 + "=X", "::echo " + "$[" * 100_000,
    "1=" + "X" * 1_000_000, "1=" + "9" * 1_000_000 + "X", "9" * 1_000_000 + "=X", "nosuch" * 160_000 + "=X",
    "::" + "nosuch" * 160_000, '::echo "' + "a" * 1_000_000, "'" + "\\" * 999_999, "! '" + "\\" * 999_999,
    "::echo 1" + " | ::map ." * 100_000, "\\" * 1_000_000, "`" * 1_000_000, "<" * 1_000_000, "(1)" * 300_000,
    "*/c/" * 200_000, "1" + ",1" * 400_000,
], ids=lambda text: f"{text[:8]}...{len(text)}")
@pytest.mark.timeout(30)
def test_2_hostile_lines_are_named_errors(text: str) -> None:
    machine = Machine(target=False)
    said = machine.run(text)
    assert not said.good
    assert len(said.errors) == 1
    assert len(said.err) < 5000, "the line is shown around the place only"
    assert "^" in said.err
    assert machine.run("1=X").words == "1"


def test_2_long_arguments_are_no_error() -> None:
    assert len(Machine().run("::echo " + "a" * 1_000_000).out) == 1_000_001


def test_2_a_pipeline_of_100_stages_runs() -> None:
    assert Machine().run("::echo 1" + " | ::map .+1" * 99).words == "0x64"
