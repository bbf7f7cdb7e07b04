"""Wait queues: the tasks that sleep until an event.

Kernel source: include/linux/wait.h, kernel/sched/wait.c, fs/select.c (``struct poll_wqueues``). What an entry's
``private`` is depends on its function: the task for those that wake one, the ``poll_wqueues`` for poll() and select().
Entries of other functions (epoll, io_uring, irqfd) call something else and belong to no task.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kshell.errors import KshellError
from kshell.linux.kernel import require_kernel
from kshell.linux.lists import chase, member_offset
from kshell.linux.task_stacks import every_task

if TYPE_CHECKING:
    from kshell.target.target import Target

ENTRY = "struct wait_queue_entry"
#: more entries than this are damage
MAX_ENTRIES = 1 << 20
#: the function of entries of poll() and select(), whose private leads to the task by a structure
POLL = "pollwake"


def waiting_tasks(target: Target, queue: int) -> Iterator[int]:
    """Yield the ``task_struct`` of each task in the ``struct wait_queue_head`` at *queue*, in its order.

    :raises KshellError: there is no wait queue: its list cannot be followed
    """
    require_kernel(target)
    kind, head = target.type(ENTRY), target.type("struct wait_queue_head")
    at = member_offset(kind, "entry")
    nodes = chase(target.kernel, queue + member_offset(head, "head"), 0, MAX_ENTRIES)
    if not nodes and target.value(head, queue)["head"].integer("next") == 0:
        raise KshellError(f"no wait queue at 0x{queue:x}: the head of its list is 0, it was never initialized")
    known = set(every_task(target))
    for node in nodes:
        entry = target.value(kind, node - at)
        owner, function = entry.integer("private"), entry.integer("func")
        found = target.symbolize(function) if function else None
        if found is not None and found[0].name == POLL:
            owner = target.value("struct poll_wqueues", owner).integer("polling_task")
        if owner in known:
            yield owner
