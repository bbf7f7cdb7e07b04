"""``::threads``: the threads of a process; ``::auxv``: what the kernel told the program at its start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import ADDRESS, DECIMAL, HEX, Column, Decimal, KshellError, Output, Row, Session, Word, dcmd
from kshell.linux.userland import AUXV_TEXT, auxv_name, require_user

MAX_TEXT = 4096
COLUMNS = (
    Column("TID", 8, DECIMAL, "<"), Column("", 1, key="chosen"), Column("S", 1, key="state"),
    Column("PC", kind=ADDRESS), Column("WHERE", 32), Column("NAME"),
)


@dcmd("threads", aliases=("$L",), columns=COLUMNS, group="Processes")
def threads(
    session: Session, tid: Annotated[Decimal | None, Word("tid", "the one to choose, in decimal")],
) -> Iterator[Output]:
    """List the threads of the process or core that is the target, or choose the one whose registers are meant.

    The chosen one has a *: ::regs, <rip and the other register variables, and $c are about it. PC is where a thread is:
    in a core as its registers tell; of a live process only for threads that wait in the kernel, unless it stands still
    (::stop, --pause). Into a pipe it passes PCs.

    Examples:
      ::threads; ::regs -t 4711
      ::threads 4711; <rip=p; $c
      ::threads | ::dis -n 0
    """
    facts = require_user(session.target)
    if tid is not None:
        if not any(one.tid == tid for one in facts.threads()):
            raise KshellError(f"there is no thread {tid}", hint="::threads lists them")
        session.cpu.choose(tid)
        return
    chosen = session.cpu.number
    for one in facts.threads():
        pc = one.pc if isinstance(one.pc, int) else None
        where = session.name_of(pc) if pc is not None and session.target.symbolize(pc) else ""
        yield Row(pc, (one.tid, "*" if one.tid == chosen else "", one.state, one.pc, where, one.name))


@dcmd("auxv", columns=(Column("TYPE", 20), Column("VALUE", 16, HEX, ">"), Column("TEXT")), group="Processes")
def auxv(session: Session) -> Iterator[Output]:
    """Show the auxiliary vector of the process or core that is the target.

    Into a pipe it passes the values.

    Examples:
      ::auxv
    """
    for number, value in require_user(session.target).auxv():
        name = auxv_name(number)
        text: str | KshellError = ""
        if name in AUXV_TEXT:
            data, fault = session.target.kernel.read_upto(value, MAX_TEXT)
            end = data.find(b"\0")
            text = data[:end].decode("utf-8", "surrogateescape") if end >= 0 else fault or KshellError("no end")
        elif session.target.symbolize(value):
            text = session.name_of(value)
        yield Row(value, (name, value, text))
