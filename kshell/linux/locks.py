"""Who waits for which lock, and who holds it: mutexes, rw_semaphores, semaphores, completions, rt_mutexes.

Kernel source: kernel/locking/{mutex,rwsem,semaphore,rtmutex}.c, kernel/sched/completion.c and their headers. A task
that waits for a lock has a *waiter* on its own stack, in the frame of the slow path, linked into the lock's list:
the waiter is found there by the task it names, the lock by following that list to the one node that is no waiter.
Nothing in the ``task_struct`` tells (but for rt_mutexes) on kernels as distributions build them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import Fault, FormatError, KshellError
from kshell.linux.blocked import waits_for
from kshell.linux.cpus import thread_size
from kshell.linux.lists import chase, member_offset
from kshell.linux.stacks import Stack, function, stacks
from kshell.linux.tasks import Task, iter_threads, so_far, task_type
from kshell.types.model import StructType
from kshell.unwind.model import Frame
from kshell.value import Vector

if TYPE_CHECKING:
    from kshell.target.target import Target

#: more waiters for one lock than this are damage
MAX_WAITERS = 1 << 16
#: bits of the words that hold an owner: flags of a mutex; of an rw_semaphore: bit 0 readers own it
WORD = (1 << 64) - 1
OWNER, READER_OWNED = WORD - 7, 1
READER_SHIFT = 8  # RWSEM_READER_SHIFT, since 5.3 (64489e78004c)
#: the functions that only wait and lock, below the one that wanted the lock
MACHINERY = re.compile(
    r"__schedule|schedule|preempt_schedule|__?mutex_lock|mutex_lock|ww_mutex_lock|__ww_mutex|_?_?down(_|$)|rwsem_|"
    r"_?_?_?down_common|(__)?wait_for_c|do_wait_for_common|(__)?rt_mutex|rt_mutex|rtlock|io_schedule|percpu_(rwsem|down)|"
    r"finish_task_switch|__switch_to")


class Shape(NamedTuple):
    """A kind of waiter and its lock, as types and members name them.

    :ivar slow: matches the functions in whose frames the waiter is
    """

    kind: str
    slow: re.Pattern[str]
    waiter: str
    node: str
    lock: str
    head: str


SHAPES = (
    Shape("mutex", re.compile(r"__(ww_)?mutex_lock"), "struct mutex_waiter", "list", "struct mutex", "wait_list"),
    Shape("rwsem", re.compile(r"rwsem_down_(read|write)"), "struct rwsem_waiter", "list", "struct rw_semaphore",
          "wait_list"),
    Shape("semaphore", re.compile(r"_*down(_|$)"), "struct semaphore_waiter", "list", "struct semaphore", "wait_list"),
    Shape("completion", re.compile(r"(__|do_)?wait_for_co"), "struct swait_queue", "task_list", "struct completion",
          "wait.task_list"),
)


class Lock(NamedTuple):
    """A lock that is waited for.

    :ivar kind: "mutex", "rwsem", "semaphore", "completion", "rt_mutex"
    :ivar owner: the ``task_struct`` that holds it, 0 when nobody or nobody known does
    :ivar readers: how many hold an rw_semaphore for reading; 0 for other locks
    :ivar note: what else is known: "held by 2 readers", "count 0", or what is odd about the owner
    """

    kind: str
    address: int
    owner: int
    readers: int
    note: str


class Wait(NamedTuple):
    """One task that waits for a lock.

    :ivar lock: None when the lock was not found; ``problem`` says why
    :ivar wants: "read" or "write" for an rw_semaphore, else ""
    :ivar caller: the frame that wanted the lock; ``waiter``: the address of the waiter on the stack, 0: not found
    """

    task: Task
    lock: Lock | None
    kind: str
    wants: str
    caller: Frame | None
    waiter: int
    problem: str


def blocked_tasks(target: Target, every: bool = False) -> Iterator[Task]:
    """Yield the threads that may wait for a lock: those in state D, with *every* all that sleep.

    :raises KshellError: as :func:`kshell.linux.tasks.iter_threads`; what could be read comes first
    """
    states = "DSI" if every else "D"
    return (task for task in iter_threads(target) if task.state in states)


def waits(
    target: Target, tasks: Iterable[Task] | None = None, everybody: Sequence[Task] | None = None,
) -> Iterator[Wait]:
    """Yield what each of *tasks* waits for, of all in state D when they are not given; those that wait for no lock not.

    :param everybody: all threads, where the caller has them: who may hold a lock

    :raises KshellError: the tasks cannot be listed; damage of a stack or a list is told by the :class:`Wait`
    """
    chosen = list(blocked_tasks(target) if tasks is None else tasks)
    if not chosen:
        return
    finder = _Finder(target, everybody)
    for task, stack in zip(chosen, stacks(target, [task.address for task in chosen]), strict=True):
        found = finder.wait(task, stack)
        if found is not None:
            yield found


class _Finder:
    """Finds waiters and locks of one target; remembers the locks, which many tasks wait for."""

    def __init__(self, target: Target, everybody: Sequence[Task] | None = None) -> None:
        self.target, self._everybody = target, everybody
        self._size = thread_size(target)
        self._known: dict[int, int] | None = None
        self._locks: dict[tuple[str, int], Lock] = {}
        self._heads: dict[int, int] = {}
        self._pi = task_type(target).has("pi_blocked_on")

    @property
    def known(self) -> dict[int, int]:
        """Every task there is, and where its stack begins."""
        if self._known is None:
            threads = so_far(iter_threads(self.target))[0] if self._everybody is None else self._everybody
            every = [task.address for task in threads]
            bases = Vector(self.target, task_type(self.target), every).column("stack")
            self._known = {
                task: base for task, base in zip(every, bases, strict=True) if not isinstance(base, Fault)}
        return self._known

    def wait(self, task: Task, stack: Stack) -> Wait | None:
        names = [function(self.target, frame) for frame in stack.frames]
        caller = next((frame for frame, name in zip(stack.frames, names, strict=True)
                       if name and not MACHINERY.match(name)), None)
        for number, name in enumerate(names[:-1]):
            for shape in SHAPES:
                if shape.slow.match(name):
                    wants = "read" if "down_read" in name else "write" if "down_write" in name else ""
                    return self._found(task, shape, stack, number, wants, caller)
        if waits_for(names) == "RTMUTEX" and self._pi:
            return self._rt_mutex(task, caller)
        return None

    def _found(
        self, task: Task, shape: Shape, stack: Stack, number: int, wants: str, caller: Frame | None,
    ) -> Wait:
        wait = Wait(task, None, shape.kind, wants, caller, 0, "")
        try:
            # the frame of the slow path; behind one that is not sure, anywhere further on
            low, high = stack.frames[number].sp, stack.frames[number + 1].sp
            if not stack.frames[number + 1].reliable:
                low, high = stack.frames[0].sp, self.known.get(task.address, 0) + self._size
            waiter = self._waiter(task, shape, low, high)
            lock = self._lock(shape, waiter)
        except KshellError as error:
            return wait._replace(problem=str(error))
        return wait._replace(lock=lock, waiter=waiter)

    def _waiter(self, task: Task, shape: Shape, low: int, high: int) -> int:
        """Return the waiter that is between two places of a stack: it names its task, and is linked into a list."""
        kind = self.target.type(shape.waiter)
        offset, node = member_offset(kind, "task"), member_offset(kind, shape.node)
        data = self.target.kernel.read(low, min(max(high - low, 0), self._size) & ~7)
        words = struct.unpack(f"<{len(data) // 8}Q", data)
        at = -1
        while task.address in words[at + 1 :]:
            at = words.index(task.address, at + 1)
            waiter = low + at * 8 - offset
            if waiter >= low and self._is_linked(waiter + node):
                return waiter
        raise FormatError(f"no {shape.waiter.removeprefix('struct ')} on its stack")

    def _is_linked(self, node: int) -> bool:
        """Whether the node of a list is its successor's predecessor and its predecessor's successor."""
        try:
            successor, predecessor = struct.unpack("<2Q", self.target.kernel.read(node, 16))
            back = self.target.kernel.read(successor + 8, 8) + self.target.kernel.read(predecessor, 8)
        except KshellError:
            return False
        return struct.unpack("<2Q", back) == (node, node) and successor != node

    def _lock(self, shape: Shape, waiter: int) -> Lock:
        """Return the lock in whose list *waiter* is."""
        kind = self.target.type(shape.waiter)
        first = waiter + member_offset(kind, shape.node)
        shift = member_offset(kind, "task") - member_offset(kind, shape.node)
        if first not in self._heads:
            ring = [first, *chase(self.target.kernel, first, 0, MAX_WAITERS)]
            heads = [node for node in ring if not self._is_waiter(node, shift)]
            if len(heads) != 1:
                raise FormatError(f"the list of waiters at 0x{first:x} has {len(heads)} heads: it is damaged")
            self._heads |= dict.fromkeys(ring, heads[0])
        address = self._heads[first] - member_offset(self.target.type(shape.lock), shape.head)
        if (shape.kind, address) not in self._locks:
            self._locks[shape.kind, address] = self._read(shape.kind, address)
        return self._locks[shape.kind, address]

    def _is_waiter(self, node: int, shift: int) -> bool:
        """Whether a node is on the stack of the task that it names."""
        task = int.from_bytes(self.target.kernel.read(node + shift, 8), "little")
        base = self.known.get(task)
        return base is not None and base <= node < base + self._size

    def _read(self, kind: str, address: int) -> Lock:
        if kind == "mutex":
            owner = self.target.value("struct mutex", address).integer("owner.counter") & OWNER
            return Lock(kind, address, *self._owned(owner))
        if kind == "rwsem":
            value = self.target.value("struct rw_semaphore", address)
            word = value.integer("owner.counter") & WORD
            if word & READER_OWNED:
                readers = value.integer("count.counter") >> READER_SHIFT & 0xFFFF_FFFF
                hint = f", the last of them 0x{word & OWNER:x}" if word & OWNER in self.known else ""
                return Lock(kind, address, 0, readers, f"held by {readers} readers{hint}")
            return Lock(kind, address, *self._owned(word & OWNER))
        if kind == "semaphore":
            count = self.target.value("struct semaphore", address).integer("count")
            return Lock(kind, address, 0, 0, f"count {count}, a semaphore has no owner")
        done = self.target.value("struct completion", address).integer("done")
        return Lock(kind, address, 0, 0, "nobody has completed it" if not done else f"done {done}")

    def _owned(self, owner: int) -> tuple[int, int, str]:
        if not owner:
            return 0, 0, "held by nobody: it was just released"
        if owner not in self.known:
            return 0, 0, f"its owner 0x{owner:x} is no task: it has exited, or the lock is damaged"
        return owner, 0, ""

    def _rt_mutex(self, task: Task, caller: Frame | None) -> Wait | None:
        """Return what a task waits for that is blocked on an rt_mutex: its ``pi_blocked_on`` tells."""
        try:
            pointer = self.target.value(task_type(self.target), task.address).integer("pi_blocked_on")
            if not pointer:
                return None
            address = self.target.value("struct rt_mutex_waiter", pointer).integer("lock")
            # Since 5.15 (830e6acc8a1c "locking/rtmutex: Split out the inner parts of 'struct rtmutex'")
            base = self.target.types.get("struct rt_mutex_base")
            name = "struct rt_mutex_base" if base is not None and isinstance(base.strip(), StructType) else (
                "struct rt_mutex")
            owner = self.target.value(name, address).integer("owner") & ~1
            return Wait(task, Lock("rt_mutex", address, *self._owned(owner)), "rt_mutex", "", caller, pointer, "")
        except KshellError as error:
            return Wait(task, None, "rt_mutex", "", caller, 0, str(error))


def deadlocks(found: Sequence[Wait]) -> list[list[Wait]]:
    """Return the circles of tasks that wait for each other: each waits for a lock that the next one holds.

    A task waits for one lock at a time, so every task is on one circle at most; each is given once.
    """
    by_task = {wait.task.address: wait for wait in found if wait.lock is not None and wait.lock.owner}
    circles: list[list[Wait]] = []
    settled: set[int] = set()
    for start in by_task:
        line: dict[int, Wait] = {}
        task = start
        while task in by_task and task not in line and task not in settled:
            line[task] = by_task[task]
            lock = by_task[task].lock
            assert lock is not None
            task = lock.owner
        if task in line:
            every = list(line)
            circles.append([line[one] for one in every[every.index(task):]])
        settled |= line.keys()
    return circles
