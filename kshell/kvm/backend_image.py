"""A dump seen with libkvm's eyes: a Target, whose processes are those of the kernel in it.

``kas`` is the kernel's page tables, a process's address space its mm_struct's; the list of processes is
``init_task.tasks`` with init_task itself, which is pid 0, first (libkvm.md 7).
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from kshell.errors import Fault, FormatError, KshellError, NoUserSpaceError, repr_name
from kshell.kvm.backend import Facts, Page, User
from kshell.kvm.errors import ProcessGoneError
from kshell.kvm.names import find_symbols, near_names
from kshell.linux.creds import credentials
from kshell.linux.tasks import Task, find_task, iter_processes, read_task, task_value
from kshell.memory.model import Memory
from kshell.target.auxv import parse_auxv
from kshell.target.kernel import user_half
from kshell.target.space import AddressSpace
from kshell.target.target import Target
from kshell.types.model import Symbol

UNKNOWN = -1


class _Window(NamedTuple):
    """Virtual start and end, and the physical address of the start."""

    start: int
    end: int
    paddr: int


class ImageBackend:
    """The backend over a :class:`Target` of an image."""

    kind = "vmcore"

    def __init__(self, target: Target, namelist: str | None = None, *, owned: bool = True) -> None:
        """Take *target*; with *owned* it is closed with the backend."""
        self.target, self._owned = target, owned
        self.path = target.path
        self.namelist = namelist or target.path
        self.mode = target.mode
        self.native = target.arch.name == os.uname().machine
        self.displacement = target.vmcoreinfo.kernel_offset if target.vmcoreinfo else 0
        self._closed = False
        kernel = target.kernel
        self.user_end = user_half(target.arch, kernel) if isinstance(kernel, AddressSpace) else target.arch.kernel_half

    def question(self) -> AbstractContextManager[None]:
        return self.target.question() if self.target.live else nullcontext()

    @property
    def kernel(self) -> Memory:
        return self.target.kernel

    @property
    def physical(self) -> Memory:
        return self.target.physical

    def processes(self) -> Iterator[Facts]:
        yield facts_of(read_task(self.target, self.target.address_of("init_task")))
        for task in iter_processes(self.target):
            yield facts_of(task)

    def process(self, pid: int) -> Facts | None:
        if pid == 0:
            return facts_of(read_task(self.target, self.target.address_of("init_task")))
        address = find_task(self.target, pid)
        if not address:
            return None
        task = read_task(self.target, address)
        return facts_of(task) if task.tgid == task.pid else None    # a thread's number is no process's

    def user_space(self, process: Facts) -> Memory:
        if not process.mm:
            raise NoUserSpaceError(f"process {process.pid} has no mm_struct")
        return self.target.user_space(self._mm_now(process) if self.target.live else process.mm)

    def _mm_now(self, process: Facts) -> int:
        """Return the mm_struct that *process* has now: execve(2) gives it another one.

        :raises ProcessGoneError: its task_struct is another one's by now
        """
        gone = ProcessGoneError(f"process {process.pid} {repr_name(process.comm)} is gone", process.pid)
        try:
            task = read_task(self.target, process.address)
        except KshellError as error:
            raise gone from error
        if task.tgid != process.pid or task.is_zombie or not task.mm:
            raise gone
        return task.mm

    def reopen(self, process: Facts) -> bool:
        return False

    def user(self, process: Facts) -> User:
        task = task_value(self.target, process.address)
        mm = self.target.value("struct mm_struct", process.mm)
        arg_start, arg_end, env_start, env_end = (
            mm.integer(name) for name in ("arg_start", "arg_end", "env_start", "env_end"))
        creds = credentials(task)
        # Since Linux 5.5 (cf25e24db61c "time: Rename tsk->real_start_time to ->start_boottime").
        started = "start_boottime" if task.has("start_boottime") else "real_start_time"
        auxv = parse_auxv(mm["saved_auxv"].bytes(), self.target.arch.byteorder)
        return User(process.pid, process.comm, arg_start, arg_end, env_start, env_end, auxv, task.integer(started),
                    creds.uid, creds.gid)

    def vtop(self, process: Facts | None, address: int) -> int:
        space = self.target.kernel if process is None else self.user_space(process)
        if not isinstance(space, AddressSpace):
            space.read(address, 1)      # says why there is nothing to translate with
            raise FormatError("this target has no page tables")
        return space.translate(address)

    def symbols(self, name: str) -> Sequence[Symbol]:
        return find_symbols(self.target, name)

    def near(self, name: str) -> Sequence[str]:
        return near_names(self.target, name)

    def pages(self) -> Iterator[Page]:
        size = self.target.arch.page_size
        windows = self._windows()
        place = getattr(self.target.physical, "file_offset", None)
        for part in self.target.physical.ranges():
            if not part.held:
                continue
            for paddr in range(part.start & -size, part.end, size):
                image, direct = (_through(window, paddr) for window in windows)
                yield Page(paddr, image, direct, None, place(paddr) if place else None, size)

    def _windows(self) -> list[_Window | None]:
        """Return the kernel image's window and the direct map's; None for one that is not known."""
        target, kernel = self.target, self.target.kernel
        found: list[_Window | None] = [None, None]
        first, end = target.symbols.get("_text"), target.symbols.get("_end")
        base, frames = target.symbols.get("page_offset_base"), target.symbols.get("max_pfn")
        if first and end and isinstance(kernel, AddressSpace):
            found[0] = _Window(first.address, end.address, kernel.translate(first.address))
        if base and frames:
            start = int.from_bytes(kernel.read(base.address, 8), "little")
            count = int.from_bytes(kernel.read(frames.address, 8), "little")
            found[1] = _Window(start, start + count * target.arch.page_size, 0)
        return found

    def close(self) -> None:
        if self._owned and not self._closed:
            self.target.close()
            # Types refer to each other in circles, and with them the mappings of the index files that they are read
            # from, each of which holds a descriptor; after closing none is left open.
            gc.collect()
        self._closed = True


def _through(window: _Window | None, paddr: int) -> int | None:
    """Return where *paddr* is seen through *window*, None when it is not."""
    if window is None or not window.paddr <= paddr < window.paddr + window.end - window.start:
        return None
    return window.start + paddr - window.paddr


def facts_of(task: Task) -> Facts:
    """Return *task* as facts. Its address is its identity: in an image no other task ever gets it."""
    ppid = task.ppid if not isinstance(task.ppid, Fault) else UNKNOWN
    is_kernel = task.is_kernel_thread or (not task.mm and not task.is_zombie)
    mm = 0 if is_kernel else task.mm        # a kernel thread may borrow one (kthread_use_mm): it is not its own
    return Facts(task.pid, ppid, task.comm, task.state, task.address, is_kernel, mm, task.address, mm != 0)
