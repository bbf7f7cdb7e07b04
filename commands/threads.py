"""``::threads``: the threads of a process; ``::auxv``: what the kernel told the program at its start."""

from __future__ import annotations

from collections.abc import Iterator

from kshell.api import ADDRESS, DECIMAL, HEX, Column, KshellError, Output, Row, Session, dcmd
from kshell.linux.userland import AUXV_TEXT, auxv_name, require_user

MAX_TEXT = 4096
COLUMNS = (
    Column("TID", 8, DECIMAL, "<"), Column("S", 1, key="state"), Column("PC", kind=ADDRESS),
    Column("WHERE", 32), Column("NAME"),
)


@dcmd("threads", columns=COLUMNS, group="Processes")
def threads(session: Session) -> Iterator[Output]:
    """List the threads of the process or core that is the target.

    PC is where a thread is: in a core as its registers tell; of a live process only for threads that wait in the
    kernel, for the others would have to be stopped (::regs -t TID does, for a millisecond). Into a pipe it passes PCs.

    Examples:
      ::threads; ::regs -t 4711
      ::threads | ::dis -n 0
    """
    for one in require_user(session.target).threads():
        pc = one.pc if isinstance(one.pc, int) else None
        where = session.name_of(pc) if pc is not None and session.target.symbolize(pc) else ""
        yield Row(pc, (one.tid, one.state, one.pc, where, one.name))


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
