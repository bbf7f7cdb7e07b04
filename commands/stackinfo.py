"""``::stackinfo``: how deep kernel stacks are and have been."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from kshell.api import ADDRESS, COUNT, Column, Flag, Output, Row, Session, Values, Warn, dcmd
from kshell.linux import stack_depth, stacks, tasks

TASK = "struct task_struct"


@dcmd("stackinfo", columns=(
    Column("THREAD", kind=ADDRESS), Column("STACK", kind=ADDRESS), Column("SIZE", 6, COUNT), Column("CUR", 6, COUNT),
    Column("MAX", 6, COUNT), Column("END", 11), Column("CMD/TID", key="comm"),
), yields=TASK, group="Stacks")
def stackinfo(
    session: Session, address: int | None, values: Values | None,
    damaged: Annotated[bool, Flag("-o", "only those that have overflowed")],
) -> Iterator[Output]:
    """Show how deep kernel stacks are and have been, in bytes, and whether they have overflowed.

    CUR is what is in use now, MAX the most that ever was: stacks are zeroed before a task gets them. END tells whether
    the magic at the end of the stack is there (ok), or what was written over it: then the stack has overflowed, or
    something else was written there. Most stacks have a guard page below them, which is hit before the magic is
    written over: MAX is nearly SIZE then, and -o counts them too. With addresses (of task_structs, in a pipe too), of
    those only.

    Examples:
      ::stackinfo | ::head -3
      ::stackinfo -o                 // overflowed stacks
      ::pgrep ^kworker | ::stackinfo
    """
    target = session.target
    wanted = stacks.asked_tasks(
        target, address, None if values is None else [item.value for item in values])
    chosen, damage = stacks.every_found(target) if wanted is None else (wanted, None)
    pids, flags, names = tasks.task_columns(target, chosen, "pid", "flags", "comm")
    for number, depth in enumerate(stack_depth.depths(target, chosen)):
        if damaged and not depth.overflowed:
            continue
        end = {None: None, True: "ok", False: f"0x{depth.magic or 0:08x}"}[depth.intact]
        name = names[number]
        if isinstance(name, str) and isinstance(flags[number], int) and not flags[number] & tasks.PF_KTHREAD:
            name = f"{name}/{pids[number]}"
        yield Row(depth.task, (depth.task, depth.base or None, depth.size if depth.base else None, depth.current,
                               depth.deepest, end, name))
    if damage is not None:
        yield Warn(damage)
