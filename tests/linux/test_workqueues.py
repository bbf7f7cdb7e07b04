"""Workqueues beside the tasks that call themselves workers, and the names that /proc gives those."""

from __future__ import annotations

import re

import pytest

from kshell.linux import stacks, tasks
from kshell.linux.workqueues import Pool, Worker, Workqueues
from kshell.target.open import open_target
from tests.commands.asking import ask
from tests.guest.fixtures import have
from tests.guest.spec import named_spec

pytestmark = pytest.mark.guest
PF_WQ_WORKER = 0x20
WORK_STRUCT_PENDING = 1


def worker_names(worker: Worker, pool: Pool) -> set[str]:
    """Return what the kernel may have named a worker's thread when it was created."""
    high = "H" if pool.nice < 0 else ""
    return {f"kworker/{pool.cpu}:{worker.number}{high}"} if pool.cpu >= 0 else {
        f"kworker/u{cpus}:{worker.number}" for cpus in range(1, 64)}


@pytest.mark.parametrize("name", ["6.1", "6.12", "5.10", "softlockup"])
def test_workers_are_the_tasks_that_say_they_are(name: str) -> None:
    image = have(named_spec(name))
    with open_target(str(image.elf)) as target:
        known = Workqueues(target)
        every = {task.address: task for task in tasks.iter_threads(target)}
        said = {address for address in every if tasks.task_value(target, address).integer("flags") & PF_WQ_WORKER}
        assert set(known.every_task()) == said and len(said) > 10
        for worker in known.workers:
            if not worker.task:  # in softirq context
                continue
            task = every[worker.task]
            assert task.comm in worker_names(worker, worker.pool) or task.comm.startswith("kworker/R-")
        workers = [worker.task for worker in known.workers if worker.task]
        busy = {task for task, stack in zip(workers, stacks.stacks(target, workers), strict=True)
                if "process_one_work" in {stacks.function(target, frame) for frame in stack.frames}}
        assert busy == {worker.task for worker in known.workers if worker.task and worker.work}
        rescuers = {queue.name: every[queue.rescuer].comm for queue in known.queues if queue.rescuer}
        assert rescuers
        # a task's name has 15 characters; "kworker/R-" before it since 6.8
        assert all(queue.startswith(comm.removeprefix("kworker/R-")[:15]) for queue, comm in rescuers.items())


@pytest.mark.parametrize("name", ["6.1", "6.12", "5.10"])
def test_descriptions_are_those_of_proc(name: str) -> None:
    """/proc/PID/comm of a worker ends in "-" (idle) or "+" and the queue of its last work, which may be a later one."""
    image = have(named_spec(name))
    with open_target(str(image.elf)) as target:
        known = Workqueues(target)
        workers = {task.pid: worker for worker in known.workers if worker.task
                   for task in tasks.read_tasks(target, [worker.task])}
        alike = told = 0
        for pid in set(image.oracle.pids()) & set(workers):
            match = re.match(r"kworker/[^-+]+[-+](.+)", image.oracle.text(f"proc/{pid}/comm").strip())
            if match and workers[pid].description:
                told += 1
                alike += match[1] == workers[pid].description
        assert told >= 2 and alike >= told / 2


def test_works_wait_on_a_cpu_that_is_locked_up() -> None:
    with open_target(str(have(named_spec("softlockup")).elf)) as target:
        works = [work for work in Workqueues(target).works() if work.state == "pending"]
        assert works
        for work in works:
            found = target.symbolize(work.function)
            assert found is not None and found[1] == 0
            assert work.queue is not None and work.pool is not None and work.pool.address in work.queue.links.values()
            assert work.pool.cpu == 0  # where the poller runs
            assert target.value("struct work_struct", work.address).integer("data.counter") & WORK_STRUCT_PENDING
        table = ask(target, "::taskq_entry").splitlines()[1:]
        assert {int(row.split()[0], 16) for row in table} == {work.address for work in works}
        assert len(ask(target, "::taskq -a | ::walk taskq_entry").splitlines()) == len(works)
