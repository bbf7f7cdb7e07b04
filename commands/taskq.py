"""Workqueues, which mdb calls task queues: ``::taskq``, ``::taskq_entry``; walkers."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Annotated

from kshell.api import (
    ADDRESS,
    DECIMAL,
    Column,
    Flag,
    KshellError,
    Option,
    Output,
    Record,
    Row,
    Session,
    Warn,
    dcmd,
    escape,
    walker,
)
from kshell.linux import lock_rows
from kshell.linux.workqueues import Queue, Work, Workqueues, flag_names

QUEUE, WORK, TASK = "struct workqueue_struct", "struct work_struct", "struct task_struct"


def _chosen(known: Workqueues, address: int | None) -> list[Queue]:
    """Return all queues, or the one at *address*.

    :raises KshellError: there is none
    """
    found = [queue for queue in known.queues if address in (None, queue.address)]
    if not found and address is not None:
        raise KshellError(f"no workqueue at 0x{address:x}", hint="::taskq lists those there are")
    return found


def _missing(known: Workqueues) -> Iterator[Output]:
    if known.unread:
        first = known.unread[0]
        first.hint = f"so {len(known.unread)} queues, pools, workers or lists cannot be read; what can be is shown"
        yield Warn(first)


def _function(names: lock_rows.Names, work: Work) -> str:
    return names.lock(work.function) or f"0x{work.function:x}"


def _thread(names: lock_rows.Names, work: Work) -> str | None:
    if work.worker is None:
        return None
    return names.task(work.worker.task) if work.worker.task else "softirq"


@dcmd("taskq", columns=(
    Column("ADDR", kind=ADDRESS), Column("NAME", 30), Column("RUN", 3, DECIMAL), Column("QUEUED", 6, DECIMAL),
    Column("MAX", 4, DECIMAL), Column("POOLS", 5, DECIMAL), Column("THREADS", 7, DECIMAL), Column("FLAGS")),
    yields=QUEUE, group="Kernel")  # fmt: skip
def taskq(
    session: Session, address: int | None,
    active: Annotated[bool, Flag("-a", "only those that have something to do")],
    threads: Annotated[bool, Flag("-t", "with the threads that run their works")],
    stacks: Annotated[bool, Flag("-T", "with those threads and their stacks")],
    pattern: Annotated[str | None, Option("-n", "name", "only of this name; * and ? stand for others")],
) -> Iterator[Output]:
    """List the workqueues, or the one at the address.

    RUN is how many of its works run now, QUEUED how many wait. MAX may run at once, on each CPU unless the queue is
    unbound; empty: any number. POOLS are the pools of workers that serve it, THREADS their workers, most of which
    serve other queues too. ::taskq_entry lists the works; delayed ones are not queued before their timer expires:
    ::callout has those.

    Examples:
      ::taskq
      ::taskq -at
      ::taskq -n events* | ::taskq_entry
      ::taskq -n events | ::print struct workqueue_struct flags
    """
    known = Workqueues(session.target)
    names = lock_rows.Names(session.target)
    works: dict[int, list[Work]] = {}
    for work in known.works():
        if work.queue is not None:
            works.setdefault(work.queue.address, []).append(work)
    for queue in _chosen(known, address):
        own = works.get(queue.address, [])
        if (active and not own) or (pattern is not None and not fnmatchcase(queue.name, pattern)):
            continue
        running = [work for work in own if work.state == "running"]
        yield Row(queue.address, (
            queue.address, queue.name, len(running), len(own) - len(running), queue.limit,
            len(set(queue.links.values())), len(known.tasks(queue)), flag_names(queue.flags)))
        for work in running if threads or stacks else ():
            task = work.worker.task if work.worker else 0
            line = f"{'':16} {task:016x} {escape(_thread(names, work) or '')} runs {_function(names, work)}"
            yield Record([line], lambda task=task, work=work: {  # type: ignore[misc]
                "task": f"0x{task:x}", "thread": _thread(names, work), "work": f"0x{work.address:x}",
                "function": _function(names, work)})
            if stacks and task:
                yield from session.eval(f"0x{task:x}::findstack")
    yield from _missing(known)


@dcmd("taskq_entry", columns=(
    Column("ADDR", kind=ADDRESS), Column("STATE", 8), Column("QUEUE", 24), Column("POOL", 4, DECIMAL),
    Column("CPU", 3, DECIMAL), Column("FUNCTION", 32), Column("THREAD")), yields=WORK, group="Kernel")  # fmt: skip
def taskq_entry(session: Session, address: int | None) -> Iterator[Output]:
    """List the works that run or wait, of all workqueues, or of the workqueue or work at the address.

    STATE is running, next (a worker has it already; it may be the one that runs, queued again), pending (in a pool,
    for a worker), or inactive (its queue runs as many as it may). CPU is empty for the pools of unbound queues. What
    runs may have been freed by its function.

    Examples:
      ::taskq_entry
      ::taskq -n events | ::taskq_entry
    """
    names, known = lock_rows.Names(session.target), Workqueues(session.target)
    for work in known.works():
        if address not in (None, work.address, work.queue.address if work.queue else 0):
            continue
        pool = work.pool
        yield Row(work.address, (
            work.address, work.state, work.queue.name if work.queue else None, pool.number if pool else None,
            pool.cpu if pool and pool.cpu >= 0 else None, _function(names, work),
            _thread(names, work)))
    yield from _missing(known)


@walker("workqueue", yields=QUEUE)
def workqueue(session: Session) -> Iterator[int]:
    """Walk the workqueues."""
    for queue in Workqueues(session.target).queues:
        yield queue.address


@walker("taskq_thread", yields=TASK)
def taskq_thread(session: Session, address: int | None) -> Iterator[int]:
    """Walk the threads that run works: of all workqueues, or of the one at the address."""
    known = Workqueues(session.target)
    if address is None:
        yield from known.every_task()
        return
    for queue in _chosen(known, address):
        yield from known.tasks(queue)


@walker("taskq_entry", yields=WORK)
def walk_entries(session: Session, address: int | None) -> Iterator[int]:
    """Walk the works that run or wait: of all workqueues, or of the one at the address."""
    known = Workqueues(session.target)
    _chosen(known, address)
    for work in known.works():
        if address is None or (work.queue is not None and work.queue.address == address):
            yield work.address
