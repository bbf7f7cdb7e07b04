"""Every thread by the kernel's table of process ids: another road to the tasks when their list is damaged.

Kernel source: ``struct pid_namespace`` (idr) in include/linux/pid_namespace.h, kernel/pid.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kshell.errors import Fault
from kshell.linux.kernel import require_kernel
from kshell.linux.lists import member_offset
from kshell.linux.tasks import Task, iter_threads, pid_link, so_far, task_type
from kshell.linux.xarray import idr_for_each
from kshell.value import Vector

if TYPE_CHECKING:
    from kshell.target.target import Target


def thread_addresses(target: Target) -> list[int]:
    """Return the ``task_struct`` of every thread in the initial pid namespace, by ascending id.

    :raises KshellError: the table cannot be found or read
    """
    require_kernel(target)
    idr = target.address_of("init_pid_ns") + member_offset(target.type("struct pid_namespace"), "idr")
    pids = [entry.entry for entry in idr_for_each(target, idr)]
    firsts = Vector(target, target.type("struct pid"), pids).column("tasks[0].first")
    offset = member_offset(task_type(target), pid_link(target))
    return [first - offset for first in firsts if not isinstance(first, Fault) and first]


def all_threads(target: Target) -> tuple[list[Task], str]:
    """Return every thread that can be found, and what was damaged, "" for nothing.

    :raises KshellError: there is none
    """
    found, problem = so_far(iter_threads(target))
    if problem is None:
        return found, ""
    if not found:
        raise problem
    return found, f"{problem}; {problem.hint}" if problem.hint else str(problem)
