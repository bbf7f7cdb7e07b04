"""CPUs and what waits for them: ``::runq``, ``::cpuinfo``, ``::uptime``; the walkers ``runq`` and ``cpu_dispq``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    COUNT,
    DECIMAL,
    Column,
    Decimal,
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
from kshell.linux import clock, cpu_facts, sched, task_details, task_rows, tasks
from kshell.linux.printk import wall_time

TASK = "struct task_struct"


@dcmd("runq", columns=(
    Column("CPU", 3, DECIMAL), Column("CLASS", 7, key="class"), Column("PRI", 4, DECIMAL), Column("POLICY", 8),
    Column("PID", 6, DECIMAL, "<"), Column("LASTRAN", 9, align=">"), Column("ADDR", kind=ADDRESS),
    Column("NAME", key="comm")), yields=TASK, group="Processes")  # fmt: skip
def runq(
    session: Session, cpu: Annotated[Decimal | None, Option("-c", "cpu", "only of this CPU, in decimal")],
) -> Iterator[Output]:
    """List the run queue of each CPU: the task that runs, then those that wait for it, by class.

    CLASS is current for the task on the CPU, then stop, dl (deadline), rt (real time), cfs (fair), in the order
    in which they are asked for the next one. PRI is the kernel's priority: 0-99 real time, 100-139 by nice value.
    LASTRAN is how long ago a task last got a CPU. A queue that cannot be followed says so, and the others are
    shown.

    Examples:
      ::runq
      ::runq -c 0 | ::print comm se.vruntime
    """
    target = session.target
    now = task_rows.moment(task_details.now, target)
    known = []
    for queue in sched.run_queues(target):
        known.append(queue.cpu)
        if cpu is not None and queue.cpu != cpu:
            continue
        listed = [("current", queue.current), *((one.queue, one.address) for one in queue.queued
                                                if one.address != queue.current)]
        addresses = [address for _name, address in listed]
        found = {task.address: task for task in tasks.read_tasks(target, addresses)}
        placed, times = task_details.placed(target, addresses), task_details.times(target, addresses)
        for (name, address), place, time in zip(listed, placed, times, strict=True):
            task = found[address]
            ran = task_rows.since(time.last_ran, now) if time.last_ran else None
            yield Row(address, (queue.cpu, name, place.prio, place.policy, task.pid, ran, address, task.comm))
        for problem in queue.damage:
            yield Warn(problem)
    if cpu is not None and cpu not in known:
        raise KshellError(f"no run queue of a CPU {cpu}", hint=f"there are those of {', '.join(map(str, known))}")


@walker("runq", yields=TASK)
def walk_runq(session: Session, address: int | None) -> Iterator[int]:
    """Walk the tasks that are runnable, CPU by CPU; from a struct rq, those of its CPU."""
    for queue in sched.run_queues(session.target):
        if address in (None, queue.address):
            for problem in queue.damage:
                raise problem
            yield from (one.address for one in queue.queued)


@walker("cpu_dispq", yields=TASK)
def cpu_dispq(session: Session, address: int) -> Iterator[int]:
    """Walk the tasks that wait for a CPU, from its struct rq or its number: those of walker runq that do not run."""
    for queue in sched.run_queues(session.target):
        if address in (queue.cpu, queue.address):
            for problem in queue.damage:
                raise problem
            yield from (one.address for one in queue.queued if one.address != queue.current)
            return
    raise KshellError(f"no run queue of a CPU 0x{address:x}", hint="a CPU's number, or the address of a struct rq")


@dcmd("cpuinfo", columns=(
    Column("CPU", 3, DECIMAL), Column("RUNQ", kind=ADDRESS), Column("NRUN", 4, DECIMAL), Column("SWITCHES", 10, COUNT),
    Column("PID", 6, DECIMAL, "<"), Column("THREAD", kind=ADDRESS), Column("NAME", 16, key="comm"),
    Column("MODEL")), yields="struct rq", group="Kernel")  # fmt: skip
def cpuinfo(
    session: Session, address: int | None,
    verbose: Annotated[bool, Flag("-v", "with the tasks that wait for each, as ::runq shows them")],
) -> Iterator[Output]:
    """List the CPUs that are online, or the one whose number or run queue the address is.

    What each runs, how much waits for it, and its model. NRUN are its runnable tasks, the current one included;
    SWITCHES counts context switches. Into a pipe it passes addresses of the run queues (struct rq).

    Examples:
      ::cpuinfo
      1::cpuinfo -v
      ::cpuinfo | ::print struct rq nr_running clock
    """
    target = session.target
    some = False
    for queue in sched.run_queues(target):
        if address not in (None, queue.cpu, queue.address):
            continue
        some = True
        task = next(tasks.read_tasks(target, [queue.current]))
        try:
            model: str | KshellError = cpu_facts.model(target, queue.cpu)
        except KshellError as error:
            model = error
        yield Row(queue.address, (
            queue.cpu, queue.address, queue.running, queue.switches, task.pid, task.address, task.comm, model))
        waiting = [one for one in queue.queued if one.address != queue.current] if verbose else []
        for one, waits in zip(waiting, tasks.read_tasks(target, [one.address for one in waiting]), strict=True):
            line = f"{'':20} {one.queue:<7} {waits.pid:<6} {one.address:016x} {escape(waits.comm)}"
            yield Record([line], lambda one=one, waits=waits, cpu=queue.cpu: {  # type: ignore[misc]
                "cpu": cpu, "class": one.queue, "pid": waits.pid, "addr": f"0x{one.address:x}", "comm": waits.comm})
    if not some:
        raise KshellError(f"no run queue of a CPU 0x{address:x}", hint="a CPU's number, or the address of a struct rq")


@dcmd("uptime", group="Kernel")
def uptime(session: Session) -> Iterator[Output]:
    """Show how long the system has been up, its load averages, and how many tasks there are.

    Examples:
      ::uptime
    """
    target = session.target
    time = clock.read_clock(target)
    loads = sched.load_averages(target)
    every, problem = tasks.so_far(tasks.iter_threads(target))
    states = {letter: sum(1 for task in every if task.state == letter) for letter in tasks.LETTERS}
    shown = ", ".join(f"{count} {letter}" for letter, count in states.items() if count)
    text = (f"{wall_time(time.wall)[:19]} UTC up {task_rows.duration(time.uptime)}, {len(every)} tasks ({shown}), "
            f"load average: {', '.join(f'{int(load * 100) / 100:.2f}' for load in loads)}")
    yield Record([text], lambda: {
        "wall": f"{wall_time(time.wall)}Z".replace(" ", "T"), "up_seconds": time.uptime / clock.NS,
        "load": [round(load, 4) for load in loads], "tasks": len(every),
        "states": {letter: count for letter, count in states.items() if count}})
    if problem is not None:
        raise problem
