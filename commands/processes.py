"""``::ps``, ``::ptree``, ``::pgrep``, ``::pid2proc``, ``::args``, ``::env``; walkers ``proc`` and ``thread``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

from kshell.api import (
    ADDRESS,
    COUNT,
    DECIMAL,
    HEX,
    Abort,
    Column,
    Decimal,
    Flag,
    Item,
    KshellError,
    NoUserSpaceError,
    Option,
    Output,
    Row,
    Session,
    Table,
    Text,
    UsageError,
    Word,
    dcmd,
    decimal_value,
    walker,
)
from kshell.linux import processes, tasks
from kshell.linux.tasks import Task
from kshell.linux.userland import user_facts

TASK = "struct task_struct"

_IDS = (
    Column("PID", 6, DECIMAL, "<"), Column("PPID", 6, DECIMAL, "<"), Column("PGID", 6, DECIMAL, "<"),
    Column("SID", 6, DECIMAL, "<"), Column("UID", 6, DECIMAL, "<"),
)
COLUMNS = (
    Column("S", 1, key="state"), *_IDS, Column("FLAGS", 10, align="<"), Column("ADDR", kind=ADDRESS),
    Column("NAME", key="comm"),
)
THREAD_COLUMNS = (
    Column("S", 1, key="state"), Column("TID", 6, DECIMAL, "<"), *_IDS, Column("FLAGS", 10, align="<"),
    Column("ADDR", kind=ADDRESS), Column("NAME", key="comm"),
)
ARGS_COLUMNS = (*COLUMNS[:-1], Column("NAME", 16, key="comm"), Column("ARGS"))


def row(session: Session, task: Task, threads: bool = False, args: bool = False) -> Row:
    """Return the row of *task* in one of the three layouts."""
    address = task.address or processes.unknown_address()
    ids = (task.tgid, task.ppid, task.pgrp, task.sid, task.uid, f"0x{task.flags:08x}", address, task.comm)
    cells = (task.state, task.pid, *ids) if threads else (task.state, *ids)
    if args:
        cells = (*cells, _command(session, task))
    return Row(task.address or None, cells, TASK)


def _command(session: Session, task: Task) -> str | KshellError:
    """Return the arguments as one line, the name in brackets for those that have none, as ps(1) does."""
    try:
        return " ".join(processes.split(processes.cmdline(session.target, task))) or f"[{task.comm}]"
    except KshellError as error:
        return error


#: option -> the columns it adds
EXTRAS = {
    "times": (Column("CPU", 3, DECIMAL), Column("PRI", 4, DECIMAL), Column("POLICY", 8), Column("USER", 8, align=">"),
              Column("SYSTEM", 8, align=">"), Column("STARTED", 9, align=">"), Column("LASTRAN", 9, align=">")),
    "sizes": (Column("VSZ", 9, COUNT), Column("RSS", 9, COUNT), Column("SWAP", 8, COUNT)),
    "namespaces": (Column("NSPID", 12, key="nspid"),),
    "creds": (Column("UID", 6, DECIMAL, "<"), Column("EUID", 6, DECIMAL, "<"), Column("GID", 6, DECIMAL, "<"),
              Column("EGID", 6, DECIMAL, "<"), Column("CAPS", 13, HEX)),
}  # fmt: skip


@dcmd("ps", columns=COLUMNS, yields=TASK, group="Processes")
def ps(
    session: Session, address: int | None, threads: Annotated[bool, Flag("-T", "every thread, with its id")],
    lwps: Annotated[bool, Flag("-t", "as -T")], args: Annotated[bool, Flag("-f", "with the arguments")],
    kernel: Annotated[bool, Flag("-k", "only kernel threads")],
    user: Annotated[bool, Flag("-u", "only user processes")],
    states: Annotated[str | None, Option("-s", "states", "only those in one of these states: -s D, -s RD")],
    cpu: Annotated[Decimal | None, Option("-c", "cpu", "only those that are on this CPU, or were last")],
    active: Annotated[bool, Flag("-A", "only those that run now, threads too: one a CPU at most")],
    times: Annotated[bool, Flag("-l", "CPU, priority, policy, CPU time, when it started and last got a CPU")],
    sizes: Annotated[bool, Flag("-m", "memory: virtual, resident and swapped KiB")],
    namespaces: Annotated[bool, Flag("-n", "the process ids in each pid namespace, from the outermost")],
    creds: Annotated[bool, Flag("-C", "user and group ids, effective capabilities")],
    which: Annotated[list[str], Word("pid|name", "only these; pids are decimal")],
) -> Iterator[Output]:
    """List processes.

    With an address, the process or thread whose task_struct is there; with pids (decimal) or names, those only.
    S is the state as /proc shows it: R running, S sleeping, D uninterruptible, T stopped, t traced, X dead, Z zombie,
    P parked, I idle. FLAGS are PF_* bits, ADDR is the task_struct. Into a pipe it passes addresses of task_structs.

    -l, -m, -n and -C add columns and may be put together. USER and SYSTEM are seconds, of all threads of a process;
    STARTED and LASTRAN are how long ago: a task that is blocked has been so since about LASTRAN. Families are shown by
    ::ptree.

    Examples:
      ::ps                          // all processes
      ::ps -f 1 sshd                // two of them, with their arguments
      ::ps -T -s D -l               // blocked threads, and for how long
      ::ps -u -m | ::print comm mm  // user processes only
      ::ps | ::print comm __state   // members of each
    """
    every = threads or lwps or active
    extras = [name for name, wanted in zip(EXTRAS, (times, sizes, namespaces, creds), strict=True) if wanted]
    if args and (every or extras):
        raise UsageError("-f does not go with -T, -A, -l, -m, -n and -C")
    if kernel and user:
        raise UsageError("-k and -u leave nothing")
    if states is not None and not set(states) <= set(tasks.LETTERS):
        raise UsageError(f"-s {states}: the states are {' '.join(tasks.LETTERS)}")
    if extras:
        ids = (Column("S", 1, key="state"), *([Column("TID", 6, DECIMAL, "<")] if every else []), *_IDS[:2])
        added = (column for name in extras for column in EXTRAS[name])
        yield Table((*ids, *added, Column("ADDR", kind=ADDRESS), Column("NAME", key="comm")))
    elif every:
        yield Table(THREAD_COLUMNS)
    elif args:
        yield Table(ARGS_COLUMNS)
    chosen = _chosen(session, address, which)
    if every:
        found = processes.iter_threads(session.target, None if chosen is None else list(chosen))
    else:
        found = processes.iter_processes(session.target) if chosen is None else iter(chosen)
    if kernel or user:
        found = (task for task in found if task.is_kernel_thread == kernel)
    if states is not None:
        found = (task for task in found if task.state in states)
    if extras or cpu is not None or active:
        yield from _detailed(session, found, extras, cpu, active, every)
        return
    for task in found:
        yield row(session, task, every, args)


def _detailed(
    session: Session, found: Iterator[Task], extras: list[str], cpu: int | None, active: bool, threads: bool,
) -> Iterator[Output]:
    """Yield the rows of tasks of which more is asked than a Task holds: it is read for all of them at once."""
    from kshell.linux import task_rows

    if processes.from_proc(session.target):
        raise KshellError("-l, -m, -n, -C, -c and -A need kernel memory", hint="it cannot be read here")
    if cpu is not None and cpu not in (possible := session.target.cpu_numbers("possible")):
        raise KshellError(f"there is no CPU {cpu}", hint=f"there are {', '.join(map(str, possible))}")
    every, problem = tasks.so_far(found)
    if cpu is not None or active:
        places = task_rows.places(session.target, every)
        every = [task for task, (number, running) in zip(every, places, strict=True)
                 if (cpu is None or number == cpu) and (running or not active)]
    if not extras:
        for task in every:
            yield row(session, task, threads)
        if problem is not None:
            raise problem
        return
    blocks = [task_rows.MAKERS[name](session.target, every, threads) for name in extras]
    for number, task in enumerate(every):
        ids = (task.state, *([task.pid] if threads else []), task.tgid, task.ppid)
        added = (cell for block in blocks for cell in block[number])
        yield Row(task.address, (*ids, *added, task.address, task.comm), TASK)
    if problem is not None:
        raise problem


def _chosen(session: Session, address: int | None, which: list[str]) -> list[Task] | None:
    """Return the tasks that are asked for, None for all."""
    if address is not None:
        return [processes.by_address(session.target, address)]
    if not which:
        return None
    return [task for word in which for task in processes.named(session.target, word)]


@dcmd("pgrep", columns=COLUMNS, yields=TASK, group="Processes")
def pgrep(
    session: Session, exact: Annotated[bool, Flag("-x", "the whole name matches")],
    newest: Annotated[bool, Flag("-n", "only the newest match")],
    oldest: Annotated[bool, Flag("-o", "only the oldest match")],
    full: Annotated[bool, Flag("-f", "match the arguments too")], pattern: str,
) -> Iterator[Output]:
    """List processes whose name matches a regular expression.

    The pattern is one of Python's re module. Into a pipe it passes addresses of task_structs.

    Examples:
      ::pgrep ^kworker
      ::pgrep -x bash | ::print struct task_struct pid
    """
    import re

    try:
        matches = re.compile(pattern).fullmatch if exact else re.compile(pattern).search
    except re.error as error:
        raise UsageError(f"{pattern}: {error}") from None
    if newest and oldest:
        raise UsageError("-n and -o do not go together")
    found = (task for task in processes.iter_processes(session.target) if _matches(session, task, matches, full))
    if not (newest or oldest):
        for task in found:
            yield row(session, task)
        return
    # Lists are in the order in which the processes were made.
    every = list(found)
    if every:
        yield row(session, every[-1] if newest else every[0])


def _matches(session: Session, task: Task, matches: object, full: bool) -> bool:
    assert callable(matches)
    if matches(task.comm):
        return True
    if not full:
        return False
    command = _command(session, task)
    return isinstance(command, str) and bool(matches(command))


@dcmd("ptree", yields=TASK, group="Processes")
def ptree(
    session: Session, address: int | None, which: Annotated[list[str], Word("pid|name", "only their families")],
) -> Iterator[Output]:
    """Show processes as a tree of parents and children.

    With an address of a task_struct, pids (decimal) or names: their ancestors and all below them.

    Examples:
      ::ptree
      ::ptree 1
    """
    every, problem = tasks.so_far(processes.iter_processes(session.target))
    children: dict[int, list[Task]] = {}
    known = {task.pid: task for task in every}
    for task in every:
        parent = task.ppid if isinstance(task.ppid, int) and task.ppid in known and task.ppid != task.pid else 0
        children.setdefault(parent, []).append(task)
    chosen = _chosen(session, address, which)
    if chosen is None:
        yield from _tree(children, children.get(0, ()), 0)
        if problem is not None:
            raise problem
        return
    for task in chosen:
        line = [known.get(task.tgid, task)]
        while isinstance(line[0].ppid, int) and line[0].ppid in known and known[line[0].ppid] not in line:
            line.insert(0, known[line[0].ppid])
        for depth, ancestor in enumerate(line[:-1]):
            yield _branch(ancestor, depth)
        yield from _tree(children, line[-1:], len(line) - 1)


def _tree(children: dict[int, list[Task]], roots: Iterable[Task], depth: int) -> Iterator[Output]:
    """Yield *roots* and all below; a loop of parents, in a damaged image, ends where it closes."""
    stack = [(task, depth) for task in reversed(list(roots))]
    seen: set[int] = set()
    while stack:
        task, level = stack.pop()
        if task.pid in seen:
            continue
        seen.add(task.pid)
        yield _branch(task, level)
        stack += [(child, level + 1) for child in reversed(children.get(task.pid, []))]


def _branch(task: Task, depth: int) -> Text:
    shown = f"{task.address:016x}" if task.address else f"{task.pid:<16}"
    return Text(f"{' ' * (5 * depth)}{shown}  {task.comm}", task.address or None, TASK)


@dcmd("pid2proc", yields=TASK, group="Processes")
def pid2proc(
    session: Session, address: int | None, pids: Annotated[list[str], Word("pid", "decimal")],
) -> Iterator[Output]:
    """Show the address of the task_struct of a process id.

    The id is a decimal argument, as ids are printed, or mdb's address (0t1::pid2proc, where 0t means decimal).

    Examples:
      ::pid2proc 1
      0t1::pid2proc | ::print struct task_struct comm
    """
    wanted = [] if address is None else [address]
    for word in pids:
        pid = decimal_value(word)
        if pid is None:
            raise UsageError(f"{word} is not a process id")
        wanted.append(pid)
    if not wanted:
        raise UsageError("a process id is needed")
    for pid in wanted:
        task = processes.by_pid(session.target, pid)
        if not task.address:
            raise KshellError(f"process {pid} ({task.comm}): its address is {processes.unknown_address()}")
        yield Item(task.address, TASK)


def one_task(session: Session, address: int | None, word: str | None) -> Task:
    """Return the process that an address, a pid or name, or the process context names."""
    context = session.context
    return processes.chosen(session.target, address, word, None if context is None else context.pid)


@dcmd("args", columns=(Column("N", 4, DECIMAL, key="n"), Column("ARGUMENT")), group="Processes")
def args(
    session: Session, address: int | None, which: Annotated[str | None, Word("pid|name", "pids are decimal")],
) -> Iterator[Output]:
    """Show the arguments of a process, one a row.

    Of the process whose task_struct the address is, of a pid (decimal) or name, or of the process context; of the
    process or core that is the target.

    Examples:
      ::args 1
      ::pgrep -x sshd | ::args
    """
    own = user_facts(session.target)
    if own is not None:
        yield from _own_strings(address, which, own.strings()[0])
        return
    task = one_task(session, address, which)
    yield from _strings(session, task, processes.cmdline(session.target, task))


@dcmd("env", columns=(Column("N", 4, DECIMAL, key="n"), Column("VARIABLE")), group="Processes")
def env(
    session: Session, address: int | None, which: Annotated[str | None, Word("pid|name", "pids are decimal")],
) -> Iterator[Output]:
    """Show the environment a process was started with, one variable a row.

    Of the process whose task_struct the address is, of a pid (decimal) or name, or of the process context; of the
    process or core that is the target.

    Examples:
      ::env 1
      ::getu victim; ::env
    """
    own = user_facts(session.target)
    if own is not None:
        yield from _own_strings(address, which, own.strings()[1])
        return
    task = one_task(session, address, which)
    yield from _strings(session, task, processes.environ(session.target, task))


def _own_strings(address: int | None, which: str | None, data: bytes) -> Iterator[Output]:
    if address is not None or which is not None:
        raise UsageError("the target is one process: there is no other to name")
    for number, text in enumerate(processes.split(data)):
        yield Row(None, (number, text))


def _strings(session: Session, task: Task, data: bytes) -> Iterator[Output]:
    if not data and (task.is_kernel_thread or task.is_zombie):
        kind = "a kernel thread" if task.is_kernel_thread else "a zombie"
        raise NoUserSpaceError(f"process {task.pid} ({task.comm}) is {kind}: it has no user memory")
    for number, text in enumerate(processes.split(data)):
        yield Row(None, (number, text))


@walker("proc", yields=TASK)
def proc(session: Session, address: int | None) -> Iterator[int]:
    """Walk all processes (thread-group leaders); from a process, it and all below it."""
    if processes.from_proc(session.target):
        raise Abort(f"the addresses of processes are {processes.unknown_address()}")
    if address is None:
        for task in tasks.iter_processes(session.target):
            yield task.address
        return
    every, problem = tasks.so_far(tasks.iter_processes(session.target))
    wanted = {processes.by_address(session.target, address).tgid}
    for task in every:  # children come behind their parents in the list
        if task.pid in wanted or task.ppid in wanted:
            wanted.add(task.pid)
            yield task.address
    if problem is not None:
        raise problem


@walker("thread", yields=TASK)
def thread(session: Session, address: int | None) -> Iterator[int]:
    """Walk all threads; from a process, its threads."""
    if processes.from_proc(session.target):
        raise Abort(f"the addresses of threads are {processes.unknown_address()}")
    found = tasks.iter_threads(session.target, None if address is None else [address])
    for task in found:
        yield task.address

