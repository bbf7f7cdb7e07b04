"""``::locks``: who waits for which lock, who holds it, and circles of tasks that wait for each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import ADDRESS, DECIMAL, Column, Flag, Output, Record, Row, Session, Warn, Word, dcmd, escape, walker
from kshell.linux import lock_rows, locks, processes, tasks
from kshell.linux.locks import Wait

TASK = "struct task_struct"


@dcmd("locks", columns=(
    Column("KIND", 10), Column("LOCK", kind=ADDRESS), Column("NAME", 24), Column("OWNER", 20),
    Column("PID", 6, DECIMAL, "<"), Column("WAITER", 16, key="comm"), Column("ADDR", kind=ADDRESS),
    Column("S", 1, key="state"), Column("SINCE", 8, align=">"), Column("CALLER", 34), Column("NOTE")),
    yields=TASK, group="Kernel")  # fmt: skip
def show_locks(
    session: Session, address: int | None,
    every: Annotated[bool, Flag("-a", "look at all tasks that sleep, not only the uninterruptible ones (state D)")],
    circles: Annotated[bool, Flag("-d", "only deadlocks")],
    which: Annotated[list[str], Word("pid|name", "only what these tasks wait for; pids are decimal")],
) -> Iterator[Output]:
    """List the tasks that wait for locks, who holds those, and draw deadlocks.

    Mutexes, rw_semaphores, semaphores, completions and rt_mutexes; each is found by the waiter on the stack of the task
    that waits. OWNER is who holds it, SINCE how long ago the waiter last had a CPU, CALLER the function that wanted the
    lock. With an address, what waits for the lock that is there, or what the task that is there waits for. Below the
    table are the circles of tasks in which each waits for a lock that the next one holds: they will never go on.

    Examples:
      ::locks
      ::locks -d
      ::locks | ::stack           // the stacks of the waiters
    """
    target, problem = session.target, None
    if which:
        chosen = [task for word in which for task in processes.named(target, word)]
    else:
        chosen, problem = tasks.so_far(locks.blocked_tasks(target, every or circles))
    found = list(locks.waits(target, chosen))
    shown = found if address is None else [
        wait for wait in found if address in (wait.task.address, wait.lock.address if wait.lock else 0)]
    if not circles:
        names = lock_rows.Names(target)
        for wait in shown:
            yield Row(wait.task.address, names.cells(wait))
    if problem is not None:
        yield Warn(problem)
    if which or address is not None:
        return
    names = lock_rows.Names(target)
    for circle in locks.deadlocks(found):
        yield Record(map(escape, names.drawing(circle)), lambda circle=circle: {  # type: ignore[misc]
            "deadlock": [names.data(wait) for wait in circle]}, tuple(wait.task.address for wait in circle), TASK)


@walker("blocked", yields=TASK)
def blocked(session: Session) -> Iterator[int]:
    """Walk the tasks that sleep uninterruptibly (state D), threads too."""
    for task in locks.blocked_tasks(session.target):
        yield task.address


@walker("lock_waiters", yields=TASK)
def lock_waiters(session: Session, address: int) -> Iterator[int]:
    """Walk the tasks that wait for the lock at the address."""
    chosen, problem = tasks.so_far(locks.blocked_tasks(session.target, every=True))
    found: list[Wait] = list(locks.waits(session.target, chosen))
    for wait in found:
        if wait.lock is not None and wait.lock.address == address:
            yield wait.task.address
    if problem is not None:
        raise problem


@walker("running", yields=TASK)
def running(session: Session) -> Iterator[int]:
    """Walk the tasks that are on a CPU, the idle tasks left out."""
    idle = {"swapper"}
    for _cpu, address in tasks.iter_current(session.target):
        task = next(tasks.read_tasks(session.target, [address]))
        if task.comm.split("/")[0] not in idle or task.pid:
            yield address
