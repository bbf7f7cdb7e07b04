"""Workqueues: which there are, the pools of workers behind them, and the works that run or wait.

Kernel source: kernel/workqueue.c, kernel/workqueue_internal.h, include/linux/workqueue.h. A work that is queued is on
the list of a pool, of a worker that will run it next, or, when its queue may not run more at once, of the
``struct pool_workqueue`` that links the two. A delayed work is in none before its timer has expired.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import KshellError
from kshell.linux.kernel import require_kernel
from kshell.linux.lists import from_both_ends, member_offset
from kshell.linux.xarray import idr_for_each

if TYPE_CHECKING:
    from kshell.target.target import Target
    from kshell.value import Value

INT_MAX = (1 << 31) - 1
WORKER_IDLE = 1 << 2
#: a work's data is that of its pool_workqueue, aligned to 256 bytes or more, and flags; this one tells that it is
WORK_STRUCT_PWQ = 1 << 2
FLAGS = (
    (1 << 0, "bh"), (1 << 1, "unbound"), (1 << 2, "freezable"), (1 << 3, "mem_reclaim"), (1 << 4, "highpri"),
    (1 << 5, "cpu_intensive"), (1 << 6, "sysfs"), (1 << 7, "power_efficient"), (1 << 16, "draining"),
    (1 << 17, "ordered"))


class Queue(NamedTuple):
    """A ``struct workqueue_struct``.

    :ivar limit: how many of its works may run at once, on each CPU unless it is unbound; None: any number
    :ivar links: its ``pool_workqueue``s -> their pools
    :ivar rescuer: the ``task_struct`` of the thread that helps when memory is short; 0 for none
    """

    address: int
    name: str
    flags: int
    limit: int | None
    links: dict[int, int]
    rescuer: int


class Pool(NamedTuple):
    """A ``struct worker_pool``. ``cpu``: whose it is, -1 for those of unbound queues; ``nice``: of its workers."""

    address: int
    number: int
    cpu: int
    nice: int


class Worker(NamedTuple):
    """A ``struct worker``.

    :ivar task: its thread; 0 for those that run works in softirq context ("bh")
    :ivar work: what it runs, 0 when it runs none; the work may have been freed by its function
    :ivar function: of that work; ``link``: the ``pool_workqueue`` it came from
    :ivar description: what it ran last: the name of the queue, or what the function has called it
    """

    address: int
    task: int
    number: int
    pool: Pool
    idle: bool
    work: int
    function: int
    link: int
    description: str


class Work(NamedTuple):
    """A work that runs ("running"), or waits: for a worker ("pending"), as the next of one ("next"), or for others of
    its queue to end ("inactive").

    :ivar queue: None when what links it to one is not known
    """

    address: int
    state: str
    function: int
    queue: Queue | None
    pool: Pool | None
    worker: Worker | None


class Workqueues:
    """The workqueues of one target, read once.

    :ivar unread: why queues, pools, workers or lists of works could not be read; the others are told all the same
    :raises KshellError: from every attribute: they cannot be found
    """

    def __init__(self, target: Target) -> None:
        require_kernel(target)
        self.target = target
        self.unread: list[KshellError] = []

    def _listed(self, kind: str, head: int, member: str) -> list[Value]:
        """Return the structures on a list, as far as it can be followed from its two ends."""
        before, behind, damage = from_both_ends(self.target.kernel, head)
        if damage is not None:
            self.unread.append(damage)
        offset, whole = member_offset(self.target.type(kind), member), self.target.type(kind)
        return [self.target.value(whole, node - offset) for node in dict.fromkeys(before + behind)]

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Keep an error of the block in ``unread`` and go on behind it."""
        try:
            yield
        except KshellError as error:
            self.unread.append(error)

    @cached_property
    def queues(self) -> list[Queue]:
        found = []
        for value in self._listed("struct workqueue_struct", self.target.address_of("workqueues"), "list"):
            with self._noting():
                found.append(self._queue(value))
        return found

    def _queue(self, value: Value) -> Queue:
        links: dict[int, int] = {}
        for link in self._listed("struct pool_workqueue", value["pwqs"].address or 0, "pwqs_node"):
            with self._noting():
                links[link.address or 0] = link.integer("pool")
        rescuer, limit = value.integer("rescuer"), value.integer("saved_max_active")
        return Queue(
            value.address, value["name"].string(), value.integer("flags"), limit if limit < INT_MAX else None,
            links, self.target.value("struct worker", rescuer).integer("task") if rescuer else 0)

    @cached_property
    def pools(self) -> dict[int, Pool]:
        """The pools by address."""
        found = {}
        with self._noting():
            for entry in idr_for_each(self.target, self.target.address_of("worker_pool_idr")):
                with self._noting():
                    value = self.target.value("struct worker_pool", entry.entry)
                    found[entry.entry] = Pool(
                        entry.entry, value.integer("id"), value.integer("cpu"), value["attrs"].deref().integer("nice"))
        return found

    @cached_property
    def workers(self) -> list[Worker]:
        """The workers of all pools; a rescuer is one while it works for a pool."""
        found = []
        for pool in self.pools.values():
            head = self.target.value("struct worker_pool", pool.address)["workers"].address
            for value in self._listed("struct worker", head or 0, "node"):
                with self._noting():
                    found.append(Worker(
                        value.address or 0, value.integer("task"), value.integer("id"), pool,
                        bool(value.integer("flags") & WORKER_IDLE), value.integer("current_work"),
                        value.integer("current_func"), value.integer("current_pwq"), value["desc"].string()))
        return found

    @cached_property
    def links(self) -> dict[int, Queue]:
        """The queue of each ``pool_workqueue``."""
        return {link: queue for queue in self.queues for link in queue.links}

    def tasks(self, queue: Queue) -> list[int]:
        """Return the ``task_struct``s that run works of *queue*: the workers of its pools and its rescuer."""
        pools = set(queue.links.values())
        found = [*(worker.task for worker in self.workers if worker.pool.address in pools), queue.rescuer]
        return list(dict.fromkeys(task for task in found if task))

    def every_task(self) -> list[int]:
        """Return the ``task_struct``s of all workers and rescuers."""
        found = [*(worker.task for worker in self.workers), *(queue.rescuer for queue in self.queues)]
        return list(dict.fromkeys(task for task in found if task))

    def works(self) -> Iterator[Work]:
        """Yield what runs and waits: what workers have, what the pools have, and what may not run yet."""
        for worker in self.workers:
            if worker.work:
                yield Work(
                    worker.work, "running", worker.function, self.links.get(worker.link), worker.pool, worker)
            head = self.target.value("struct worker", worker.address)["scheduled"].address
            yield from self._works(head, "next", worker.pool, worker)
        for pool in self.pools.values():
            head = self.target.value("struct worker_pool", pool.address)["worklist"].address
            yield from self._works(head, "pending", pool, None)
        for queue in self.queues:
            for link, pool_address in queue.links.items():
                value = self.target.value("struct pool_workqueue", link)
                # Since 5.15 (f97a4a1a3f87 "workqueue: Rename "delayed" (delayed by active management) to "inactive"")
                waiting = value["inactive_works"] if value.has("inactive_works") else value["delayed_works"]
                yield from self._works(waiting.address, "inactive", self.pools.get(pool_address), None)

    def _works(self, head: int | None, state: str, pool: Pool | None, worker: Worker | None) -> Iterator[Work]:
        for value in self._listed("struct work_struct", head or 0, "entry"):
            with self._noting():
                queue = self._queue_of(value.integer("data.counter") % (1 << 64))
                yield Work(value.address or 0, state, value.integer("func"), queue, pool, worker)

    def _queue_of(self, data: int) -> Queue | None:
        """Return the queue that a work's *data* tells. How many of its bits are flags depends on the kernel."""
        if not data & WORK_STRUCT_PWQ:
            return None
        places = (data >> bits << bits for bits in (8, 9, 10))
        return next((self.links[place] for place in places if place in self.links), None)


def flag_names(flags: int) -> str:
    """Return the names of a queue's WQ_* flags, "unbound,mem_reclaim"."""
    return ",".join(name for bit, name in FLAGS if flags & bit)
