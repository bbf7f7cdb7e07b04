"""Every thread by the kernel's table of process ids: another road to the tasks when their list is damaged.

Kernel source: ``struct pid_namespace`` (idr) in include/linux/pid_namespace.h, kernel/pid.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kshell.errors import Fault, KshellError
from kshell.linux.kernel import require_kernel
from kshell.linux.lists import member_offset
from kshell.linux.tasks import Task, iter_threads, pid_link, read_tasks, task_type
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

    The list of tasks is asked, and where that is damaged the table of ids.

    :raises KshellError: neither can be followed
    """
    found: list[Task] = []
    try:
        found.extend(iter_threads(target))
    except KshellError as error:
        problem = str(error)
        try:
            known = {task.address for task in found}
            more = [address for address in thread_addresses(target) if address not in known]
        except KshellError:
            if not found:
                raise error from None
            return found, f"{problem}; these are the tasks before the damage"
        try:
            found.extend(read_tasks(target, more))
        except KshellError as lost:
            problem += f"; {lost}"
        return found, f"{problem}; the table of process ids has {len(more)} more tasks, shown too"
    return found, ""
