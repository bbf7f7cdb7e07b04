"""kshell at a prompt with a fake target and dcmds for tests: ``python -m tests.shell.demo_session``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Annotated

from kshell.api import ADDRESS, Column, Context, Flag, Output, Row, Session, TypeName, WalkerName, dcmd, walker
from kshell.console import Console
from kshell.shell.interactive import run_interactive
from tests.fake_target import Bytes, fake_target
from tests.shell_session import make_registry


@walker("numbers")
def numbers(session: Session) -> Iterator[int]:
    """Count."""
    yield from range(1000)


@dcmd("rows", columns=(Column("ADDR", kind=ADDRESS), Column("NAME")))
def rows(session: Session, count: int | None, all_: Annotated[bool, Flag("-a", "all of them")]) -> Iterator[Output]:
    """List rows."""
    for number in range(count or 3):
        yield Row(number, (number, f"row {number}"))


@dcmd("endless")
def endless(session: Session) -> Iterator[Output]:
    """Never end."""
    yield "started"
    while True:
        time.sleep(0.1)
        yield "."


@dcmd("walk")
def walk(session: Session, name: WalkerName) -> Iterator[Output]:
    """Walk."""
    yield from session.walk(name)


@dcmd("print")
def print_(session: Session, address: int, name: TypeName) -> Iterator[Output]:
    """Print a type."""
    yield f"as {name}"


@dcmd("enter")
def enter(session: Session) -> None:
    """Enter a process."""
    session.set_context(Context(4211, "victim", Bytes("user", 0x1000, b"x")))


@dcmd("quit")
def quit_(session: Session) -> None:
    """Leave."""
    session.quit()


@dcmd("bug")
def bug(session: Session) -> None:
    """Break."""
    raise RuntimeError("oops")


if __name__ == "__main__":
    running = Session(fake_target("-w" in sys.argv), make_registry(
        numbers, rows, endless, walk, print_, enter, quit_, bug))
    sys.exit(run_interactive(running, Console(running, sys.stdout, sys.stderr, terminal=True)))
