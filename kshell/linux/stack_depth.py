"""How deep kernel stacks are and have been, and whether they have overflowed.

Kernel source: ``set_task_stack_end_magic`` in kernel/fork.c, ``end_of_stack`` and ``stack_not_used`` in
include/linux/sched/task_stack.h (kernel/exit.c since 6.13). A stack is zeroed before a task gets it, so the lowest
word that is not zero tells how deep it has been; the lowest of all holds a magic, which an overflow destroys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import Fault, KshellError
from kshell.linux.cpus import cpu_states, thread_size
from kshell.linux.stack import STACK_END_MAGIC
from kshell.linux.tasks import task_type
from kshell.value import Vector

if TYPE_CHECKING:
    from kshell.target.target import Target

WORD = 8
#: bytes at the end of a stack that nobody uses who does not overflow it: the next call goes into the guard page
NEAR = 256
#: stacks that are held at once
CHUNK = 256


class Depth(NamedTuple):
    """The kernel stack of a task; sizes in bytes.

    :ivar base: its lowest address, 0 when the task has none any more
    :ivar current: in use now; None when the stack pointer is not known, or not on this stack
    :ivar deepest: that were ever in use; None, or the reason, when that cannot be told
    :ivar magic: the word at its end; STACK_END_MAGIC, unless something wrote over it
    """

    task: int
    base: int
    size: int
    current: int | None
    deepest: int | KshellError | None
    magic: int | None

    @property
    def intact(self) -> bool | None:
        """Whether the end of the stack was never written over; None when it cannot be told."""
        return None if self.magic is None else self.magic == STACK_END_MAGIC

    @property
    def overflowed(self) -> bool:
        """Whether the stack was used up: its end was written over, or next to nothing was ever left above it."""
        full = isinstance(self.deepest, int) and self.deepest > self.size - NEAR
        return self.intact is False or full


def depths(target: Target, tasks: Sequence[int]) -> Iterator[Depth]:
    """Yield the depth of the stack of each of *tasks* (``task_struct`` addresses), in that order."""
    size = thread_size(target)
    running = {state.task: state.registers.get("rsp", 0) for state in cpu_states(target).values() if state.task}
    for first in range(0, len(tasks), CHUNK):
        part = list(tasks[first : first + CHUNK])
        bases, pointers = Vector(target, task_type(target), part).columns("stack", "thread.sp")
        known = [base if isinstance(base, int) else 0 for base in bases]
        for task, base, pointer, data in zip(part, bases, pointers, _contents(target, known, size), strict=True):
            if not isinstance(base, int):
                yield Depth(task, 0, size, None, base, None)
                continue
            if not base:
                yield Depth(task, 0, size, None, None, None)
                continue
            sp = running.get(task, pointer if isinstance(pointer, int) else 0)
            current = base + size - sp if base <= sp <= base + size else None
            if isinstance(data, Fault):
                yield Depth(task, base, size, current, data, None)
                continue
            magic = int.from_bytes(data[:4], "little")
            yield Depth(task, base, size, current, _deepest(data), magic)


def _contents(target: Target, bases: Sequence[int], size: int) -> Iterator[bytes | Fault]:
    """Yield the bytes of each stack, or why they cannot be read."""
    rows = target.kernel.read_many([base for base in bases if base], size)
    found = iter(rows)
    for base in bases:
        row = next(found) if base else b""
        if row is None:
            row, fault = target.kernel.read_upto(base, size)
            if fault is not None:
                yield fault
                continue
        yield row


def _deepest(data: bytes) -> int:
    """Return the bytes from the lowest word that is not zero, the magic aside, to the top of a stack."""
    used = data[WORD:].lstrip(b"\0")
    return -(-len(used) // WORD) * WORD
