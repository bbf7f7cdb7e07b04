"""Processes of the running system from /proc, in the shape of :mod:`kshell.linux.tasks`.

For systems whose kernel memory cannot be read. Addresses of kernel structures are not known there: they are 0.

Kernel source: fs/proc/array.c; Documentation/filesystems/proc.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from kshell.errors import NoProcessError
from kshell.linux.tasks import Task

PROC = "/proc"


def iter_processes(proc: str = PROC) -> Iterator[Task]:
    """Yield every process, by pid. One that ends meanwhile is left out."""
    for pid in _numbers(proc):
        task = _read(f"{proc}/{pid}")
        if task is not None:
            yield task


def iter_threads(proc: str = PROC, leaders: list[int] | None = None) -> Iterator[Task]:
    """Yield every thread of the processes with the pids *leaders*, or of all, each process's leader first."""
    for pid in _numbers(proc) if leaders is None else leaders:
        for tid in _numbers(f"{proc}/{pid}/task"):
            task = _read(f"{proc}/{pid}/task/{tid}")
            if task is not None:
                yield task


def task_by_pid(pid: int, proc: str = PROC) -> Task:
    """Return the thread or process *pid*.

    :raises NoProcessError: there is none; names the pids around it
    """
    task = _read(f"{proc}/{pid}")
    if task is None:
        near = sorted(sorted(_numbers(proc), key=lambda number: abs(number - pid))[:3])
        raise NoProcessError(f"no process {pid}", hint=f"near pids: {', '.join(map(str, near))}; ::ps lists all")
    return task


def _numbers(folder: str) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(folder) if name.isdigit())
    except OSError:
        return []


def _read(folder: str) -> Task | None:
    """Return the task that the folder tells about, None when it is gone."""
    try:
        with open(f"{folder}/stat", "rb") as file:
            stat = file.read()
        uid = os.stat(folder).st_uid
        with open(f"{folder}/status", "rb") as file:
            status = file.read()
    except OSError:
        return None
    pid, _, rest = stat.partition(b" (")
    comm, _, fields = rest.rpartition(b") ")
    words = fields.split()
    tgid = int(pid)
    for line in status.splitlines():
        if line.startswith(b"Tgid:"):
            tgid = int(line.split()[1])
        elif line.startswith(b"Uid:"):
            uid = int(line.split()[1])
            break
    return Task(
        0, int(pid), tgid, int(words[1]), int(words[2]), int(words[3]), uid, int(words[6]), words[0].decode(),
        comm.decode("utf-8", "surrogateescape"), 0)
