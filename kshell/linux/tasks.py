"""Processes and threads: ``struct task_struct``, as /proc shows them.

Kernel source: include/linux/sched.h (``__task_state_index``), include/linux/sched/signal.h (``for_each_process``,
``for_each_thread``), fs/proc/array.c (``do_task_stat``), kernel/pid.c (``find_pid_ns``). Process ids are those of the
initial pid namespace. ``swapper`` (pid 0), which no list holds, is left out; see :func:`iter_current`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from kshell.errors import Fault, FormatError, KshellError, NotFoundError, Reason
from kshell.linux.kernel import require_kernel
from kshell.linux.lists import from_behind, list_for_each, member_offset, ring, visited_before
from kshell.linux.xarray import idr_find
from kshell.target.space import AddressSpace
from kshell.types.model import CType, StructType
from kshell.value import Value, Vector
from kshell.value.path import route
from kshell.value.vector import SMALL_GAP, Held, groups

if TYPE_CHECKING:
    from kshell.target.target import Target

# Bits of task_struct.__state and exit_state; include/linux/sched.h, as they are since 4.14 (8ef9925b02c2).
TASK_REPORT = 0x7F  # running 0, S 1, D 2, T 4, t 8, X 0x10, Z 0x20, P 0x40
TASK_UNINTERRUPTIBLE = 0x2
TASK_IDLE = 0x402  # TASK_UNINTERRUPTIBLE | TASK_NOLOAD
TASK_REPORT_IDLE = 0x80
TASK_RTLOCK_WAIT = 0x1000  # 5.16
TASK_FROZEN = 0x8000  # 6.1 (f5d39b020809 "freezer,sched: Rewrite core freezer logic")
LETTERS = "RSDTtXZPI"

PF_KTHREAD = 0x0020_0000
#: the end of LIST_POISON2, the ``prev`` of a node that was taken from its list; include/linux/poison.h
POISON = 0x0122
#: what every task must tell to be one: pid, tgid, flags, state, comm, mm
REQUIRED = (1, 2, 7, 8, 9, 10)
#: the first rows come from a short vector, so that they are shown before thousands are read
FIRST_CHUNK, CHUNK = 128, 8192
#: what is further from a task's list pointer is not read along with it
MAX_HELD = 2304
#: pids are below this (PID_MAX_LIMIT)
PID_MAX = 1 << 22

Cell = int | Fault


class Task(NamedTuple):
    """A process or thread. A :class:`Fault` stands where what a pointer of the task leads to cannot be read.

    :ivar address: of its ``task_struct``; 0 when it was read from /proc and the address is not known
    :ivar pid: of the thread; ``tgid``: of the process
    :ivar flags: PF_*; ``state``: the letter that /proc shows; ``mm``: the address of its mm_struct, 0 for none
    """

    address: int
    pid: int
    tgid: int
    ppid: Cell
    pgrp: Cell
    sid: Cell
    uid: Cell
    flags: int
    state: str
    comm: str
    mm: int

    @property
    def is_kernel_thread(self) -> bool:
        return bool(self.flags & PF_KTHREAD)

    @property
    def is_zombie(self) -> bool:
        return self.state in "ZX"


def state_letter(state: int, exit_state: int) -> str:
    """Return the letter of a task's state as /proc/PID/stat shows it: ``task_state_to_char(task)``."""
    report = (state | exit_state) & TASK_REPORT
    if state & TASK_IDLE == TASK_IDLE:
        report = TASK_REPORT_IDLE
    if state & (TASK_RTLOCK_WAIT | TASK_FROZEN):
        report = TASK_UNINTERRUPTIBLE
    return LETTERS[report.bit_length()]


class _Names(NamedTuple):
    """What this kernel calls the members behind a :class:`Task`.

    :ivar ids: the type that ``ids_of`` points to: it has the pointers ``pgrp`` and ``sid`` to struct pid
    """

    state: str
    ids_of: str
    ids: str
    pgrp: str
    sid: str
    pid_link: str


def _names(task: StructType) -> _Names:
    # 5.14+ (2f064a59a11f "sched: Change task_struct::state")
    state = "__state" if task.has("__state") else "state"
    # 4.19+ (2c4704756cab "pids: Move the pgrp and session pid pointers from task_struct to signal_struct", and
    # 6883f81aac6f, which gave PIDTYPE_TGID the place behind PIDTYPE_PID)
    if task.has("pid_links"):
        return _Names(state, "signal", "struct signal_struct", "pids[2]", "pids[3]", "pid_links[0]")
    return _Names(state, "group_leader", "struct task_struct", "pids[1].pid", "pids[2].pid", "pids[0].node")


def pid_link(target: Target) -> str:
    """Return the member through which a task hangs on its ``struct pid``."""
    return _names(task_type(target)).pid_link


def task_type(target: Target) -> StructType:
    """Return ``struct task_struct``.

    :raises TypeNotFoundError: the target has no types
    """
    found = target.type("struct task_struct").strip()
    if not isinstance(found, StructType):
        raise FormatError("struct task_struct is incomplete in these types")
    return found


def task_columns(
    target: Target, addresses: Sequence[int], *fields: str, held: Sequence[Held] = ()
) -> list[list[Any]]:
    """Return for each of *fields* of :class:`Task` a list with a cell for each of the tasks at *addresses*.

    Only what the fields need is read, in bulk. A cell that cannot be read is its :class:`Fault`.

    :param held: parts of each ``task_struct``, as :func:`process_rows` has read them
    """
    kind = task_type(target)
    names = _names(kind)
    sources = {
        "ppid": ("real_parent",), "pgrp": (names.ids_of,), "sid": (names.ids_of,), "uid": ("real_cred",),
        "state": (names.state, "exit_state"), "address": (),
    }
    wanted = list(dict.fromkeys(path for field in fields for path in sources.get(field, (field,))))
    read = dict(zip(wanted, Vector(target, kind, addresses, held=held).columns(*wanted), strict=True))
    groups: list[list[Any]] = []
    columns: list[list[Any]] = []
    for field in fields:
        if field == "address":
            columns.append(list(addresses))
        elif field == "state":
            letters = _Letters()
            columns.append([letters[key] for key in zip(read[names.state], read["exit_state"], strict=True)])
        elif field == "ppid":
            columns.append(_behind(target, kind, read["real_parent"], "tgid"))
        elif field == "uid":
            columns.append(_behind(target, target.type("struct cred"), read["real_cred"], "uid.val"))
        elif field in ("pgrp", "sid"):
            groups = groups or _groups(target, names, read[names.ids_of])
            columns.append(groups[field == "sid"])
        else:
            columns.append(read[field])
    return columns


class _Letters(dict[tuple[Any, Any], Any]):
    """(state, exit_state) -> letter, each worked out once; a state that could not be read is its fault."""

    def __missing__(self, key: tuple[Any, Any]) -> Any:
        fault = next((cell for cell in key if isinstance(cell, Fault)), None)
        self[key] = found = state_letter(key[0] & 0xFFFF_FFFF, key[1]) if fault is None else fault
        return found


def _behind(target: Target, kind: CType, pointers: list[Any], path: str) -> list[Any]:
    """Return the member *path* of what each of *pointers* leads to; many tasks share theirs, each is read once."""
    good = [pointer for pointer in dict.fromkeys(pointers) if isinstance(pointer, int)]
    found: dict[Any, Any] = dict(zip(good, Vector(target, kind, good).column(path), strict=True))
    return [found.get(pointer, pointer) for pointer in pointers]  # a pointer that is a fault stays one


def _groups(target: Target, names: _Names, pointers: list[Any]) -> list[list[Any]]:
    """Return the columns of process group and session ids behind the pointers *names*.ids_of."""
    known = [pointer if isinstance(pointer, int) else 0 for pointer in pointers]
    pids = Vector(target, target.type(names.ids), known).columns(names.pgrp, names.sid)
    good = [pid for pid in dict.fromkeys(pids[0] + pids[1]) if pid and isinstance(pid, int)]
    numbers = Vector(target, target.type("struct pid"), good).column("numbers[0].nr")
    found: dict[Any, Any] = dict(zip(good, numbers, strict=True))
    found[0] = 0  # pid_nr_ns(NULL)
    return [[found.get(pid, pid) for pid in column] for column in pids]


def read_tasks(target: Target, addresses: Sequence[int], held: Sequence[Held] = ()) -> Iterator[Task]:
    """Yield the tasks at *addresses*, in that order, read in bulk.

    :param held: parts of each ``task_struct``, as :func:`process_rows` has read them

    :raises Fault: a ``task_struct`` itself could not be read; raised after all others have been yielded
    """
    lost: list[Fault] = []
    at, size = 0, FIRST_CHUNK
    while at < len(addresses):
        part = [one._replace(rows=one.rows[at : at + size]) for one in held]
        columns = task_columns(target, addresses[at : at + size], *Task._fields, held=part)
        rows: Iterable[tuple[Any, ...]] = zip(*columns, strict=True)
        if any(Fault in set(map(type, columns[place])) for place in REQUIRED):
            every = list(rows)
            rows = [row for row in every if not any(type(row[place]) is Fault for place in REQUIRED)]
            lost += [_lost(row) for row in every if any(type(row[place]) is Fault for place in REQUIRED)]
        yield from map(Task._make, rows)
        at, size = at + size, CHUNK
    if lost:
        lost[0].hint = f"{len(lost)} of {len(addresses)} tasks cannot be read; the others are complete"
        raise lost[0]


def _lost(row: tuple[Any, ...]) -> Fault:
    """Return why a task cannot be read, from its cells; it names the task."""
    fault = next(row[place] for place in REQUIRED if type(row[place]) is Fault)
    detail = f"task_struct 0x{row[0]:x}" + (f", {fault.detail}" if fault.detail else "")
    return Fault(fault.address, fault.size, fault.reason, space=fault.space, detail=detail)


def read_task(target: Target, address: int) -> Task:
    """Return the task whose ``task_struct`` is at *address*.

    :raises Fault: it cannot be read
    :raises FormatError: what is there is no task
    """
    task = next(read_tasks(target, [address]))
    if not 0 <= task.pid <= PID_MAX or not 0 <= task.tgid <= PID_MAX:
        raise FormatError(f"0x{address:x} is not a task_struct: its pid would be {task.pid}")
    return task


def process_addresses(target: Target) -> list[int]:
    """Return the ``task_struct`` of every process (thread-group leader), in the order of ``init_task.tasks``.

    A list that is damaged is followed from its other end too. Where both ways end at one task that is not in the dump
    nothing else is missing, and whoever reads it learns why.

    :raises SymbolNotFoundError: the kernel's symbols do not tell where ``init_task`` is
    :raises Fault, FormatError: the list is damaged; the addresses before and behind the damage are in ``visited``
    """
    return process_rows(target)[0]


def process_rows(target: Target) -> tuple[list[int], list[Held]]:
    """Return what :func:`process_addresses` does, and what of each ``task_struct`` was read on the way.

    That are the members of :class:`Task`, where they are near enough; nothing where the memory cannot give it.
    """
    require_kernel(target)
    kind = task_type(target)
    offset = member_offset(kind, "tasks")
    head = target.address_of("init_task") + offset
    try:
        if isinstance(target.kernel, AddressSpace):
            pieces = _pieces(kind)
            nodes, columns = target.kernel.chase_rows(head, 0, [(low - offset, size) for low, size in pieces])
            held = [Held(low, size, rows) for (low, size), rows in zip(pieces, columns, strict=True)]
            ring(target.kernel, head, nodes)
            return [node - offset for node in nodes], held
        return [node - offset for node in list_for_each(target, head)], []
    except KshellError as error:
        before, behind, whole = visited_before(error), *from_behind(target.kernel, head)
        absent = isinstance(error, Fault) and error.reason is not Reason.NOT_MAPPED
        if absent and not whole and before[-1:] == behind[:1] != []:
            return [node - offset for node in (*before, *behind[1:])], []
        if whole:
            error.visited = [node - offset for node in behind]  # type: ignore[attr-defined]
            error.hint = f"followed from its other end the list of tasks is whole: {len(behind)}"
            raise
        ends = [node - offset for node in dict.fromkeys(before + behind)]
        between = _other_tasks(target, set(ends))
        error.visited = [*ends[: len(before)], *between, *ends[len(before) :]]  # type: ignore[attr-defined]
        error.hint = (f"the list of tasks is damaged: {len(before)} are before that, {len(ends) - len(before)} behind, "
                      f"{len(between)} were found by other ways; there may be more")
        raise


def _other_tasks(target: Target, known: set[int], *, threads: bool = False) -> list[int]:
    """Return the ``task_struct`` of processes besides those *known*, by pid: by the table of ids and the slab cache.

    :param threads: those of all threads
    """
    from kshell.linux import slab, slub_objects
    from kshell.linux.pid_table import thread_addresses

    found: dict[int, None] = {}
    with suppress(KshellError):
        found.update(dict.fromkeys(thread_addresses(target)))
    with suppress(KshellError):
        cache = target.value("struct kmem_cache", slab.find_cache(target, "task_struct").address)
        objects = slub_objects.cache_objects(target, cache)
        found.update(dict.fromkeys(objects.address[objects.allocated].tolist()))
    kind = task_type(target)
    every = [address for address in found if address not in known]
    link = "thread_node.prev" if kind.has("thread_node") else "thread_group.prev"
    rows = zip(every, *Vector(target, kind, every).columns("pid", "group_leader", "tasks.prev", link), strict=True)
    good: list[tuple[int, int]] = []
    for address, pid, leader, prev, before in rows:
        # one that was released is on no list any more, and may live on for who has a reference
        last = prev if leader == address else before if threads else None
        if isinstance(pid, int) and pid and isinstance(last, int) and last & 0xFFFF != POISON:
            good.append((pid, address))
    return [address for _, address in sorted(good)]


def _pieces(kind: StructType) -> list[tuple[int, int]]:
    """Return (offset, bytes) of the parts of a ``task_struct`` in which the members of :class:`Task` are."""
    names = _names(kind)
    members = ("tasks", names.state, "flags", "exit_state", "pid", "tgid", "real_parent", "real_cred", "comm", "mm",
               names.ids_of)
    found = groups([route(kind, member) for member in members], SMALL_GAP)
    tasks = member_offset(kind, "tasks")
    return [(low, size) for _, low, size, _ in found if tasks - MAX_HELD <= low and low + size <= tasks + MAX_HELD]


def iter_processes(target: Target) -> Iterator[Task]:
    """Yield every process: the thread-group leaders, in the order in which they were made.

    :raises KshellError: as :func:`process_addresses` and :func:`read_tasks`; what could be read comes first
    """
    try:
        addresses, held = process_rows(target)
    except KshellError as error:
        yield from _read_and_raise(target, visited_before(error), error)
    else:
        yield from read_tasks(target, addresses, held)


def _read_and_raise(target: Target, addresses: Sequence[int], damage: KshellError) -> Iterator[Task]:
    """Yield those of the tasks at *addresses* that can be read, and raise *damage*, with how many cannot."""
    found, problem = so_far(read_tasks(target, addresses))
    yield from found
    if problem is not None:
        damage.hint = f"{damage.hint or 'a list of threads is damaged'}; {len(addresses) - len(found)} cannot be read"
    raise damage


def thread_addresses(target: Target, leader: int) -> list[int]:
    """Return the ``task_struct`` of every thread of the process whose leader (or any thread) is at *leader*.

    :raises Fault, FormatError: the list is damaged; the addresses before the damage are in ``visited``
    """
    kind = task_type(target)
    if kind.has("thread_node"):  # 3.14+ (0c740d0afc3b "introduce for_each_thread()")
        head = target.value(kind, leader).integer("signal")
        head += member_offset(target.type("struct signal_struct"), "thread_head")
        offset = member_offset(kind, "thread_node")
        first: list[int] = []
    else:
        offset = member_offset(kind, "thread_group")  # gone in 6.7 (8e1f385104ac)
        head, first = leader + offset, [leader]
    try:
        return [*first, *(node - offset for node in list_for_each(target, head))]
    except KshellError as error:
        error.visited = [*first, *(node - offset for node in visited_before(error))]  # type: ignore[attr-defined]
        raise


def iter_threads(target: Target, leaders: Iterable[int] | None = None) -> Iterator[Task]:
    """Yield every thread of the processes at *leaders*, or of all, each process's leader first.

    :raises KshellError: as :func:`iter_processes`; what could be read comes first
    """
    damage: KshellError | None = None
    try:
        found = process_addresses(target) if leaders is None else list(leaders)
    except KshellError as error:
        found, damage = visited_before(error), error
    counts = Vector(target, task_type(target), found).column("signal->nr_threads")
    addresses: list[int] = []
    for leader, count in zip(found, counts, strict=True):
        if count == 1:
            addresses.append(leader)
            continue
        try:
            addresses += thread_addresses(target, leader)
        except KshellError as error:
            addresses += visited_before(error) or [leader]
            damage = damage or error
    if damage is None:
        yield from read_tasks(target, addresses)
        return
    if leaders is None:
        addresses += _other_tasks(target, set(addresses), threads=True)
    yield from _read_and_raise(target, addresses, damage)


def so_far(found: Iterable[Task]) -> tuple[list[Task], KshellError | None]:
    """Return what *found* yields, and the error that it ends with: for whoever needs all before the first answer."""
    every: list[Task] = []
    try:
        every.extend(found)
    except KshellError as error:
        return every, error
    return every, None


def find_task(target: Target, pid: int) -> int:
    """Return the ``task_struct`` of the thread *pid* in the initial pid namespace, 0 when there is none.

    The kernel's own table is asked, and the answer is verified.

    :raises KshellError: the table cannot be found or read
    """
    if not 0 < pid <= PID_MAX:
        return 0
    kind = task_type(target)
    namespace = target.type("struct pid_namespace").strip()
    assert isinstance(namespace, StructType)
    if not namespace.has("idr"):
        # Before 4.15 (95846ecf9dac "pid: replace pid bitmap implementation with IDR API") a hash; the list tells too.
        return next((task.address for task in iter_threads(target) if task.pid == pid), 0)
    idr = target.address_of("init_pid_ns") + namespace.member("idr").offset
    entry = idr_find(target, idr, pid)
    if not entry:
        return 0
    first = target.value("struct pid", entry).integer("tasks[0].first")
    if not first:
        return 0  # the id lives on as a process group or session only
    address = first - member_offset(kind, _names(kind).pid_link)
    found = target.value(kind, address).integer("pid")
    if found != pid:
        raise FormatError(f"the pid table is damaged: entry {pid} leads to task 0x{address:x} with pid {found}")
    return address


def task_by_pid(target: Target, pid: int) -> Task:
    """Return the task *pid*.

    Where the table of ids cannot be read all threads are looked at.

    :raises NotFoundError: there is none; names the pids around it
    :raises KshellError: it is not among what can be read
    """
    try:
        address = find_task(target, pid)
    except KshellError:
        found = next((task for task in so_far(iter_threads(target))[0] if task.pid == pid), None)
        if found is None:
            raise
        return found
    if not address:
        pids = sorted(task.pid for task in iter_processes(target))
        near = sorted(sorted(pids, key=lambda number: abs(number - pid))[:3])
        raise NotFoundError("process", str(pid), hint=f"near pids: {', '.join(map(str, near))}; ::ps lists all")
    return read_task(target, address)


def tasks_by_name(target: Target, name: str) -> list[Task]:
    """Return the processes whose comm is *name*, in the order of :func:`iter_processes`.

    :raises NotFoundError: there is none; carries names that are near
    """
    return with_name(iter_processes(target), name)


def with_name(processes: Iterable[Task], name: str) -> list[Task]:
    """Return those of *processes* whose comm is *name*, as far as they can be read. Raises as :func:`tasks_by_name`."""
    from kshell.types.model import near_names

    every, problem = so_far(processes)
    found = [task for task in every if task.comm == name]
    if not found and problem is not None:
        raise problem
    if not found:
        names = sorted({task.comm for task in every})
        near = near_names(name, names) or [n for n in names if name in n][:3]
        raise NotFoundError("process", name, near, hint="::ps lists all; a number is a pid, in decimal")
    return found


def iter_current(target: Target) -> Iterator[tuple[int, int]]:
    """Yield (cpu, address of the task on it) for each online CPU; the idle task where nothing runs.

    ``rq->curr`` is in every kernel; ``current_task`` moved twice (pcpu_hot in 6.2, back in 6.15).
    """
    symbol = target.symbol("runqueues").address
    offset = member_offset(target.type("struct rq"), "curr")
    for cpu in target.cpu_numbers("online"):
        address = (symbol + target.percpu_base(cpu) + offset) % (1 << 64)
        yield cpu, int.from_bytes(target.kernel.read(address, 8), "little")


def task_value(target: Target, address: int) -> Value:
    """Return the ``struct task_struct`` at *address* as a value."""
    return Value(target, task_type(target), address)
