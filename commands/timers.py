"""Timers that are pending: ``::callout``; the walkers ``timer`` and ``hrtimer``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    DECIMAL,
    Column,
    Decimal,
    Flag,
    KshellError,
    Option,
    Output,
    Row,
    Session,
    UsageError,
    dcmd,
    walker,
)
from kshell.linux import lock_rows, task_rows, timers

TIMER, HRTIMER = "struct timer_list", "struct hrtimer"


@dcmd("callout", columns=(
    Column("CPU", 3, DECIMAL), Column("BASE", 9), Column("ADDR", kind=ADDRESS), Column("EXPIRES", 10, align=">"),
    Column("FUNCTION", 32), Column("FOR")), yields=TIMER, group="Kernel")  # fmt: skip
def callout(
    session: Session, cpu: Annotated[Decimal | None, Option("-c", "cpu", "only of this CPU, in decimal")],
    function: Annotated[str | None, Option("-f", "func", "only with this function")],
    wheel: Annotated[bool, Flag("-w", "only those of the timer wheel (struct timer_list)")],
    high: Annotated[bool, Flag("-h", "only high-resolution ones (struct hrtimer)")],
) -> Iterator[Output]:
    """List the timers that are pending on each CPU: those of the timer wheel, and high-resolution ones.

    BASE is where a timer waits: std, local, global or def (deferrable) of the wheel, or the clock of a
    high-resolution timer: mono, real, boot, tai, with /soft when it runs in softirq context. EXPIRES is how long
    from now, as of the last tick, that is, with - how late it is already. FUNCTION is what it calls, FOR the work
    that is queued then, or the task that is woken.

    Examples:
      ::callout
      ::callout -c 0 -w
      ::callout -f delayed_work_timer_fn
      ::callout -h | ::print struct hrtimer node.expires
    """
    target = session.target
    known = target.cpu_numbers("online")
    if cpu is not None and cpu not in known:
        raise UsageError(f"no CPU {cpu} is online; there are {', '.join(map(str, known))}")
    names, purposes = lock_rows.Names(target), timers.Purposes(target)
    for wanted, place in ((wheel or not high, timers.wheel_timers), (high or not wheel, timers.high_timers)):
        for timer in place(target) if wanted else ():
            if cpu not in (None, timer.cpu):
                continue
            shown = names.lock(timer.function) or f"0x{timer.function:x}"
            if function not in (None, shown, shown.rpartition("`")[2]):
                continue
            yield Row(timer.address, (
                timer.cpu, timer.base, timer.address, _left(timer), shown, _purpose(names, purposes, timer)),
                HRTIMER if timer.high else TIMER)


def _left(timer: timers.Timer) -> str | KshellError:
    if isinstance(timer.left, KshellError):
        return timer.left
    return f"{'-' if timer.left < 0 else ''}{task_rows.duration(abs(timer.left))}"


def _purpose(names: lock_rows.Names, purposes: timers.Purposes, timer: timers.Timer) -> str | KshellError:
    try:
        task, work = purposes.task(timer), purposes.work(timer)
    except KshellError as error:
        return error
    if task:
        return names.task(task)
    return (names.lock(work) or f"0x{work:x}") if work else ""


@walker("timer", yields=TIMER)
def walk_timer(session: Session) -> Iterator[int]:
    """Walk the timers that are pending in the timer wheel, CPU by CPU."""
    for timer in timers.wheel_timers(session.target):
        yield timer.address


@walker("hrtimer", yields=HRTIMER)
def walk_hrtimer(session: Session) -> Iterator[int]:
    """Walk the high-resolution timers that are pending, CPU by CPU."""
    for timer in timers.high_timers(session.target):
        yield timer.address
