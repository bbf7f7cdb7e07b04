"""mdb-language.md section 7: what a dcmd is told, what its status does to loops and pipes, errors and the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import pytest

from kshell.api import (
    ADDRESS,
    DECIMAL,
    Abort,
    Call,
    Column,
    Flag,
    Item,
    KshellError,
    Next,
    Output,
    Row,
    Session,
    Text,
    UsageError,
    Values,
    dcmd,
)
from kshell.pipeline import Status
from tests.conformance.run import KERNEL, Case, Machine, cases, check
from tests.shell_session import make_module


@dcmd("flags")
def flags(session: Session, address: int | None, call: Call) -> Iterator[Output]:
    """Tell how it is called."""
    told = [name for name, on in (
        ("ADDRSPEC", address is not None), ("LOOP", call.loop), ("LOOPFIRST", call.loop and call.first),
        ("PIPE", call.piped), ("PIPE_OUT", call.pipe_out)) if on]
    if call.pipe_out:
        yield Item(len(told))
    else:
        yield Text("+".join(told) or "none")


@dcmd("table", columns=(Column("N", 3, DECIMAL), Column("ADDR", kind=ADDRESS)))
def table(session: Session, address: int) -> Iterator[Output]:
    """Show a row."""
    yield Row(address, (address, address))


@dcmd("ends")
def ends(session: Session, address: int | None, how: str) -> Iterator[Output]:
    """Print dot and end somehow."""
    yield Item(session.dot)
    session.increment = 1
    if how == "ERR":
        raise KshellError("failed")
    if how == "ABORT":
        raise Abort("failed")
    if how == "USAGE":
        raise UsageError("failed")
    if how == "NEXT":
        raise Next


@dcmd("opened")
def opened(session: Session, address: int | None) -> Iterator[Output]:
    """Leave the line open."""
    yield Text("x", end="")


@dcmd("optional")
def optional(session: Session, address: int | None, all_: Annotated[bool, Flag("-a")], word: str | None) -> None:
    """Have an optional address."""


@dcmd("needs")
def needs(session: Session, address: int, word: str) -> None:
    """Need an address and a word."""


@dcmd("all")
def all_(session: Session, values: Values) -> Iterator[Output]:
    """Take all values at once."""
    yield Text("+".join(f"{item.value:x}" for item in values))


ALL = (flags, table, ends, opened, optional, needs, all_)
THREE = "::echo 1 2 3 ! \"tr ' ' '\\\\n'\" | "


def machine() -> Machine:
    return Machine(make_module(*ALL))


@cases(
    ("7.1-no-flags", "::flags", "none"),
    ("7.1-address", "5::flags", "ADDRSPEC"),
    ("7.1-count", ",2::flags", "LOOP+LOOPFIRST LOOP"),
    ("7.1-count-of-1-is-a-loop", ",1::flags", "LOOP+LOOPFIRST"),
    ("7.1-address-and-count", "5,2::flags", "ADDRSPEC+LOOP+LOOPFIRST ADDRSPEC+LOOP"),
    ("7.1-pipe", THREE + "::flags", "ADDRSPEC+LOOP+LOOPFIRST+PIPE ADDRSPEC+LOOP+PIPE ADDRSPEC+LOOP+PIPE"),
    ("7.1-pipe-out", "::flags | ::map .", "1"),
    ("7.1-shell-is-no-pipe-out", "::flags ! cat", "none"),
    ("7.1-header-once-in-a-loop", "5,2::table", "N ADDR 5 0000000000000005 5 0000000000000005"),
    ("7.1-header-once-from-a-pipe", THREE + "::table",
     "N ADDR 1 0000000000000001 2 0000000000000002 3 0000000000000003"),
    ("7.1-no-header-into-a-pipe", "5::table | ::map .", "5"),
    ("7.2-OK-goes-on", "5,3::ends OK", "5 6 7"),
    Case("7.2-ERR-goes-on", "5,2::ends ERR", "5 6", error="::ends: failed"),
    Case("7.2-ABORT-stops", "5,3::ends ABORT", "5", error="::ends: failed"),
    Case("7.2-USAGE-stops", "5,3::ends USAGE", "5", error="::ends: failed"),
    ("7.2-NEXT-and-none-left-is-OK", "5,2::ends NEXT", "5 6"),
    Case("7.2-ERR-in-a-pipe-goes-on", THREE + "::ends ERR", "1 2 3", error="::ends: failed"),
    Case("7.2-ABORT-in-a-pipe-stops", THREE + "::ends ABORT", "1", error="::ends: failed"),
    Case("7.2-what-a-stage-printed-before-ERR-passes", "5::ends ERR | ::map .+1", "6", error="::ends: failed"),
    ("7.2-no-value-ends-the-pipe", "1::grep 0 | ::flags"),
    ("7.3-count-0", "5,0::flags; .=J", "5"),
    ("7.3-dump-takes-the-count", "init_task,20::dump ! wc -l", "3"),
    ("7.3-search-ignores-it", "init_task,5/L 0b0a0908", "init_task+8"),
    ("7.3-the-count-is-the-first-stages", "5,2::flags | ::map .", "4 3"),
    ("7.3-an-open-line-is-ended", "::opened; ::opened", "x x"),
    ("7.3-between-rounds-nothing-is-added", ",3::opened; ::echo a", "xxx a"),
    ("7.3-a-line-left-open-in-a-string", "::eval '::opened; ::echo a'", "x a"),
)
def test_running(case: Case) -> None:
    made = machine()
    said = made.run(case.line)
    assert said.words == case.out, said.err
    assert (said.errors[0] if said.errors else None) == case.error


@pytest.mark.parametrize("line, status", [
    ("::ends OK", Status.OK), ("::ends ERR", Status.ERR), ("::ends USAGE", Status.USAGE),
    ("::ends ABORT", Status.ABORT),
    ("::ends ERR | ::flags", Status.OK), ("::ends ABORT; ::ends OK", Status.OK), ("::ends OK; ::ends ERR", Status.ERR),
    ("::eval '::ends ABORT'", Status.ABORT), ("::eval '::ends ERR'", Status.OK), ("::eval 'nosuch=X'", Status.ABORT),
])
def test_7_2_status_of_the_last_dcmd(line: str, status: Status) -> None:
    assert machine().run(line).status is status


@pytest.mark.parametrize("line, usage", [
    ("::optional -z", "Usage: [address]::optional [-a] [word]"),
    ("::needs a", "Usage: address::needs word"),
    ("5::needs", "Usage: address::needs word"),
    ("5::all", "Usage: ::all"),
    ("::optional a b", "Usage: [address]::optional [-a] [word]"),
])
def test_7_2_usage(line: str, usage: str) -> None:
    said = machine().run(line)
    assert usage in said.err
    assert "for more information" in said.err
    assert said.raw == ""


def test_7_4_the_last_command_list() -> None:
    made = machine()
    assert made.run("5::flags").words == "ADDRSPEC"
    made.run("nosuch=X")
    assert made.run("6").words == "ADDRSPEC", "what could not be parsed does not become it"
    made.run("::ends ABORT")
    assert made.run("7").words == "7", "what failed does"
    made.run("::eval '::flags'")
    assert made.run("8").words == "none", "the enclosing statement overwrites what its string ran"


@cases(
    Case("7.5-earlier-statements-have-run", "1=J; nosuch=J; 2=J", "1", error="failed to dereference symbol: unknown "
         "symbol name"),
    Case("7.5-nothing-of-the-statement-runs", "! echo a; 5>x; ::echo <x $[nosuch]", "a",
         error="failed to dereference symbol: unknown symbol name"),
    Case("7.5-a-script-goes-on", "1=J; ::bad ; 2=J\n3=J", "1 2 3", error="invalid command '::bad': unknown dcmd name",
         how="script"),
    Case("7.5-the-next-line-is-not-lost", "nosuchsym\n3=J", "3", how="script",
         error="failed to dereference symbol: unknown symbol name"),
    Case("7.5-an-open-bracket-does-not-take-the-next-line", "::echo $[1\n3=J", "3", error="syntax error: $[ unmatched",
         how="script"),
    Case("7.5-a-string-stops", "1=J; nosuch=J; 2=J", "1", how="string",
         error="failed to dereference symbol: unknown symbol name"),
)
def test_errors_and_the_rest(case: Case) -> None:
    check(case)


def test_7_5_an_error_in_a_string_fails_the_enclosing_command() -> None:
    said = machine().run("::eval '1=J; nosuch=J; 2=J'; 3=J")
    assert said.words == "1 3"
    assert "unknown symbol name" in said.errors[0]
    assert machine().run("::eval 'nosuch=J' | ::flags").words == ""


def test_7_3_rounds_that_all_fail_end() -> None:
    typed = Machine(typed=True)
    typed.run("::typedef -c LP64; ::typedef 'struct t { long a; }'")
    said = typed.run(f"{KERNEL + 0xff0:x},7fffffffffffffff::print 'struct t' a")
    assert said.words == "a = 0xf7f6f5f4f3f2f1f0 a = 0xfffefdfcfbfaf9f8"
    assert f"::print: 1000 rounds have failed at {KERNEL + 0x1000:#x}; the others are left out" in said.errors
    assert len(said.errors) == 3, "the error itself, and how often it came"
