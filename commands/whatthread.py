"""``::whatthread``: the threads whose kernel stack holds a value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    DECIMAL,
    Column,
    Flag,
    KshellError,
    Output,
    Row,
    Session,
    Table,
    dcmd,
)
from kshell.linux import stack_values
from kshell.linux.tasks import read_task

TASK = "struct task_struct"
COLUMNS = (Column("ADDR", kind=ADDRESS), Column("PID", 6, DECIMAL, "<"), Column("S", 1, key="state"),
           Column("COMM", 16), Column("PLACES", 6, DECIMAL))  # fmt: skip


@dcmd("whatthread", columns=COLUMNS, yields=TASK, group="Stacks")
def whatthread(
    session: Session, address: int,
    verbose: Annotated[bool, Flag("-v", "each place, and the function whose frame it is in")],
) -> Iterator[Output]:
    """List the threads whose kernel stack holds a value: the address is the value.

    Aligned words of whole stacks are looked at, those of idle tasks too, but not the CPUs' stacks for interrupts. What
    is below the stack pointer was left behind by calls that have returned: -v tells. Into a pipe go the tasks.

    Examples:
      init_task::whatthread ! head -3
      init_task::whatthread -v ! head -3
      ::pgrep -x init | ::whatthread | ::stack
    """
    if verbose:
        yield Table((*COLUMNS[:4], Column("PLACE", kind=ADDRESS), Column("WHERE")), TASK)
    for holder in stack_values.holders(session.target, address):
        try:
            task = read_task(session.target, holder.task)
        except KshellError as error:
            cells: tuple[int | str | KshellError, ...] = (holder.task, error, "", "")
        else:
            cells = (holder.task, task.pid, task.state, task.comm)
        if not verbose:
            yield Row(holder.task, (*cells, len(holder.places)))
        for place in holder.places if verbose else ():
            yield Row(holder.task, (*cells, place.address, place.where))
