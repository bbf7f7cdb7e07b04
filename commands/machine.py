"""``::stop``, ``::cont``, ``::step``, ``::next``: a machine stopped and run; ``::cpu``: whose registers are meant."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    DECIMAL,
    Column,
    Decimal,
    Halted,
    KshellError,
    Note,
    Option,
    Output,
    Row,
    Runner,
    Session,
    UsageError,
    Word,
    control_of,
    dcmd,
    step_into,
    step_out,
    step_over,
    tell_stop,
)
from kshell.linux.current import current_tasks
from kshell.linux.userland import user_facts

COLUMNS = (
    Column("CPU", 3, DECIMAL), Column("", 1, key="chosen"), Column("PID", 6, DECIMAL), Column("TASK", kind=ADDRESS),
    Column("NAME", 16, key="comm"), Column("RIP", kind=ADDRESS), Column("WHERE"),
)


@dcmd("stop", group="Execution")
def stop(session: Session) -> Iterator[Output]:
    """Stop the virtual machine or the process until ::cont.

    Without it a machine that runs is stopped for each question only, and runs while you think. One that ran when kshell
    came runs again when kshell ends, unless it was started with --stay-stopped. A process runs again in any case.

    Examples:
      ::stop
      ::stop; ::ps; ::cont
    """
    control = control_of(session)
    if session.runner is not None:  # the commands of a breakpoint say that it is to stay
        session.runner.wanted = True
        return
    control.stop()
    yield Note("stopped; ::cont lets it run")


@dcmd("cont", aliases=(":c",), group="Execution")
def cont(
    session: Session,
    seconds: Annotated[Decimal | None, Option("-t", "seconds", "wait for so long at most, in decimal")],
) -> Iterator[Output]:
    """Let the virtual machine or process run; with breakpoints or watchpoints, until one stops it.

    Ctrl-C stops the machine. Without any event it runs, and the prompt comes back at once. A stop is told with the CPU,
    the task on it and the instruction; dot is there, the registers are those of that CPU, the process context is its
    process. With -t it runs on when the time is over.

    Examples:
      ::bp do_sys_openat2; ::cont
      ::cont -t 10
    """
    control = control_of(session)
    if session.runner is not None:  # in the commands of a breakpoint: it goes on anyway
        session.runner.wanted = False
        return
    if not any(event.enabled for event in session.events):
        control.resume()
        yield Note("running")
        return
    yield from _run(session, Runner(session).run(seconds=seconds),
                    f"no event within {seconds} s: it runs on" if seconds is not None else "")


@dcmd("step", aliases=(":s",), group="Execution")
def step(
    session: Session, count: int | None,
    how: Annotated[str | None, Word("over|out|into", "over calls, or out of the function; into without")],
) -> Iterator[Output]:
    """Execute one instruction of the chosen CPU, or the count in front; over a call, or out of the function.

    The other CPUs stand while one instruction is executed; they run while a call is stepped over and while the function
    returns, and breakpoints stop it as ever. Interrupts are held back for single instructions.

    Examples:
      ::step
      ,0t10::step over
      ::step out
    """
    yield from _steps(session, count, how)


def _steps(session: Session, count: int | None, how: str | None) -> Iterator[Output]:
    ways = {None: _into, "into": _into, "in": _into, "over": step_over, "out": step_out}
    if how not in ways:
        raise UsageError(f"{how}: over, out or into")
    for number in range(1 if count is None else count):
        last = number + 1 == (count or 1)
        if (yield from _run(session, ways[how](session), "", quiet=not last)):
            return


@dcmd("next", aliases=(":e",), group="Execution")
def next_(session: Session, count: int | None) -> Iterator[Output]:
    """Execute one instruction, and all of a function that it calls: ::step over.

    Examples:
      ::next
      ,5::next
    """
    yield from _steps(session, count, "over")


def _into(session: Session) -> Iterator[Output | Halted]:
    yield step_into(session)


def _run(
    session: Session, outputs: Iterator[Output | Halted], otherwise: str, quiet: bool = False,
) -> Generator[Output, None, bool]:
    """Pass *outputs* on, and tell of the stop at the end; return whether it was another one than a step."""
    halted = None
    for item in outputs:
        if isinstance(item, Halted):
            halted = item
        else:
            yield item
    if halted is None:
        yield Note(otherwise)
        return True
    if not quiet or halted.reason != "step":
        yield from tell_stop(session, halted)
    if halted.reason == "interrupted" and not session.interactive:
        raise KeyboardInterrupt
    return bool(halted.reason != "step")


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
    if user_facts(session.target) is not None:
        raise KshellError("a process has threads and no CPUs", hint="::threads lists them and chooses one")
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
