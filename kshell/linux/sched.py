"""Run queues: which task each CPU runs, and which wait for it, by scheduling class.

Kernel source: ``struct rq`` in kernel/sched/sched.h, kernel/sched/{fair,rt,deadline}.c. A task that runs is left out of
no queue: the one on the CPU is in its class's queue too, except for the fair class's tree.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError
from kshell.linux.kernel import require_kernel
from kshell.linux.lists import list_for_each, member_offset
from kshell.linux.rbtree import rbtree_for_each
from kshell.linux.tasks import task_type

if TYPE_CHECKING:
    from kshell.target.target import Target
    from kshell.value import Value

#: MAX_RT_PRIO
RT_PRIORITIES = 100
#: more tasks on one run queue than there can be pids is damage; the walks find loops by themselves
LIMIT = 1 << 22


class Queued(NamedTuple):
    """A task on a run queue. ``queue``: "stop", "dl", "rt" or "cfs"; ``address``: its ``task_struct``."""

    queue: str
    address: int


class RunQueue(NamedTuple):
    """The run queue of one CPU.

    :ivar address: of its ``struct rq``
    :ivar current: the ``task_struct`` on the CPU; ``idle``: its idle task
    :ivar running: how many tasks are runnable, the current one included
    :ivar clock: nanoseconds on the scheduler's clock when it was last updated
    :ivar queued: in the order in which the classes are asked: stop, deadline, real time, fair
    :ivar damage: what could not be followed
    """

    cpu: int
    address: int
    current: int
    idle: int
    running: int
    switches: int
    clock: int
    queued: tuple[Queued, ...]
    damage: tuple[KshellError, ...]


def run_queues(target: Target) -> Iterator[RunQueue]:
    """Yield the run queue of each online CPU.

    :raises KshellError: the run queues cannot be found
    """
    require_kernel(target)
    kind = target.type("struct rq")
    base = target.symbol("runqueues").address
    for cpu in target.cpu_numbers("online"):
        value = target.value(kind, (base + target.percpu_base(cpu)) % (1 << 64))
        damage: list[KshellError] = []
        queued: list[Queued] = []
        for name, walk in (("stop", _stop), ("dl", _deadline), ("rt", _real_time), ("cfs", _fair)):
            try:
                queued += [Queued(name, address) for address in walk(target, value)]
            except KshellError as error:
                damage.append(error)
        yield RunQueue(
            cpu, value.address, value.integer("curr"), value.integer("idle"), value.integer("nr_running"),
            value.integer("nr_switches"), value.integer("clock"), tuple(queued), tuple(damage))


def _stop(target: Target, rq: Value) -> Iterator[int]:
    """Yield the task of the stop class, the CPU's migration thread, when it is runnable; it is in no list."""
    address = rq.integer("stop") if rq.has("stop") else 0
    if address and target.value(task_type(target), address).integer("on_rq"):
        yield address


def _fair(target: Target, rq: Value) -> Iterator[int]:
    """Yield the tasks of the fair class that are runnable, of all groups: ``rq->cfs_tasks``."""
    offset = member_offset(task_type(target), "se.group_node")
    for node in list_for_each(target, rq["cfs_tasks"].address):
        yield node - offset


def _real_time(target: Target, rq: Value) -> Iterator[int]:
    """Yield the tasks of the real-time classes, the highest priority first."""
    queues = rq["rt.active.queue"].address
    offset = member_offset(task_type(target), "rt.run_list")
    # with CONFIG_RT_GROUP_SCHED an entity may stand for a group, whose my_q is its own queue
    group = target.type("struct sched_rt_entity")
    entity = member_offset(task_type(target), "rt")
    heads = struct.unpack(f"<{RT_PRIORITIES * 2}Q", target.kernel.read(queues, RT_PRIORITIES * 16))
    for priority in range(RT_PRIORITIES):
        head = queues + priority * 16
        if heads[priority * 2] in (0, head):
            continue
        for node in list_for_each(target, head):
            address = node - offset
            one = target.value(group, address + entity)
            if not (one.has("my_q") and one.integer("my_q")):
                yield address


def _deadline(target: Target, rq: Value) -> Iterator[int]:
    """Yield the tasks of the deadline class, the earliest deadline first."""
    offset = member_offset(task_type(target), "dl.rb_node")
    root = rq["dl.root.rb_root"] if rq.has("dl.root.rb_root") else rq["dl.rb_root"]  # cached since 4.14 (2161573ecd69)
    for node in rbtree_for_each(target, root.address, LIMIT):
        yield node - offset


def load_averages(target: Target) -> tuple[float, float, float]:
    """Return the load averages of 1, 5 and 15 minutes: ``avenrun``.

    :raises KshellError: they cannot be found or read
    """
    require_kernel(target)
    words = struct.unpack("<3Q", target.kernel.read(target.address_of("avenrun"), 24))
    first, second, third = ((word + 10) / 2048 for word in words)  # FIXED_1/200 is added, FSHIFT is 11
    return first, second, third
