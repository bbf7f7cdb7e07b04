"""One task seen from all sides: ``::task``, ``::thread``, ``::pfiles``, ``::sig``, ``::cred``; the walker ``file``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

from kshell.api import (
    ADDRESS,
    DECIMAL,
    HEX,
    Column,
    Flag,
    KshellError,
    Output,
    Record,
    Row,
    Session,
    Word,
    dcmd,
    escape,
    walker,
)
from kshell.linux import creds, files, processes, signals, task_details, task_rows, tasks
from kshell.linux.tasks import Task
from kshell.linux.userland import user_facts

TASK = "struct task_struct"
WHICH = Word("pid|name", "pids are decimal")
#: PF_* that say what kind of task it is; include/linux/sched.h, unchanged since 5.10
FLAGS = (
    (0x2, "IDLE"), (0x4, "EXITING"), (0x10, "IO_WORKER"), (0x20, "WQ_WORKER"), (0x40, "FORKNOEXEC"),
    (0x100, "SUPERPRIV"), (0x200, "DUMPCORE"), (0x400, "SIGNALED"), (0x800, "MEMALLOC"), (0x8000, "NOFREEZE"),
    (0x20000, "KSWAPD"), (0x200000, "KTHREAD"), (0x400000, "RANDOMIZE"), (0x4000000, "NO_SETAFFINITY"),
)  # fmt: skip
STATES = dict(zip(tasks.LETTERS, (
    "running", "sleeping", "uninterruptible", "stopped", "traced", "dead", "zombie", "parked", "idle"), strict=True))


def find(session: Session, address: int | None, word: str | None) -> Task:
    """Return the task that an address, a pid or name, or the process context names; it has a task_struct."""
    target = session.target
    if processes.from_proc(target):
        raise KshellError(f"this needs the task_struct, whose address is {processes.unknown_address()}")
    context = session.context
    return processes.chosen(target, address, word, None if context is None else context.pid)


@dcmd("task", yields=TASK, group="Processes")
def task(
    session: Session, address: int | None, which: Annotated[str | None, WHICH],
) -> Iterator[Output]:
    """Show what is known of one process or thread: state, family, times, memory, files, credentials.

    Of the task whose task_struct the address is, of a pid (decimal) or name, or of the process context. What cannot be
    read says why in its place.

    Examples:
      ::task 1
      ::pgrep -x sshd | ::task
    """
    found = find(session, address, which)
    facts: dict[str, Any] = {"address": f"0x{found.address:x}", "comm": found.comm}
    for name, make in _PARTS:
        try:
            facts |= make(session, found)
        except KshellError as error:
            facts[name] = f"<{error}>"
    yield Record(
        (f"{name.replace('_', ' ') + ':':<16} {escape(str(text))}" for name, text in facts.items() if text != ""),
        lambda: facts, found.address, TASK)


def _ids(session: Session, found: Task) -> dict[str, Any]:
    spaces = task_details.namespace_pids(session.target, [found.address])[0]
    inner = " ".join(map(str, spaces[1:])) if isinstance(spaces, list) else str(spaces)
    return {"pid": found.pid, "tgid": found.tgid, "ppid": found.ppid, "pgid": found.pgrp, "sid": found.sid,
            "namespace_pids": inner}


def _state(session: Session, found: Task) -> dict[str, Any]:
    value = tasks.task_value(session.target, found.address)
    flags = " ".join(word for bit, word in FLAGS if found.flags & bit)
    threads = value["signal"].deref().integer("nr_threads") if value.integer("signal") else 0
    return {"state": f"{found.state} ({STATES.get(found.state, 'unknown')})", "flags": f"0x{found.flags:08x} {flags}",
            "threads": threads, "stack": f"0x{value.integer('stack'):x}"}


def _scheduling(session: Session, found: Task) -> dict[str, Any]:
    place, = task_details.placed(session.target, [found.address])
    cells, = task_rows.time_cells(session.target, [found], threads=True)
    on = "on CPU" if place.running else "waits for CPU" if place.queued else "was last on CPU"
    return {"cpu": f"{on} {place.cpu}", "scheduling": f"{place.policy}, priority {place.prio}, nice {place.nice}",
            "cpu_time": f"{cells[3]} s user, {cells[4]} s system", "started": f"{cells[5]} ago",
            "last_ran": f"{cells[6]}{' ago' if cells[6] != 'never' else ''}"}


def _memory(session: Session, found: Task) -> dict[str, Any]:
    if not found.mm:
        return {"memory": "none of its own" if found.is_kernel_thread else "none any more"}
    size, = task_details.memory(session.target, [found.mm])
    value = session.target.value("struct mm_struct", found.mm)
    shown = [f"{cell >> 10} KiB {word}" if isinstance(cell, int) else f"{word}: {cell}"
             for cell, word in zip(size, ("virtual", "resident", "swapped"), strict=True)]
    return {"memory": ", ".join(shown), "mm": f"0x{found.mm:x}", "pgd": f"0x{value.integer('pgd'):x}"}


def _files(session: Session, found: Task) -> dict[str, Any]:
    value = tasks.task_value(session.target, found.address)
    shown: dict[str, Any] = {name: str(path) for name, path in files.places(session.target, value)}
    return {**shown, "open_files": sum(1 for _ in files.open_files(session.target, found.address))}


def _creds(session: Session, found: Task) -> dict[str, Any]:
    cred = creds.credentials(tasks.task_value(session.target, found.address))
    return {"uid": f"{cred.uid}, effective {cred.euid}", "gid": f"{cred.gid}, effective {cred.egid}",
            "capabilities": creds.capability_names(cred.cap_effective)}


def _signals(session: Session, found: Task) -> dict[str, Any]:
    pending = signals.signals(session.target, tasks.task_value(session.target, found.address))
    names = signals.names(pending.pending | pending.shared)
    return {"pending_signals": " ".join(names) or "none"}


_PARTS: tuple[tuple[str, Callable[[Session, Task], dict[str, Any]]], ...] = (
    ("ids", _ids), ("state", _state), ("scheduling", _scheduling), ("memory", _memory), ("files", _files),
    ("credentials", _creds), ("signals", _signals))


@dcmd("thread", columns=(
    Column("ADDR", kind=ADDRESS), Column("TID", 6, DECIMAL, "<"), Column("PID", 6, DECIMAL, "<"),
    Column("S", 1, key="state"), Column("CPU", 3, DECIMAL), Column("PRI", 4, DECIMAL), Column("POLICY", 8),
    Column("USER", 8, align=">"), Column("SYSTEM", 8, align=">"), Column("STARTED", 9, align=">"),
    Column("LASTRAN", 9, align=">"), Column("NAME", key="comm")), yields=TASK, group="Processes")  # fmt: skip
def thread(
    session: Session, address: int | None, process: Annotated[bool, Flag("-p", "all threads of its process")],
    which: Annotated[list[str], Word("pid|name", "the threads of these processes; pids are decimal")],
) -> Iterator[Output]:
    """List threads with their CPU, priority and times.

    With an address, the thread whose task_struct is there, with -p all of its process; with pids or names the threads
    of those processes; else all threads. USER and SYSTEM are seconds, STARTED and LASTRAN how long ago.

    Examples:
      ::thread 1
      ::walk thread | ::thread
    """
    target = session.target
    if processes.from_proc(target):
        raise KshellError(f"this needs the task_struct, whose address is {processes.unknown_address()}")
    if address is not None:
        one = processes.by_address(target, address)
        found, problem = tasks.so_far(tasks.iter_threads(target, [address]) if process else [one])
    elif which:
        leaders = [leader for word in which for leader in processes.named(target, word)]
        found, problem = tasks.so_far(tasks.iter_threads(target, [leader.address for leader in leaders]))
    else:
        found, problem = tasks.so_far(tasks.iter_threads(target))
    for one, cells in zip(found, task_rows.time_cells(target, found, threads=True), strict=True):
        yield Row(one.address, (one.address, one.pid, one.tgid, one.state, *cells, one.comm))
    if problem is not None:
        raise problem


@dcmd("pfiles", columns=(
    Column("FD", 4, DECIMAL), Column("TYPE", 4), Column("FILE", kind=ADDRESS), Column("INODE", kind=ADDRESS),
    Column("POS", 10, DECIMAL, key="position"), Column("FLAGS", 24), Column("PATH")),
    yields="struct file", group="Processes")  # fmt: skip
def pfiles(session: Session, address: int | None, which: Annotated[str | None, WHICH]) -> Iterator[Output]:
    """List the open files of a process: descriptor, type, position, flags and path.

    Of the task whose task_struct the address is, of a pid (decimal) or name, or of the process context. TYPE is REG,
    DIR, CHR, BLK, FIFO, SOCK, or ANON for files that are in no file system. FLAGS are those of open(2) without O_.
    Into a pipe it passes addresses of struct file. Of a live process that is the target (kshell -p) they are told
    without addresses.

    Examples:
      ::pfiles 1
      ::pgrep -x sshd | ::pfiles
      ::pfiles 1 | ::print f_op f_count
    """
    own = user_facts(session.target)
    if own is not None:
        for row in own.open_files():
            yield Row(None, (row.fd, row.type, None, None, row.position, files.flag_names(row.flags), row.path))
        return
    found = find(session, address, which)
    for one in files.open_files(session.target, found.address):
        flags = files.flag_names(one.flags) if isinstance(one.flags, int) else one.flags
        yield Row(one.file, (one.fd, one.type, one.file, one.inode, one.position, flags, one.path))


@walker("file", yields="struct file")
def file(session: Session, address: int) -> Iterator[int]:
    """Walk the open files of the task at the address."""
    for one in files.open_files(session.target, find(session, address, None).address):
        yield one.file


@dcmd("sig", columns=(
    Column("SIG", 3, DECIMAL), Column("NAME", 7), Column("PENDING", 7), Column("BLOCKED", 7), Column("ACTION", 7),
    Column("HANDLER", kind=ADDRESS), Column("FLAGS", 24), Column("MASK", 16, HEX, zeros=16)),
    group="Processes")  # fmt: skip
def sig(
    session: Session, address: int | None, every: Annotated[bool, Flag("-a", "all 64, also those at their default")],
    which: Annotated[str | None, WHICH],
) -> Iterator[Output]:
    """Show the signals of a task: pending, blocked, ignored, caught by which handler.

    Of the task whose task_struct the address is, of a pid (decimal) or name, or of the process context. PENDING is
    thread or process, by where the signal waits. MASK are the signals blocked while the handler runs; signal 1 is
    bit 0, as in /proc/PID/status.

    Examples:
      ::sig 1
      ::getu victim; ::sig -a
    """
    found = find(session, address, which)
    state = signals.signals(session.target, tasks.task_value(session.target, found.address))
    for number in range(1, signals.COUNT + 1):
        bit = 1 << (number - 1)
        action = state.actions[number - 1] if state.actions else signals.Action(signals.DEFAULT, 0, 0)
        kind = {signals.DEFAULT: "default", signals.IGNORE: "ignore"}.get(action.handler, "caught")
        pending = "thread" if state.pending & bit else "process" if state.shared & bit else ""
        blocked = "yes" if state.blocked & bit else ""
        if every or kind != "default" or pending or blocked:
            handler = action.handler if kind == "caught" else None
            mask = action.mask if kind == "caught" else None
            yield Row(handler, (
                number, signals.name(number), pending, blocked, kind, handler, signals.flag_names(action.flags), mask))


@dcmd("cred", yields="struct cred", group="Processes")
def cred(session: Session, address: int | None, which: Annotated[str | None, WHICH]) -> Iterator[Output]:
    """Show the credentials of a task: user and group ids, groups, capabilities by name.

    Of the task whose task_struct the address is, of a pid (decimal) or name, or of the process context. Ids are those
    of the initial user namespace. Into a pipe it passes the address of the struct cred.

    Examples:
      ::cred 1
      ::pgrep -x sshd | ::cred
    """
    found = find(session, address, which)
    value = tasks.task_value(session.target, found.address)
    known = creds.credentials(value)
    facts: dict[str, Any] = {"address": f"0x{known.address:x}", "pid": found.pid, "comm": found.comm}
    facts |= {name: getattr(known, name) for name in creds.IDS}
    try:
        facts["groups"] = creds.groups(value)
    except KshellError as error:
        facts["groups"] = f"<{error}>"
    facts |= {name: f"0x{getattr(known, name):x}" for name in creds.CAPS}

    def lines() -> Iterator[str]:
        yield f"{found.pid} ({escape(found.comm)})  cred 0x{known.address:x}"
        for kind in ("uid", "gid"):
            yield "  ".join(f"{name} {facts[name]}" for name in creds.IDS if name.endswith(kind))
        shown = facts["groups"]
        yield f"groups {' '.join(map(str, shown)) or 'none' if isinstance(shown, list) else shown}"
        for name in creds.CAPS:
            yield f"{name:<16} {creds.capability_names(getattr(known, name))}"

    yield Record(lines(), lambda: facts, known.address)
