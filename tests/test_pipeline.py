"""Statements, counts, pipes, errors and shell commands on a fake target (mdb-language.md 3, 5, 7, 8)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest

from kshell.api import (
    ADDRESS,
    DECIMAL,
    Abort,
    Call,
    Column,
    Expr,
    Flag,
    Item,
    KshellError,
    Next,
    Note,
    Output,
    Row,
    Session,
    Text,
    Values,
    Warn,
    dcmd,
    walker,
)
from kshell.pipeline import Status
from tests.fake_target import KERNEL, FakeTarget, fake_target
from tests.shell_session import Shell, make_module

made: list[int] = []


@walker("numbers", yields="struct n")
def numbers(session: Session, address: int | None) -> Iterator[int]:
    """Count to five."""
    for number in range(1, 6):
        made.append(number)
        yield number


@dcmd("walk")
def walk(session: Session, address: int | None, name: str) -> Iterator[Output]:
    """Walk."""
    yield from session.walk(name, address)


@dcmd("table", columns=(Column("N", 3, DECIMAL), Column("ADDR", kind=ADDRESS)), yields="struct n")
def table(session: Session, address: int | None) -> Iterator[Output]:
    """Show a row or two."""
    for number in (1, 2) if address is None else (address,):
        yield Row(number, (number, number << 4))


@dcmd("show")
def show(session: Session, address: int, call: Call, note: str = "") -> Iterator[Output]:
    """Show how it is called."""
    yield f"{address:x} {call.type} first={call.first:d} loop={call.loop:d} {note}".rstrip()


@dcmd("head")
def head(session: Session, values: Values, count: str = "-3") -> Iterator[Output]:
    """Pass the first values."""
    for number, item in enumerate(values, 1):
        yield item
        if number == int(count[1:]):
            break


@dcmd("fail")
def fail(session: Session, address: int | None, hard: Annotated[bool, Flag("-a")]) -> Iterator[Output]:
    """Fail."""
    yield "before"
    raise (Abort if hard else KshellError)(f"failed at {address}", hint="do not")


@dcmd("bug")
def bug(session: Session) -> Iterator[Output]:
    """Break."""
    yield "before"
    raise KeyError("cpu_slab")


@dcmd("eval")
def eval_(session: Session, address: int | None, text: str) -> Iterator[Output]:
    """Obey."""
    yield from session.eval(text, address)


@dcmd("map")
def map_(session: Session, address: int, text: str) -> Iterator[Output]:
    """Map."""
    yield Item(session.eval_dot(text, address))


@dcmd("echo")
def echo(session: Session, words: list[str | int]) -> Iterator[Output]:
    """Print words."""
    yield " ".join(map(str, words))


@dcmd("dot")
def dot(session: Session) -> Iterator[Output]:
    """Print dot."""
    yield f"{session.dot:x}"


@dcmd("value")
def value(session: Session, number: Expr) -> Iterator[Output]:
    """Print a value."""
    yield f"{number:x}"


@dcmd("warn")
def warn(session: Session) -> Iterator[Output]:
    """Say things on the side."""
    yield Note("a note")
    yield Warn("a warning")
    yield Warn("a warning")
    yield "text"


ALL = (numbers, walk, table, show, head, fail, bug, eval_, map_, echo, dot, value, warn)


@pytest.fixture
def shell() -> Shell:
    made.clear()
    return Shell(*ALL)


def session_of(shell: Shell) -> FakeTarget:
    target = shell.session.target
    assert isinstance(target, FakeTarget)
    return target


@pytest.mark.parametrize("line, output", [
    ("2+3=X", "                5\n"),
    ("5>x; <x+1=X", "                6\n"),
    ("12ff>/c/x; <x=X", "                ff\n"),
    ("::table", "  N ADDR\n  1 0000000000000010\n  2 0000000000000020\n"),
    ("7::show", "7 None first=1 loop=0\n"),
    ("7,2::show", "7 None first=1 loop=1\n7 None first=0 loop=1\n"),
    ("7,0::show; ::dot", "7\n"),
    ("::walk numbers", "1\n2\n3\n4\n5\n"),
    ("::walk numbers | ::show", "".join(f"{n} struct n first={n == 1:d} loop=1\n" for n in range(1, 6))),
    ("::table | ::show", "1 struct n first=1 loop=1\n2 struct n first=0 loop=1\n"),
    ("::walk numbers | ::table", "  N ADDR\n" + "".join(f"  {n} 00000000000000{n}0\n" for n in range(1, 6))),
    ("::echo 10+8 0t10 | ::show", ""),
    ("::echo 10+8 | ::show", "18 None first=1 loop=1\n"),
    ("::echo 1 ; ::echo $[1+2] 'a b'\"\\n\"x", "1\n3 a b\nx\n"),
    ("::walk numbers | ::map .+1 | ::map .*2 | ::head -2", "4\n6\n"),
    ("5::eval '.+1=X'", "                6\n"),
    ("::value init_task-1", f"{KERNEL + 0xff:x}\n"),
    ("::walk numbers | >v; <v=X", "                5\n"),
    ("// a comment", ""),
    ("::dot // a comment", "0\n"),
])
def test_lines(shell: Shell, line: str, output: str) -> None:
    assert shell.run(line) == output


def test_the_dollar_bracket_is_evaluated_before_the_statement(shell: Shell) -> None:
    shell.run("8::show")
    assert shell.run("10::eval '::echo $[.]'") == "16\n"
    assert shell.run("20::show $[.]") == ""
    assert "string argument required" in shell.err


def test_dot_after_a_pipeline_is_the_last_value(shell: Shell) -> None:
    shell.run("ff::walk numbers | ::show")
    assert shell.run("::dot") == "5\n"


def test_a_stage_keeps_its_own_dot(shell: Shell) -> None:
    @dcmd("drip")
    def drip(session: Session, address: int) -> Iterator[Output]:
        """Tell dot while others move it."""
        for number in range(3):
            yield Item(session.dot * 16 + number)

    assert Shell(*ALL, drip).run("7::drip | ::show ! cut -d' ' -f1") == "70\n71\n72\n"


def test_a_stage_may_move_its_own_dot() -> None:
    @dcmd("move")
    def move(session: Session, address: int) -> Iterator[Output]:
        """Move dot and tell it."""
        for _ in range(3):
            session.dot += 0x10
            yield Item(session.dot)

    shell = Shell(*ALL, move)
    assert shell.run("7::move | ::map .+1") == "0x18\n0x28\n0x38\n"


def test_counts_of_dcmds_move_by_the_increment_they_leave() -> None:
    @dcmd("step")
    def step(session: Session, address: int) -> Iterator[Output]:
        """Consume four bytes."""
        session.increment = 4
        yield f"{address:x} {session.dot:x}"

    assert Shell(step).run("10,3::step") == "10 10\n14 14\n18 18\n"


def test_a_verb_before_a_pipe_has_no_header(shell: Shell) -> None:
    assert shell.run("init_task/X | ::show") == "3020100 None first=1 loop=1\n"


def test_values_flow_one_by_one_and_stop_early(shell: Shell) -> None:
    shell.run("::walk numbers | ::head -2")
    assert made == [1, 2]


def test_counts_move_by_the_increment(shell: Shell) -> None:
    assert shell.run(f"{KERNEL:x},2/X") == (
        "0xffff888000000000:             3020100         7060504\n")
    assert (shell.session.dot, shell.session.increment) == (KERNEL + 4, 4)
    shell.run("+/X")
    assert shell.session.dot == KERNEL + 8
    shell.run("^/X")
    assert shell.session.dot == KERNEL + 4


def test_hex_dump_by_a_bare_count(shell: Shell) -> None:
    assert shell.run("init_task/20").splitlines()[1].startswith("ffff888000000100:  00010203 04050607")
    assert (shell.session.dot, shell.session.increment) == (KERNEL + 0x100, 20)


def test_symbols_in_headers(shell: Shell) -> None:
    assert shell.run("jiffies/J") == "jiffies:\njiffies:        706050403020100\n"
    assert shell.run("helper+8/X").startswith("mod`helper+8:   b0a0908")


# -- user and kernel halves -------------------------------------------------------------------------------------------


def test_user_address_without_context(shell: Shell) -> None:
    assert "no process context" in shell.run("400000/X") + shell.err
    assert "::getu" in shell.err
    assert shell.session.status is Status.ERR


def test_user_address_with_context(shell: Shell) -> None:
    from kshell.session import Context
    from tests.fake_target import Bytes

    shell.session.set_context(Context(42, "victim", Bytes("user", 0x400000, b"hello\0")))
    assert shell.run("400000/s") == "0x400000:       hello\n"


# -- naked expressions ------------------------------------------------------------------------------------------------


def test_naked_address_runs_the_last_list_again(shell: Shell) -> None:
    assert shell.run("7") == ""
    assert shell.session.dot == 0, "nothing has run: not even dot is set"
    shell.run("1::show hey")
    assert shell.run("9") == "9 None first=1 loop=0 hey\n"
    assert shell.run("9,2") == "9 None first=1 loop=1 hey\n9 None first=0 loop=1 hey\n"
    assert shell.run("5", string=True) == ""
    assert shell.session.dot == 5


def test_naked_count_goes_on_behind(shell: Shell) -> None:
    shell.run(f"{KERNEL:x}/X")
    assert shell.run(",2") == "0xffff888000000004:             7060504         b0a0908\n"


def test_blank_line_repeats_only_when_asked(shell: Shell) -> None:
    shell.run("::dot")
    assert shell.run("\n") == ""
    shell.session.options.repeatlast = True
    shell.run(f"{KERNEL:x}/X")
    assert "7060504" in shell.run("\n")


# -- errors -----------------------------------------------------------------------------------------------------------


def test_unknown_dcmd_stops_the_line_before_anything_runs(shell: Shell) -> None:
    assert shell.run("::dot; ::tabel | ::show; ::dot") == "0\n"
    assert shell.err == (
        "  ::dot; ::tabel | ::show; ::dot\n         ^^^^^^^\n"
        "kshell: invalid command '::tabel': unknown dcmd name; did you mean ::table?\n")


def test_script_goes_on_behind_the_statement(shell: Shell) -> None:
    assert shell.run("::nosuch; ::dot\n1+=X\n::dot\nnosuch=X; ::dot", recover=True) == "0\n0\n0\n"


def test_error_goes_on_with_the_next_value(shell: Shell) -> None:
    assert shell.run("::table | ::fail") == "before\nbefore\n"
    assert "kshell: ::fail: failed at 1\n        do not\n" in shell.err
    assert shell.session.status is Status.ERR


def test_abort_and_usage_stop_the_pipeline(shell: Shell) -> None:
    assert shell.run("::table | ::fail -a") == "before\n"
    assert str(shell.session.status) == "Status.ABORT"
    assert shell.run("::table | ::show a b") == ""
    assert str(shell.session.status) == "Status.USAGE"
    assert "Usage: address::show [note]" in shell.err
    assert "more like it" not in shell.err, "the second value was not tried"
    assert shell.run("::show") == ""
    assert "::show: an address is needed" in shell.err
    assert shell.run("5::echo") == ""
    assert "::echo: takes no address" in shell.err
    assert shell.run("::head") == ""
    assert "works in a pipe only" in shell.err


def test_table_text_in_a_pipe_is_a_syntax_error(shell: Shell) -> None:
    assert shell.run("::echo 'a table row' | ::show; ::dot") == "0\n"
    assert "syntax error" in shell.err


def test_error_inside_eval_fails_the_outer_command(shell: Shell) -> None:
    assert shell.run("::eval '::dot; ::nosuch'; ::dot") == "0\n0\n"
    assert shell.session.failed
    assert "::nosuch" in shell.err


def test_repeated_errors_are_counted(shell: Shell) -> None:
    @dcmd("same")
    def same(session: Session, address: int) -> None:
        """Fail."""
        raise KshellError("always this")

    shell = Shell(*ALL, same)
    shell.run("::walk numbers | ::same")
    assert shell.err == "kshell: ::same: always this\nkshell: ::same: always this: and 4 more like it\n"


def test_notes_and_warnings(shell: Shell) -> None:
    assert shell.run("::warn") == "text\n"
    assert shell.err == "a note\nkshell: ::warn: a warning\nkshell: ::warn: a warning: and 1 more like it\n"
    assert shell.session.status is Status.ERR


def test_bug_keeps_a_trace(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert shell.run("::bug") == "before\n"
    trace = tmp_path / "kshell" / "last-error.txt"
    assert shell.err == (
        "kshell: ::bug: bug in kshell or its module testing: KeyError: 'cpu_slab'\n"
        f"        trace kept in {trace}\n")
    assert 'raise KeyError("cpu_slab")' in trace.read_text()
    assert trace.stat().st_mode & 0o777 == 0o600
    assert shell.run("::dot") == "0\n", "the session goes on"


def test_next_falls_through_to_the_other_module(shell: Shell) -> None:
    @dcmd("both")
    def pass_on(session: Session) -> Iterator[Output]:
        """Pass on."""
        raise Next
        yield

    @dcmd("both")
    def take(session: Session) -> Iterator[Output]:
        """Take."""
        yield "taken"

    shell = Shell(pass_on)
    shell.session.registry.add_module(make_module(take, module="other"))
    assert shell.run("::both") == "taken\n"


def test_escapes_in_output(shell: Shell) -> None:
    @dcmd("evil", columns=(Column("COMM", 6), Column("X")))
    def evil(session: Session) -> Iterator[Output]:
        """Say bad things."""
        yield Text("a\x1b[2J\tb\nc")
        yield Row(None, ("\x1b]0;x\x07", "\u202ereverse"))

    assert Shell(evil).run("::evil") == "a\\x1b[2J\tb\nc\nCOMM   X\n\\x1b]0;x\\x07 \\u202ereverse\n"


# -- the shell --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line, output", [
    ("! echo hi", "hi\n"),
    ("::table ! cat", "  N ADDR\n  1 0000000000000010\n  2 0000000000000020\n"),
    ("::walk numbers ! head -n 2", "1\n2\n"),
    ("! 'echo 7; echo 8' | ::show", "7 None first=1 loop=1\n8 None first=0 loop=1\n"),
    ("::walk numbers ! 'grep -v 3' | ::map .+10 | ::head -3", "0x11\n0x12\n0x14\n"),
    ("! 'true' | ::show", ""),
    ("!< echo '::dot'", "0\n"),
    ("::walk numbers !< tail -n 1; ::dot", "5\n"),
    ("! exit 3", ""),
])
def test_shell(shell: Shell, line: str, output: str) -> None:
    assert shell.run(line) == output
    assert shell.err == ""


def test_early_end_of_the_shell_command_stops_the_producer() -> None:
    seen: list[int] = []

    @dcmd("endless")
    def endless(session: Session) -> Iterator[Output]:
        """Never end."""
        for number in range(1 << 40):
            seen.append(number)
            yield "x" * 100

    shell = Shell(endless)
    assert shell.run("::endless ! head -n 1") == "x" * 100 + "\n"
    assert len(seen) < 100_000


def test_much_goes_through_a_shell_stage_without_a_deadlock() -> None:
    @dcmd("lots")
    def lots(session: Session) -> Iterator[Output]:
        """Make more than pipes hold."""
        for number in range(50_000):
            yield f"{number:x}"

    @dcmd("count")
    def count(session: Session, values: Values) -> Iterator[Output]:
        """Count."""
        yield str(sum(1 for _ in values))

    assert Shell(lots, count).run("::lots ! 'cat' | ::count") == "50000\n"


def test_no_shell(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/nonexistent")
    shell.run("! echo hi")
    assert "cannot access /nonexistent" in shell.err


def test_calculator_without_a_target() -> None:
    shell = Shell(*ALL, target=False)
    assert shell.run("0t100=X") == "                64\n"
    shell.run("100/X")
    assert "no target" in shell.err


def test_interrupt_closes_the_generators() -> None:
    closed: list[bool] = []

    @dcmd("slow")
    def slow(session: Session) -> Iterator[Output]:
        """Be stopped."""
        try:
            yield "first"
            raise KeyboardInterrupt
        finally:
            closed.append(True)

    shell = Shell(slow)
    with pytest.raises(KeyboardInterrupt):
        shell.run("::slow")
    assert closed == [True]


def test_target_is_used_by_expressions(shell: Shell) -> None:
    assert shell.run("*init_task=J") == "                706050403020100\n"
    assert shell.run("*/2/init_task+1=X") == "                101\n"
    assert shell.run("mod`helper=J") == f"                {KERNEL + 0x300:x}\n"
    shell.run("init_tsk=X")
    assert 'did you mean "init_task"?' in shell.err
    assert fake_target() is not None
