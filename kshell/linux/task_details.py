"""More of tasks than :class:`~kshell.linux.tasks.Task` holds, in columns: CPU and times, memory, ids in namespaces.

Kernel source: ``struct sched_info`` and ``struct task_struct`` in include/linux/sched.h, ``cputime_adjust`` in
kernel/sched/cputime.c, ``get_mm_counter`` in include/linux/mm.h, ``struct upid`` in include/linux/pid.h.

Each function takes the addresses of ``task_struct``s and returns a row for each; where something cannot be read its
:class:`~kshell.errors.Fault` stands. All is read in bulk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kshell.errors import Fault, KshellError
from kshell.linux.lists import member_offset
from kshell.linux.tasks import task_type, thread_addresses
from kshell.types.model import StructType
from kshell.value import Vector

if TYPE_CHECKING:
    from kshell.target.target import Target

#: policy -> name, include/uapi/linux/sched.h
POLICIES = ("NORMAL", "FIFO", "RR", "BATCH", "4", "IDLE", "DEADLINE", "EXT")
#: SCHED_RESET_ON_FORK is kept in a bit of its own, but masked here should it ever be seen
POLICY_MASK = 0x3FFF_FFFF
PAGE_SHIFT = 12
#: a pid namespace is at most this deep: MAX_PID_NS_LEVEL
MAX_LEVEL = 32
#: (MM_FILEPAGES, MM_ANONPAGES, MM_SHMEMPAGES): what RSS counts; MM_SWAPENTS is 2
RSS_COUNTERS = (0, 1, 3)

Cell = int | Fault


class Placed(NamedTuple):
    """Where and how a task is scheduled.

    :ivar prio: the kernel's: 0-99 real time, 100-139 by nice, -1 deadline; ``nice``: static_prio - 120
    :ivar running: it is on a CPU now; ``queued``: it waits for one, or is on one
    """

    cpu: Cell
    prio: Cell
    nice: Cell
    policy: str
    running: bool
    queued: bool


class Times(NamedTuple):
    """Times of a task in nanoseconds.

    :ivar user: and ``system``: as /proc/PID/stat splits what it has run
    :ivar started: since boot, sleep included; ``last_ran``: when it last got a CPU, on the scheduler's clock, 0 never
    :ivar switches: (voluntary, involuntary)
    """

    user: Cell
    system: Cell
    started: Cell
    last_ran: Cell
    switches: tuple[Cell, Cell]


class Memory(NamedTuple):
    """Sizes in bytes of a process; 0 for those without user memory."""

    virtual: Cell
    resident: Cell
    swapped: Cell


def placed(target: Target, addresses: Sequence[int]) -> list[Placed]:
    """Return how each task is scheduled."""
    kind = task_type(target)
    # Since 5.16 (bcf9033e5449 "sched: move CPU field back into thread_info if THREAD_INFO_IN_TASK=y")
    cpu = "cpu" if kind.has("cpu") else "thread_info.cpu"
    paths = [cpu, "prio", "static_prio", "policy", "on_rq", *(["on_cpu"] if kind.has("on_cpu") else [])]
    columns = Vector(target, kind, addresses).columns(*paths)
    if len(columns) < 6:
        columns.append([0] * len(addresses))  # a kernel for one CPU has no on_cpu
    return [
        Placed(number, prio, static if isinstance(static, Fault) else static - 120, policy_name(policy),
               running == 1, queued == 1)
        for number, prio, static, policy, queued, running in zip(*columns, strict=True)]


def policy_name(policy: Cell) -> str:
    """Return the name of a scheduling policy; "?" when it could not be read."""
    if isinstance(policy, Fault):
        return "?"
    number = policy & POLICY_MASK
    return POLICIES[number] if number < len(POLICIES) else str(number)


def times(target: Target, addresses: Sequence[int]) -> list[Times]:
    """Return the times of each thread by itself (:func:`process_times` adds up those of a process)."""
    kind = task_type(target)
    # Since 5.5 (cf25e24db61c "time: Rename tsk->real_start_time to ->start_boottime")
    started = "start_boottime" if kind.has("start_boottime") else "real_start_time"
    paths = ["utime", "stime", "se.sum_exec_runtime", started, "nvcsw", "nivcsw"]
    if kind.has("sched_info") and _has(target, "struct sched_info", "last_arrival"):
        paths.append("sched_info.last_arrival")
    columns = Vector(target, kind, addresses).columns(*paths)
    if len(columns) < 7:  # CONFIG_SCHED_INFO is off: when it last ran on a CPU is nearly as good
        columns.append(Vector(target, kind, addresses).column("se.exec_start"))
    return [
        Times(*adjusted(user, system, total), start, last, (voluntary, forced))
        for user, system, total, start, voluntary, forced, last in zip(*columns, strict=True)]


def adjusted(user: Cell, system: Cell, total: Cell) -> tuple[Cell, Cell]:
    """Return what a task has run, split in the proportion of its ticks in user and kernel code: cputime_adjust()."""
    for cell in (user, system, total):
        if isinstance(cell, Fault):
            return cell, cell
    assert isinstance(user, int) and isinstance(system, int) and isinstance(total, int)
    if system == 0:
        return total, 0
    if user == 0:
        return 0, total
    part = total * system // (user + system)
    return total - part, part


def process_times(target: Target, leaders: Sequence[int]) -> list[Times]:
    """Return the times of each process: of all its threads, those that have ended too, as /proc/PID/stat shows them."""
    kind = task_type(target)
    own = times(target, leaders)
    paths = ("nr_threads", "utime", "stime", "sum_sched_runtime", "nvcsw", "nivcsw")
    columns = Vector(target, kind, leaders).columns(*(f"signal->{path}" for path in paths))
    ticks = Vector(target, kind, leaders).columns("utime", "stime", "se.sum_exec_runtime")
    found: list[Times] = []
    rows = zip(leaders, own, zip(*columns, strict=True), zip(*ticks, strict=True), strict=True)
    for leader, one, (threads, *dead), mine in rows:
        if threads == 1 and not any(dead):
            found.append(one)
            continue
        sums: list[Any] = [cell if isinstance(cell, Fault) else 0 for cell in dead]
        try:
            every = [leader] if threads == 1 else thread_addresses(target, leader)
            more = Vector(target, kind, every).columns("utime", "stime", "se.sum_exec_runtime", "nvcsw", "nivcsw")
        except KshellError:
            more = [[cell] for cell in (*mine, *one.switches)]
        if not any(isinstance(cell, Fault) for cell in dead):
            sums = [first + sum(cell for cell in column if isinstance(cell, int))
                    for first, column in zip(dead, more, strict=True)]
        found.append(one._replace(
            **dict(zip(("user", "system"), adjusted(*sums[:3]), strict=True)), switches=(sums[3], sums[4])))
    return found


def now(target: Target) -> int:
    """Return the time on the scheduler's clock in nanoseconds: the latest of all CPUs' run queues.

    :raises KshellError: the run queues cannot be found or read
    """
    offset = member_offset(target.type("struct rq"), "clock")
    base = target.symbol("runqueues").address
    readings = []
    for cpu in target.cpu_numbers("online"):
        data = target.kernel.read((base + target.percpu_base(cpu) + offset) % (1 << 64), 8)
        readings.append(int.from_bytes(data, "little"))
    if not readings:
        raise KshellError("no CPU is online in this image")
    return max(readings)


def memory(target: Target, mms: Sequence[int]) -> list[Memory]:
    """Return the sizes of the address spaces at *mms* (of their ``mm_struct``, 0 for none)."""
    kind = target.type("struct mm_struct").strip()
    good = [mm for mm in dict.fromkeys(mms) if mm]
    # Since 6.2 (f1a7941243c1 "mm: convert mm's rss stats into percpu_counter") an array of percpu_counter
    stat = target.value(kind, 0)["rss_stat"]
    path = "rss_stat.count[{}].counter" if stat.has("count") else "rss_stat[{}].count"
    columns = Vector(target, kind, good).columns(
        "total_vm", *(path.format(number) for number in (*RSS_COUNTERS, 2)))
    found = {0: Memory(0, 0, 0)}
    for mm, total, *counters, swapped in zip(good, *columns, strict=True):
        fault = next((cell for cell in counters if isinstance(cell, Fault)), None)
        resident: Cell = fault if fault is not None else _bytes(sum(max(cell, 0) for cell in counters))
        found[mm] = Memory(_bytes(total), resident, _bytes(swapped))
    return [found[mm] for mm in mms]


def _bytes(pages: Any) -> Cell:
    return pages if isinstance(pages, Fault) else max(pages, 0) << PAGE_SHIFT


def namespace_pids(target: Target, addresses: Sequence[int]) -> list[list[int] | Fault]:
    """Return the ids of each task from the initial pid namespace inwards: NSpid in /proc/PID/status."""
    kind = task_type(target)
    # Since 4.19 (2c4704756cab) thread_pid, before pids[PIDTYPE_PID].pid
    pids = Vector(target, kind, addresses).column("thread_pid" if kind.has("thread_pid") else "pids[0].pid")
    pid_type = target.type("struct pid")
    good = [pid for pid in dict.fromkeys(pids) if isinstance(pid, int) and pid]
    levels = dict(zip(good, Vector(target, pid_type, good).column("level"), strict=True))
    size, first = target.type("struct upid").size or 0, member_offset(pid_type, "numbers[0].nr")
    found: list[list[int] | Fault] = []
    for pid in pids:
        level = levels.get(pid, 0)
        if isinstance(pid, Fault) or isinstance(level, Fault):
            found.append(pid if isinstance(pid, Fault) else level)
        elif not pid or level >= MAX_LEVEL:
            found.append([])
        else:
            try:
                found.append([int.from_bytes(target.kernel.read(pid + first + size * at, 4), "little")
                              for at in range(level + 1)])
            except Fault as fault:
                found.append(fault)
    return found


def _has(target: Target, name: str, member: str) -> bool:
    kind = target.types.get(name)
    bare = kind.strip() if kind is not None else None
    return isinstance(bare, StructType) and bare.has(member)
