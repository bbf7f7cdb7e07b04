"""``::mutex``, ``::rwlock``: one lock, who holds it and who waits; walker ``wchan``."""

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
    Text,
    dcmd,
    walker,
)
from kshell.linux import lock_state, wait_queues
from kshell.linux.lock_rows import who
from kshell.linux.lock_state import State
from kshell.linux.tasks import read_task

TASK = "struct task_struct"
WAITERS = Flag("-w", "the tasks that wait too; into a pipe they go instead of the lock")
MUTEX = (Column("ADDR", kind=ADDRESS), Column("HELD", 5), Column("OWNER", kind=ADDRESS), Column("PID", 6, DECIMAL, "<"),
         Column("COMM", 16), Column("WAITERS", 7, DECIMAL), Column("FLAGS"))  # fmt: skip
RWLOCK = (*MUTEX[:2], Column("READERS", 7, DECIMAL), *MUTEX[2:])


@dcmd("mutex", columns=MUTEX, group="Kernel")
def mutex(session: Session, address: int, waiting: Annotated[bool, WAITERS]) -> Iterator[Output]:
    """Show the mutex at the address: who holds it, how many tasks wait for it, its flags.

    FLAGS are waiters (somebody waits), handoff (it is to be given to the first waiter), pickup (it was). That the lock
    is a mutex is taken for granted; ::locks finds those that are waited for.

    Examples:
      cgroup_mutex::mutex
      cgroup_mutex::mutex -w
    """
    found = lock_state.mutex_state(session.target, address)
    yield Row(None if waiting else address, (address, found.held, *_owner(found), len(found.waiters), found.flags))
    if waiting:
        yield from _waiters(session, found)


@dcmd("rwlock", columns=RWLOCK, group="Kernel")
def rwlock(session: Session, address: int, waiting: Annotated[bool, WAITERS]) -> Iterator[Output]:
    """Show the rw_semaphore at the address: how it is held, by whom, how many tasks wait for it, its flags.

    It is what a Solaris rwlock is; Linux's rwlock_t spins and knows no owner. Held for writing OWNER is the writer, for
    reading the reader that came last, which may have gone since. FLAGS are waiters, handoff, nonspinnable.

    Examples:
      namespace_sem::rwlock
      namespace_sem::rwlock -w
    """
    found = lock_state.rwsem_state(session.target, address)
    cells = (address, found.held, found.readers, *_owner(found), len(found.waiters), found.flags)
    yield Row(None if waiting else address, cells)
    if waiting:
        yield from _waiters(session, found)


def _owner(found: State) -> tuple[int | None, int | KshellError | None, str]:
    if found.task is None:
        return None, None, ""
    if isinstance(found.task, KshellError):
        return found.owner, found.task, ""
    return found.owner, found.task.pid, found.task.comm


def _waiters(session: Session, found: State) -> Iterator[Output]:
    for number, address in enumerate(found.waiters, 1):
        try:
            name = who(read_task(session.target, address))
        except KshellError as error:
            name = str(error)
        yield Text(f"    waiter {number}: {address:016x} {name}", address, TASK)


@walker("wchan", yields=TASK)
def wchan(session: Session, address: int) -> Iterator[int]:
    """Walk the tasks that wait in the wait queue (wait_queue_head) at the address; those in poll() on it too.

    Who waits for a lock is walked by lock_waiters.
    """
    yield from wait_queues.waiting_tasks(session.target, address)
