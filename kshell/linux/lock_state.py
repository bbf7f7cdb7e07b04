"""One mutex or rw_semaphore: who holds it, its flags, and who waits.

Kernel source: kernel/locking/mutex.c (``MUTEX_FLAG_*``), kernel/locking/rwsem.c (``RWSEM_*``). With PREEMPT_RT both are
rt_mutexes inside, and are not read here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError
from kshell.linux.kernel import require_kernel
from kshell.linux.lists import chase, member_offset
from kshell.linux.locks import MAX_WAITERS, OWNER, READER_OWNED, WORD
from kshell.linux.slub import has_member
from kshell.linux.tasks import Task, read_task

if TYPE_CHECKING:
    from kshell.target.target import Target

MUTEX_FLAGS = ((1, "waiters"), (2, "handoff"), (4, "pickup"))
#: bits of the count of an rw_semaphore since 5.3 (94a9717b3c40 "locking/rwsem: Make rwsem->owner an atomic_long_t")
RWSEM_FLAGS = ((1, "write locked"), (2, "waiters"), (4, "handoff"), (1 << 63, "too many readers"))
READERS_SHIFT, READERS_MASK = 8, (1 << 55) - 1
NONSPINNABLE = ((2, "nonspinnable"),)


class State(NamedTuple):
    """How a lock is.

    :ivar held: "free", "held", of an rw_semaphore "write" or "read"
    :ivar owner: the ``task_struct`` in its word, 0 for none; of one held for reading the last reader, as a hint
    :ivar task: the owner, when it can be read
    :ivar readers: how many hold it for reading
    :ivar waiters: each one's ``task_struct``, in the order of the list
    """

    held: str
    owner: int
    task: Task | KshellError | None
    readers: int
    flags: str
    waiters: list[int]


def mutex_state(target: Target, address: int) -> State:
    """Return how the ``struct mutex`` at *address* is.

    :raises KshellError: it cannot be read, its list of waiters is damaged, or the kernel's mutexes are rt_mutexes
    """
    require_kernel(target)
    kind = target.type("struct mutex")
    _require(kind, "struct mutex")
    word = target.value(kind, address).integer("owner.counter") & WORD
    owner = word & OWNER
    waiters = _waiters(target, address + member_offset(kind, "wait_list"), "struct mutex_waiter")
    return State("held" if owner else "free", owner, _task(target, owner), 0, _words(word, MUTEX_FLAGS), waiters)


def rwsem_state(target: Target, address: int) -> State:
    """Return how the ``struct rw_semaphore`` at *address* is.

    :raises KshellError: as :func:`mutex_state`
    """
    require_kernel(target)
    kind = target.type("struct rw_semaphore")
    _require(kind, "struct rw_semaphore")
    value = target.value(kind, address)
    count, word = value.integer("count.counter") & WORD, value.integer("owner.counter") & WORD
    readers, owner = count >> READERS_SHIFT & READERS_MASK, word & OWNER
    held = "write" if count & 1 else "read" if readers else "free"
    if held == "free" or (held == "read" and not word & READER_OWNED):
        owner = 0  # left behind by one that held it before
    flags = ",".join(filter(None, (_words(count, RWSEM_FLAGS[1:]), _words(word, NONSPINNABLE))))
    waiters = _waiters(target, address + member_offset(kind, "wait_list"), "struct rwsem_waiter")
    return State(held, owner, _task(target, owner), readers if held == "read" else 0, flags, waiters)


def _require(kind: object, name: str) -> None:
    if not has_member(kind, "wait_list") or not has_member(kind, "owner"):  # type: ignore[arg-type]
        raise KshellError(f"{name} has no list of waiters in this kernel: with PREEMPT_RT it is an rt_mutex",
                          hint="::locks shows who waits for rt_mutexes")


def _waiters(target: Target, head: int, type: str) -> list[int]:
    kind = target.type(type)
    shift = member_offset(kind, "task") - member_offset(kind, "list")
    nodes = chase(target.kernel, head, 0, MAX_WAITERS)
    return [int.from_bytes(target.kernel.read(node + shift, 8), "little") for node in nodes]


def _task(target: Target, address: int) -> Task | KshellError | None:
    if not address:
        return None
    try:
        return read_task(target, address)
    except KshellError as error:
        return error


def _words(value: int, names: tuple[tuple[int, str], ...]) -> str:
    return ",".join(name for bit, name in names if value & bit)
