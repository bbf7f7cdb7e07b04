"""``::getu`` and ``::context``: the process that user addresses go to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    DECIMAL,
    Column,
    Context,
    KshellError,
    NoProcessError,
    Note,
    NotFoundError,
    Output,
    Row,
    Session,
    Text,
    Word,
    dcmd,
)
from kshell.linux import processes
from kshell.linux.tasks import PID_MAX, Task

COLUMNS = (
    Column("PID", 6, DECIMAL, "<"), Column("ADDR", kind=ADDRESS), Column("MM", kind=ADDRESS),
    Column("NAME", key="comm"),
)


@dcmd("getu", columns=COLUMNS, yields="struct task_struct", group="Processes")
def getu(
    session: Session, address: int | None, which: Annotated[str | None, Word("pid|name", "a pid is decimal")],
) -> Iterator[Output]:
    """Choose the process whose user memory user addresses mean; without an argument show it.

    By pid (decimal, as pids are printed), by name if only one process has it, or by the address of its task_struct.
    Kernel threads and zombies have no user memory and are refused. Afterwards addresses of the user half go to this
    process in all verbs and dcmds.

    Examples:
      ::getu 812; 404010/s
      ::getu victim
      ::pgrep -x bash | ::getu
    """
    if address is None and which is None:
        yield _shown(session)
        return
    task = _task(session, address, which)
    space = processes.user_memory(session.target, task)
    session.set_context(Context(task.pid, task.comm, space, task.address, task.mm))
    yield Note(f"process context: {task.pid} ({task.comm})")


def _task(session: Session, address: int | None, which: str | None) -> Task:
    try:
        if which is not None:
            return processes.find(session.target, which)
        assert address is not None
        if address <= PID_MAX:  # 0t812::getu: no task_struct is there, it can only be a pid
            return processes.by_pid(session.target, address)
        return processes.by_address(session.target, address)
    except NotFoundError as error:
        raise NoProcessError(str(error), hint=error.hint) from error


def _shown(session: Session) -> Output:
    context = session.context
    if context is None:
        return Text("no process context")
    unknown = processes.unknown_address()
    return Row(context.task or None, (context.pid, context.task or unknown, context.mm or unknown, context.comm))


@dcmd("context", aliases=("$p",), group="Processes")
def context(session: Session, address: int) -> Iterator[Output]:
    """Choose the process context by the address of a task_struct; 0 for the kernel alone.

    mdb's way to say ::getu. A small number is taken for a pid.

    Examples:
      ::pid2proc 812 | ::context
      0::context
    """
    if address == 0:
        session.set_context(None)
        yield Text("debugger context set to kernel")
        return
    task = _task(session, address, None)
    if session.context is not None and session.context.pid == task.pid:
        raise KshellError(f"debugger context is already set to proc {task.address:x}")
    space = processes.user_memory(session.target, task)
    session.set_context(Context(task.pid, task.comm, space, task.address, task.mm))
    yield Text(f"debugger context set to proc {task.address:x}")
