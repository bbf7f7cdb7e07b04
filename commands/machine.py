"""``::stop`` and ``::cont``: a virtual machine stopped, and running again; ``::cpu``: whose registers are meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    DECIMAL,
    Column,
    Decimal,
    KshellError,
    Note,
    Output,
    Row,
    Session,
    Word,
    control_of,
    dcmd,
)
from kshell.linux.current import current_tasks

COLUMNS = (
    Column("CPU", 3, DECIMAL), Column("", 1, key="chosen"), Column("PID", 6, DECIMAL), Column("TASK", kind=ADDRESS),
    Column("NAME", 16, key="comm"), Column("RIP", kind=ADDRESS), Column("WHERE"),
)


@dcmd("stop", group="Execution")
def stop(session: Session) -> Iterator[Output]:
    """Stop the virtual machine until ::cont.

    Without it a machine that runs is stopped for each question only, and runs while you think. One that ran when kshell
    came runs again when kshell ends, unless it was started with --stay-stopped.

    Examples:
      ::stop
      ::stop; ::ps; ::cont
    """
    control = control_of(session)
    control.stop()
    yield Note("stopped; ::cont lets it run")


@dcmd("cpu", columns=COLUMNS, group="Execution")
def cpu(
    session: Session, number: Annotated[Decimal | None, Word("cpu", "the one to choose, in decimal")],
) -> Iterator[Output]:
    """List the CPUs with what they do, or choose the one whose registers are meant.

    The chosen one has a *. ::regs, <rip and the other register variables, ::step and $c are about it. A breakpoint
    chooses the CPU that ran into it.

    Examples:
      ::cpu
      ::cpu 1; <rip=p
    """
    control = session.target.control
    cpus = session.target.cpus
    if number is not None:
        if not any(one.number == number for one in cpus):
            raise KshellError(f"there is no CPU {number}", hint=f"there are {len(cpus)}, from 0 on" if cpus else None)
        session.cpu.choose(number)
        return
    tasks = current_tasks(session.target) if control is not None else {}
    for one in cpus:
        task = tasks.get(one.number)
        rip = one.registers.get("rip")
        mark = "*" if one.number == session.cpu.number else ""
        yield Row(one.number, (
            one.number, mark, None if task is None else task.pid, None if task is None else task.address,
            None if task is None else task.comm, rip, None if rip is None else session.name_of(rip)))
