"""``init_task`` by its shape in the kernel image, for a kernel whose symbols do not tell where it is.

The first task's name is "swapper/0" ("swapper" without SMP): include/linux/init_task.h, init/init_task.c, init_idle()
in kernel/sched/core.c. The types tell where in a task_struct the name is, and all else that is checked.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kshell.errors import FormatError, KshellError
from kshell.memory.model import Memory
from kshell.target.image import find_image, image_bytes
from kshell.target.space import AddressSpace
from kshell.types.model import StructType

if TYPE_CHECKING:
    from kshell.target.target import Target

COMM = re.compile(rb"swapper(?:/0)?\0")
ALIGNED = 8
HALF = 1 << 63


def find_init_task(target: Target) -> tuple[int, str]:
    """Return the address of ``init_task``, and how it was found in words.

    :raises FormatError: no place in the image has its shape, or several have
    :raises KshellError: the types or page tables that are needed for it are not there
    """
    space = target.kernel
    if not isinstance(space, AddressSpace):
        raise FormatError("the kernel image can be looked through by page tables only")
    task = target.type("struct task_struct").strip()
    if not isinstance(task, StructType):
        raise FormatError("struct task_struct is no structure")
    found = list(_tasks(space, task))
    if len(found) != 1:
        places = ", ".join(f"0x{at:x}" for at in found[:4])
        raise FormatError(f"{len(found)} places in the kernel image look like it: {places}" if found
                          else "no place in the kernel image has the shape of swapper/0's task_struct")
    return found[0], "the one task_struct of swapper/0 in the image"


def _tasks(space: AddressSpace, task: StructType) -> Iterator[int]:
    comm = task.member("comm").offset
    for run in image_bytes(space, find_image(space)):
        for hit in COMM.finditer(run.data):
            at = run.start + hit.start() - comm
            if at % ALIGNED == 0 and _is_first(space, task, at):
                yield at


def _is_first(space: AddressSpace, task: StructType, at: int) -> bool:
    """Whether the first task is at *at*: it is its own parent and leader, and the list of all tasks leads back."""
    tasks = at + task.member("tasks").offset
    try:
        if any(space.u32(at + task.member(name).offset) for name in ("pid", "tgid")):
            return False
        if any(space.u64(at + task.member(name).offset) != at for name in ("real_parent", "group_leader")):
            return False
        return is_linked(space, tasks)
    except KshellError:
        return False


def is_linked(space: Memory, head: int) -> bool:
    """Whether a list_head is at *head* that its neighbours, which are others, lead back to.

    :raises Fault: it cannot be read
    """
    following, previous = struct.unpack("<QQ", space.read(head, 16))
    if head in (following, previous) or not (following & previous & HALF):
        return False
    return space.u64(following + 8) == head and space.u64(previous) == head
