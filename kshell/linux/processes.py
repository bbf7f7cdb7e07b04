"""Processes of a target, whatever it is: from the kernel's memory where it can be read, else from /proc.

What :mod:`kshell.linux.tasks` and :mod:`kshell.linux.procfs` say is brought under one face here, so that who asks for a
process need not know which of the two can answer. What only some questions need is imported when they are asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kshell.errors import Fault, FormatError, KshellError, NoUserSpaceError, Reason, UsageError
from kshell.lang.numbers import decimal_value
from kshell.linux import tasks
from kshell.linux.kernel import require_kernel
from kshell.linux.tasks import Task
from kshell.target.target import Unavailable

if TYPE_CHECKING:
    from kshell.linux.mm import Vma
    from kshell.memory.model import Memory
    from kshell.memory.procmem import ProcessMemory
    from kshell.target.target import Target


def from_proc(target: Target) -> bool:
    """Whether processes are those of /proc: the running system without readable kernel memory.

    :raises KshellError: the target is no kernel, and has no processes
    """
    if target.kind != "kernel":
        require_kernel(target)
    return target.host and isinstance(target.kernel, Unavailable)


def unknown_address() -> KshellError:
    """Return what stands where the address of a kernel structure is not known."""
    return KshellError("unknown: kernel memory cannot be read")


def iter_processes(target: Target) -> Iterator[Task]:
    """Yield every process. Raises as :func:`kshell.linux.tasks.iter_processes`."""
    if not from_proc(target):
        return tasks.iter_processes(target)
    from kshell.linux import procfs

    return procfs.iter_processes()


def iter_threads(target: Target, processes: Iterable[Task] | None = None) -> Iterator[Task]:
    """Yield every thread of *processes*, or of all, each process's leader first."""
    chosen = None if processes is None else list(processes)
    if from_proc(target):
        from kshell.linux import procfs

        return procfs.iter_threads(leaders=None if chosen is None else [task.pid for task in chosen])
    return tasks.iter_threads(target, None if chosen is None else [task.address for task in chosen])


def by_pid(target: Target, pid: int) -> Task:
    """Return the process or thread *pid*.

    :raises NotFoundError: there is none; names the pids around it
    """
    if not from_proc(target):
        return tasks.task_by_pid(target, pid)
    from kshell.linux import procfs

    return procfs.task_by_pid(pid)


def by_name(target: Target, name: str) -> list[Task]:
    """Return the processes whose comm is *name*.

    :raises NotFoundError: there is none; carries names that are near
    """
    if not from_proc(target):
        return tasks.tasks_by_name(target, name)
    return tasks.with_name(iter_processes(target), name)


def by_address(target: Target, address: int) -> Task:
    """Return the task whose ``task_struct`` is at *address*.

    :raises KshellError: there is none that can be read
    """
    if from_proc(target):
        raise KshellError(f"0x{address:x} cannot be looked at: {unknown_address()}", hint="name the process by its pid")
    if not target.arch.kernel_half <= address:
        raise FormatError(f"0x{address:x} is not a task_struct: it is no kernel address")
    return tasks.read_task(target, address)


def named(target: Target, word: str) -> list[Task]:
    """Return the processes that *word* names: one by its pid, in decimal, or all whose comm it is.

    :raises NotFoundError: there is none
    """
    pid = decimal_value(word)
    return by_name(target, word) if pid is None else [by_pid(target, pid)]


def find(target: Target, word: str) -> Task:
    """Return the process that *word* names: a pid in decimal, or a comm that only one process has.

    :raises NotFoundError: there is none
    :raises KshellError: several processes have this comm; names their pids
    """
    found = named(target, word)
    if len(found) > 1:
        pids = ", ".join(str(task.pid) for task in found[:10])
        raise KshellError(f"{len(found)} processes are called {word}", hint=f"choose by pid: {pids}")
    return found[0]


def chosen(target: Target, address: int | None, word: str | None, pid: int | None) -> Task:
    """Return the process or thread that a ``task_struct``'s *address*, a *word* as for :func:`find`, or *pid* names.

    :param pid: of the process context, None without one
    :raises UsageError: nothing names one. Else as :func:`by_address`, :func:`find` and :func:`by_pid`
    """
    if address is not None:
        return by_address(target, address)
    if word is not None:
        return find(target, word)
    if pid is None:
        raise UsageError("which process: an address, a pid (decimal), a name, or the context that ::getu sets")
    return by_pid(target, pid)


def user_memory(target: Target, task: Task) -> Memory:
    """Return the user memory of *task*.

    :raises NoUserSpaceError: a kernel thread or a zombie: it has none
    :raises Fault: it may not be read
    """
    if from_proc(target):
        if task.is_kernel_thread or task.is_zombie:
            kind = "a kernel thread" if task.is_kernel_thread else "a zombie"
            raise NoUserSpaceError(f"process {task.pid} ({task.comm}) is {kind}: it has no user memory")
        return _live_memory(target, task.tgid)
    from kshell.linux import arguments

    arguments.require_user_memory(task)
    if target.host:
        try:
            memory = _live_memory(target, task.tgid)
        except KshellError:  # another pid namespace's, or it may not be traced: the page tables tell, read-only
            return target.user_space(task.mm)
        if memory.pid == task.tgid and _started(target, task) == memory.started:
            return memory
        memory.close()
    return target.user_space(task.mm)


def _live_memory(target: Target, pid: int) -> ProcessMemory:
    """Return the memory of a process of the running system; with "c" writes are kept to ourselves."""
    from kshell.memory.procmem import PrivateProcessMemory, ProcessMemory

    return PrivateProcessMemory(pid) if target.mode == "c" else ProcessMemory(pid, target.writable)


def _started(target: Target, task: Task) -> int:
    """Return when the process of *task* started, in the ticks of /proc/PID/stat (100 a second)."""
    leader = target.value("struct task_struct", task.address)["group_leader"].deref()
    # Since Linux 5.5 (cf25e24db61c "time: Rename tsk->real_start_time to ->start_boottime").
    return leader.integer("start_boottime" if leader.has("start_boottime") else "real_start_time") // 10_000_000


def cmdline(target: Target, task: Task) -> bytes:
    """Return the bytes of /proc/PID/cmdline: each argument and its NUL."""
    if from_proc(target):
        return _proc_file(task, "cmdline")
    from kshell.linux import arguments

    return arguments.cmdline(target, task)


def environ(target: Target, task: Task) -> bytes:
    """Return the bytes of /proc/PID/environ: each NAME=value and its NUL."""
    if from_proc(target):
        return _proc_file(task, "environ")
    from kshell.linux import arguments

    return arguments.environ(target, task)


def split(data: bytes) -> list[str]:
    """Return the strings that each end in NUL."""
    texts = data.decode("utf-8", "surrogateescape").split("\0")
    return texts[:-1] if texts[-1] == "" else texts


def vmas(target: Target, task: Task) -> Iterator[Vma]:
    """Yield the mappings of *task*, ascending.

    :raises NoUserSpaceError: it has no user memory
    """
    from kshell.linux import arguments, mm

    if not from_proc(target):
        arguments.require_user_memory(task)
        yield from mm.iter_vmas(target, task.mm)
        return
    for line in _proc_file(task, "maps").decode("utf-8", "surrogateescape").splitlines():
        yield mm.parse_maps(line)


def _proc_file(task: Task, name: str) -> bytes:
    path = Path(f"/proc/{task.pid}/{name}")
    try:
        return path.read_bytes()
    except OSError as error:
        reason = Reason.PERMISSION if isinstance(error, PermissionError) else Reason.GONE
        raise Fault(0, 0, reason, space=str(path), detail=error.strerror or "") from error

