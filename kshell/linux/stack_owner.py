"""All tasks that can have a kernel stack, and whose a stack is."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from kshell.errors import KshellError
from kshell.linux.cpus import current_tasks, thread_size
from kshell.linux.lists import visited_before
from kshell.linux.tasks import process_addresses, task_type, thread_addresses
from kshell.value import Vector

if TYPE_CHECKING:
    from kshell.target.target import Target


def every_task(target: Target) -> list[int]:
    """Return the ``task_struct`` of every thread, each process's leader first, and of the idle tasks at the end.

    :raises KshellError: a list is damaged; its ``visited`` are all that were found nevertheless
    """
    damage: KshellError | None = None
    try:
        leaders = process_addresses(target)
    except KshellError as error:
        leaders, damage = visited_before(error), error
    found: list[int] = []
    bases, counts = Vector(target, task_type(target), leaders).columns("stack", "signal->nr_threads")
    for leader, base, count in zip(leaders, bases, counts, strict=True):
        if isinstance(base, KshellError):
            damage = damage or base  # no task is there
        elif count == 1:
            found.append(leader)
        else:
            try:
                found += thread_addresses(target, leader)
            except KshellError as error:
                found += visited_before(error) or [leader]
                damage = damage or error
    with suppress(KshellError):  # without them, the others are told
        found += [idle for _, idle in current_tasks(target, target.cpu_numbers("present"), "idle") if idle]
    if damage is not None:
        damage.visited = found  # type: ignore[attr-defined]
        raise damage
    return found


def stack_owner(target: Target, address: int) -> int:
    """Return the ``task_struct`` of the task on whose kernel stack *address* is, 0 when it is on none that is found."""
    try:
        every = every_task(target)
    except KshellError as error:
        every = visited_before(error)
    size = thread_size(target)
    # a stack begins at a multiple of its size, in vmalloc and in the direct map
    for task, base in zip(every, Vector(target, task_type(target), every).column("stack"), strict=True):
        if isinstance(base, int) and base and base <= address < base + size:
            return task
    return 0
