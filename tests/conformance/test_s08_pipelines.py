"""mdb-language.md section 8: pipelines, the string dcmds, walk variables, the shell."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.conformance.run import KERNEL, Case, Machine, cases, check

KSHELL = [sys.executable, "-m", "kshell", "-n", "-e"]
TWO = "! 'echo 5; echo 6' | "


@cases(
    ("8.1-once-for-each-value", TWO + "::map .+1", "6 7"),
    ("8.1-three-stages", TWO + "::map .*2 | ::map .+1", "0xb 0xd"),
    ("8.1-values-are-expressions", "::echo 10+8 | ::map .", "0x18"),
    ("8.1-values-with-prefixes", "::echo 0t42 | ::map .", "0x2a"),
    ("8.1-values-that-are-symbols", "::echo init_task | ::map .", f"{KERNEL + 0x100:#x}"),
    ("8.1-statements-in-text", "! 'echo \"1;2\"' | ::map .", "1 2"),
    ("8.1-empty-lines-are-nothing", "! 'echo; echo 1; echo' | ::map .", "1"),
    ("8.1-no-value-no-run", "! true; ! 'true' | ::map .", ""),
    ("8.1-no-blanks-needed", "::echo 5|::map .+1|::map .+1", "7"),
    ("8.1-semicolon-ends-it", "::echo 5 | ::map .; ::echo a", "5 a"),
    ("8.1-dot-is-the-last-value", TWO + "::eval .; .=J", "6"),
    ("8.1-brackets-are-evaluated-before", "2::eval .; ::echo 7 | =$[.]X", "7 7"),
    ("8.1-all-values-at-once", TWO + "::head -1", "5"),
    ("8.1-head-prints-what-it-passes", TWO + "::head", "5 6"),
    ("8.1-verbs-in-a-pipe-have-no-header", "init_task/X | ::map .", "0x3020100"),
    Case("8.1-a-table-is-no-input", "! 'echo 1 2' | ::map .",
         error='|: syntax error near "2": expected an operator or a command'),
    Case("8.1-a-command-is-no-value", "! 'echo 1=X' | ::map .",
         error="|: syntax error: a line in a pipe must be an expression"),
    Case("8.1-values-before-the-error-have-passed", "! 'echo 1; echo nosuch; echo 2' | ::map .", "1",
         error="|: failed to dereference symbol: unknown symbol name"),
    Case("8.1-no-address-in-a-later-stage", "::echo 1 | 10::map .",
         error='syntax error near "10": expected a command (only the first of a pipeline takes an address or count)'),
    ("8.2-eval", "7::eval '.+1=J'", "8"),
    ("8.2-eval-of-several", "7::eval '.=J; .+1=J'", "7 8"),
    ("8.2-map", "7::map .+1", "8"),
    ("8.2-map-is-a-command-line", "7::map '.>x; <x+2'", "9"),
    ("8.2-grep-passes-the-original", TWO + "::grep .==6", "6"),
    ("8.2-grep-of-memory", f"::echo {KERNEL:x} {KERNEL + 4:x} ! \"tr ' ' '\\\\n'\" | ::grep */c/.==4",
     f"{KERNEL + 4:#x}"),
    Case("8.2-map-of-an-error", TWO + "::map nosuch", error="::map: failed to dereference symbol: unknown symbol name"),
    Case("8.2-eval-needs-a-command", "::eval", error="::eval: command is missing"),
    ("8.4-alone", "! echo a | cat", "a"),
    ("8.4-at-the-end", "1=J ! tr 1 2 | cat", "2"),
    ("8.4-ends-at-the-semicolon", "! echo a; 1=J", "a 1"),
    ("8.4-quoted-may-hold-semicolons", "! 'echo a; echo b'", "a b"),
    ("8.4-double-quotes-have-escapes", '! "printf \'a\\\\nb\'"', "a b"),
    ("8.4-a-quote-in-quotes", "! 'echo \\'a\\''", "a"),
    ("8.4-first-stage", "! 'echo 5' | ::map .+1", "6"),
    ("8.4-middle-stage", "::echo 5 ! 'sed s/5/7/' | ::map .+1", "8"),
    ("8.4-two-in-the-middle", "::echo 5 ! 'sed s/5/7/' | ::map . ! 'sed s/7/9/' | ::map .", "9"),
    ("8.4-first-stage-reads-nothing", "! 'cat' | ::map .", ""),
    ("8.4-obeyed", "!< echo '1=J'", "1"),
    ("8.4-fed-and-obeyed", "::echo 5=J !< cat", "5"),
    ("8.4-obeyed-lines-go-on-after-errors", "!< printf 'nosuch=J\\n2=J\\n'", "2"),
    Case("8.4-not-equal-in-a-word-needs-quotes", "::echo 5 | ::grep .!=0",
         error="syntax error: ! begins a shell command, and none begins with ="),
    ("8.4-not-equal-in-quotes", "::echo 5 | ::grep '.!=0'", "5"),
    Case("8.4-open-quote", "::echo a ! 'cat", error="syntax error: quote unmatched"),
    Case("8.4-no-second-exclamation-mark", "::echo a ! 'cat' ! cat",
         error='syntax error near "!": expected the end of the statement'),
    ("8.4-not-unquoted-in-the-middle", "::echo a ! cat | tr a b", "b"),  # the shell's own pipe
)
def test_pipelines(case: Case) -> None:
    if case.rule == "8.4-obeyed-lines-go-on-after-errors":
        said = Machine().run(case.line)
        assert said.words == "2"
        assert said.err.endswith("(!<):1: kshell: failed to dereference symbol: unknown symbol name\n")
        return
    check(case)


def test_8_4_output_into_the_shell_is_not_wrapped() -> None:
    assert Machine().run("1=20X").raw.count("\n") > 1
    assert Machine().run("1=20X ! cat").raw.count("\n") == 1


def test_8_4_no_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/nosuch")
    assert Machine().run("! echo a").errors == ["cannot access /nosuch"]
    assert Machine().run("::echo 1 ! 'cat' | ::map .").errors == ["!: cannot access /nosuch"]


def test_8_4_obeyed_output_is_dropped_when_the_pipeline_aborts() -> None:
    assert Machine().run("::head !< echo 1=J").words == ""


@pytest.mark.parametrize("line, out", [
    ("! 'echo 5; sleep 60' | ::head -1", "5"),                # never ends
    ("! 'exec 2>/dev/null; trap \"\" TERM PIPE; echo 5; sleep 60; sleep 60' | ::head -1", "5"),  # and does not want to
    ("! 'yes 5' | ::head -2", "5 5"),                         # never stops writing
    (",100000::echo 1 ! true", ""),                           # never reads
    (",100000::echo 1 ! 'exec <&-; echo 5' | ::map .", "5"),  # closes the pipe early
    (",100000::echo 1 ! 'kill -9 $$' | ::map .", ""),         # dies
    (",100000::echo 1 ! 'head -2' | ::map .+1", "2 2"),
], ids=["never-ends", "ignores-signals", "never-stops", "never-reads", "closes-early", "dies", "head"])
def test_8_4_shell_stages_that_misbehave(line: str, out: str) -> None:
    start = time.monotonic()
    done = subprocess.run([*KSHELL, line], capture_output=True, text=True, check=False, timeout=50)
    assert " ".join(done.stdout.split()) == out
    assert done.stderr == ""
    assert time.monotonic() - start < 30


def test_8_4_obeyed_output_is_bounded() -> None:
    assert Machine().run("!< yes").errors == ["the command printed more than 16 MiB; none of it is obeyed"]
