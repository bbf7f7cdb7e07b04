"""Where the kernel stacks of all tasks are, the idle tasks of the CPUs included.

Kernel source: kernel/fork.c (``alloc_thread_stack_node``), kernel/sched/sched.h (``struct rq``). Stacks are areas of
vmalloc with CONFIG_VMAP_STACK, else pages of the direct map; a thread that has ended has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kshell.errors import KshellError
from kshell.linux import tasks
from kshell.linux.kept import kept
from kshell.linux.lists import visited_before
from kshell.value import Vector

if TYPE_CHECKING:
    from kshell.target.target import Target

def every_task(target: Target) -> list[int]:
    """Return the ``task_struct`` of every thread and of every idle task, ``init_task`` first.

    Where the list of processes is damaged, the objects of the slab cache make up for it.
    """
    return kept(target, "every task", _every_task)


def _every_task(target: Target) -> list[int]:
    try:
        leaders = tasks.process_addresses(target)
    except KshellError as error:
        leaders = visited_before(error)
        return list(dict.fromkeys([target.address_of("init_task"), *_idle(target), *_objects(target, leaders)]))
    counts = Vector(target, tasks.task_type(target), leaders).column("signal->nr_threads")
    found = [target.address_of("init_task"), *_idle(target)]
    for leader, count in zip(leaders, counts, strict=True):
        try:
            found += [leader] if count == 1 else tasks.thread_addresses(target, leader)
        except KshellError:
            found.append(leader)
    return list(dict.fromkeys(found))


def _objects(target: Target, known: list[int]) -> list[int]:
    """Return *known* as far as they are task_structs, and the allocated objects of the cache of task_structs."""
    from kshell.linux import slab, slub_objects

    try:
        cache = target.value("struct kmem_cache", slab.find_cache(target, "task_struct").address)
        objects = slub_objects.cache_objects(target, cache)
    except KshellError:
        return known
    allocated: list[int] = objects.address[objects.allocated].tolist()
    inside = set(allocated)
    return [task for task in known if task in inside] + allocated


def _idle(target: Target) -> list[int]:
    """Return the idle task of each CPU, which are on no list."""
    found: list[int] = []
    for cpu in target.cpu_numbers("possible"):
        try:
            task = target.percpu("runqueues", cpu, "struct rq").integer("idle")
        except KshellError:
            continue  # a CPU that never came up, or types without struct rq
        if task:
            found.append(task)
    return found


def stack_bases(target: Target) -> dict[int, int]:
    """Return the lowest address of each task's stack, and the task."""
    every = every_task(target)
    stacks = Vector(target, tasks.task_type(target), every).column("stack")
    return {stack: task for task, stack in zip(every, stacks, strict=True) if isinstance(stack, int) and stack}
