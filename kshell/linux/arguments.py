"""Arguments and environment of a process, from its own memory, as /proc/PID/cmdline and environ show them.

Kernel source: ``get_mm_cmdline`` and ``environ_read`` in fs/proc/base.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kshell.errors import Fault, FormatError, NoUserSpaceError

if TYPE_CHECKING:
    from kshell.linux.tasks import Task
    from kshell.memory.model import Memory
    from kshell.target.target import Target

#: more than execve() takes (a quarter of the stack limit, by default 2 MiB) is damage
MAX_SIZE = 8 << 20


def cmdline(target: Target, task: Task) -> bytes:
    """Return the bytes of /proc/PID/cmdline: each argument and its NUL; empty for tasks without user memory.

    :raises Fault: they cannot be read: swapped out, or left out of the dump
    """
    if not task.mm:
        return b""
    start, end, environ, environ_end = _bounds(target, task.mm)
    if start >= end:
        return b""
    space = target.user_space(task.mm)
    data = _read(space, start, end)
    # setproctitle(): without a NUL where the arguments end the title goes on up to one, into the environment's room
    # (since 5.3, d26d0cd97c88 "/proc/<pid>/cmdline: add back the setproctitle() special case").
    if data[-1] and environ == end and environ_end > environ:
        more, _fault = space.read_upto(start, min(environ_end - start, end - start + 4096))
        return more.split(b"\0", 1)[0] + b"\0"
    return data


def environ(target: Target, task: Task) -> bytes:
    """Return the bytes of /proc/PID/environ: each NAME=value and its NUL; empty for tasks without user memory.

    :raises Fault: they cannot be read
    """
    if not task.mm:
        return b""
    _, _, start, end = _bounds(target, task.mm)
    return _read(target.user_space(task.mm), start, end) if start < end else b""


def require_user_memory(task: Task) -> None:
    """Raise :class:`NoUserSpaceError` when *task* has no user memory, saying why."""
    if task.mm:
        return
    kind = "a kernel thread" if task.is_kernel_thread else "a zombie" if task.is_zombie else "exiting"
    raise NoUserSpaceError(f"process {task.pid} ({task.comm}) is {kind}: it has no user memory")


def _bounds(target: Target, mm: int) -> tuple[int, int, int, int]:
    value = target.value("struct mm_struct", mm)
    start, end, first, last = (value.integer(name) for name in ("arg_start", "arg_end", "env_start", "env_end"))
    return start, end, first, last


def _read(space: Memory, start: int, end: int) -> bytes:
    if end - start > MAX_SIZE:
        raise FormatError(f"arguments of {end - start} bytes at 0x{start:x}: the mm_struct is damaged")
    data, fault = space.read_upto(start, end - start)
    if fault is not None:
        raise Fault(fault.address, end - start, fault.reason, partial=data, space=fault.space, detail=fault.detail)
    return data
