"""All tasks that can have a kernel stack, and whose a stack is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kshell.linux.cpus import current_tasks, thread_size
from kshell.linux.tasks import process_addresses, task_type, thread_addresses
from kshell.value import Vector

if TYPE_CHECKING:
    from kshell.target.target import Target


def every_task(target: Target) -> list[int]:
    """Return the ``task_struct`` of every thread, each process's leader first, and of the idle tasks at the end.

    :raises KshellError: the list of processes is damaged
    """
    leaders = process_addresses(target)
    counts = Vector(target, task_type(target), leaders).column("signal->nr_threads")
    found: list[int] = []
    for leader, count in zip(leaders, counts, strict=True):
        found += [leader] if count == 1 else thread_addresses(target, leader)
    found += [idle for _, idle in current_tasks(target, target.cpu_numbers("present"), "idle") if idle]
    return found


def stack_owner(target: Target, address: int) -> int:
    """Return the ``task_struct`` of the task on whose kernel stack *address* is, 0 when it is on none.

    :raises KshellError: the list of processes is damaged
    """
    every = every_task(target)
    size = thread_size(target)
    # a stack begins at a multiple of its size, in vmalloc and in the direct map
    for task, base in zip(every, Vector(target, task_type(target), every).column("stack"), strict=True):
        if isinstance(base, int) and base and base <= address < base + size:
            return task
    return 0
