"""Workqueues: which there are, the pools of workers behind them, and the works that run or wait.

Kernel source: kernel/workqueue.c, kernel/workqueue_internal.h, include/linux/workqueue.h. A work that is queued is on
the list of a pool, of a worker that will run it next, or, when its queue may not run more at once, of the
``struct pool_workqueue`` that links the two. A delayed work is in none before its timer has expired.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from kshell.linux.kernel import require_kernel
from kshell.linux.lists import list_for_each_entry
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

    :raises KshellError: from every attribute: they cannot be found, or a list is damaged
    """

    def __init__(self, target: Target) -> None:
        require_kernel(target)
        self.target = target

    @cached_property
    def queues(self) -> list[Queue]:
        head = self.target.address_of("workqueues")
        return [self._queue(value) for value in list_for_each_entry(
            self.target, "struct workqueue_struct", head, "list")]

    def _queue(self, value: Value) -> Queue:
        links = list_for_each_entry(self.target, "struct pool_workqueue", value["pwqs"].address, "pwqs_node")
        rescuer, limit = value.integer("rescuer"), value.integer("saved_max_active")
        return Queue(
            value.address, value["name"].string(), value.integer("flags"), limit if limit < INT_MAX else None,
            {link.address: link.integer("pool") for link in links},
            self.target.value("struct worker", rescuer).integer("task") if rescuer else 0)

    @cached_property
    def pools(self) -> dict[int, Pool]:
        """The pools by address."""
        found = {}
        for entry in idr_for_each(self.target, self.target.address_of("worker_pool_idr")):
            value = self.target.value("struct worker_pool", entry.entry)
            found[value.address] = Pool(
                value.address, value.integer("id"), value.integer("cpu"), value["attrs"].deref().integer("nice"))
        return found

    @cached_property
    def workers(self) -> list[Worker]:
        """The workers of all pools; a rescuer is one while it works for a pool."""
        found = []
        for pool in self.pools.values():
            head = self.target.value("struct worker_pool", pool.address)["workers"].address
            for value in list_for_each_entry(self.target, "struct worker", head, "node"):
                found.append(Worker(
                    value.address, value.integer("task"), value.integer("id"), pool,
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
            yield from self._listed(head, "next", worker.pool, worker)
        for pool in self.pools.values():
            head = self.target.value("struct worker_pool", pool.address)["worklist"].address
            yield from self._listed(head, "pending", pool, None)
        for queue in self.queues:
            for link, pool_address in queue.links.items():
                value = self.target.value("struct pool_workqueue", link)
                # Since 5.15 (f97a4a1a3f87 "workqueue: Rename "delayed" (delayed by active management) to "inactive"")
                waiting = value["inactive_works"] if value.has("inactive_works") else value["delayed_works"]
                yield from self._listed(waiting.address, "inactive", self.pools.get(pool_address), None)

    def _listed(self, head: int, state: str, pool: Pool | None, worker: Worker | None) -> Iterator[Work]:
        for value in list_for_each_entry(self.target, "struct work_struct", head, "entry"):
            queue = self._queue_of(value.integer("data.counter") % (1 << 64))
            yield Work(value.address, state, value.integer("func"), queue, pool, worker)

    def _queue_of(self, data: int) -> Queue | None:
        """Return the queue that a work's *data* tells. How many of its bits are flags depends on the kernel."""
        if not data & WORK_STRUCT_PWQ:
            return None
        places = (data >> bits << bits for bits in (8, 9, 10))
        return next((self.links[place] for place in places if place in self.links), None)


def flag_names(flags: int) -> str:
    """Return the names of a queue's WQ_* flags, "unbound,mem_reclaim"."""
    return ",".join(name for bit, name in FLAGS if flags & bit)
