"""The running system seen with libkvm's eyes: processes from /proc, their memory by /proc/PID/mem, the kernel's where
/proc/kcore shows it.

Formats: Documentation/filesystems/proc.rst (stat: table 1-4), Documentation/admin-guide/mm/pagemap.rst. A process is
its pid and its start time; a pid that another process has now is *gone*, never read.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from kshell.errors import Fault, KshellError, Reason, repr_name
from kshell.kvm.backend import Facts, Page, User
from kshell.kvm.errors import KvmError, OpenError, ProcessGoneError
from kshell.kvm.names import find_symbols, near_names
from kshell.kvm.strings import decode
from kshell.memory.model import Memory
from kshell.memory.overlay import Overlay
from kshell.memory.procmem import ProcessMemory
from kshell.target.auxv import parse_auxv
from kshell.types.model import Symbol

if TYPE_CHECKING:
    from kshell.target.target import Target

PF_KTHREAD = 0x0020_0000
PROC = Path("/proc")
#: Memories kept open, those used last; another one is opened again when asked for, with the identity checked.
KEPT = 32
PAGEMAP_PRESENT, PAGEMAP_SWAPPED, PAGEMAP_FRAME = 1 << 63, 1 << 62, (1 << 55) - 1


class LiveBackend:
    """The backend of the running system. The kernel's part is opened when it is first asked for."""

    kind = "live"
    native = True

    def __init__(
        self, path: str = "/proc", mode: str = "r", namelist: str | None = None, target: Target | None = None,
    ) -> None:
        self.path, self.mode = path, mode
        self.namelist = namelist or "/proc/kallsyms"
        self._target, self._owned = target, target is None
        self._memories: OrderedDict[tuple[int, int], Memory] = OrderedDict()
        self._vmlinux = namelist
        self.user_end = 1 << 63     # the kernel checks the rest; no supported machine has user addresses above

    @property
    def target(self) -> Target:
        """The kernel's part. Kernel memory is written by nobody: "r+" is for processes."""
        if self._target is None:
            from kshell.target.open import open_target

            target = open_target(None, None, "c" if self.mode == "c" else "r")
            if self._vmlinux is not None:
                _add_namelist(target, self._vmlinux)
            self._target = target
        return self._target

    def question(self) -> AbstractContextManager[None]:
        return nullcontext() if self._target is None else self._target.question()

    @property
    def kernel(self) -> Memory:
        return self.target.kernel

    @property
    def physical(self) -> Memory:
        return self.target.physical

    @property
    def displacement(self) -> int:
        info = self.target.vmcoreinfo
        return info.kernel_offset if info else 0

    # -- processes -------------------------------------------------------------------------------------------------

    def processes(self) -> Iterator[Facts]:
        for pid in sorted(int(name) for name in os.listdir(PROC) if name.isdigit()):
            stat = read_stat(pid)
            if stat is not None:       # else it ended since
                yield stat.facts

    def process(self, pid: int) -> Facts | None:
        stat = read_stat(pid)
        # A thread's number has a folder too, though no listing shows it; its status tells whose thread it is.
        if stat is None or not is_process(pid):
            return None
        return stat.facts

    def _check(self, process: Facts) -> Stat:
        """Return what /proc says of *process* now, or raise that it is gone."""
        stat = read_stat(process.pid)
        if stat is None or stat.facts.start != process.start:
            what = "is gone" if stat is None else "is gone; another process has its number now"
            raise ProcessGoneError(f"process {process.pid} {repr_name(process.comm)} {what}", process.pid)
        return stat

    def user_space(self, process: Facts) -> Memory:
        key = process.pid, process.start
        memory = self._memories.get(key)
        if memory is None:
            self._check(process)
            try:
                memory = ProcessMemory(process.pid, writable=self.mode == "r+")
            except KshellError:
                self._check(process)    # rather "gone" than what a process that ends looks like
                raise
            try:
                self._check(process)    # between the two checks the pid was this process's
            except BaseException:
                memory.close()
                raise
            if self.mode == "c":
                memory = Overlay(memory)
            self._memories[key] = memory
            if self.mode != "c" and len(self._memories) > KEPT:     # private writes are kept whatever comes
                self._memories.popitem(last=False)[1].close()
        else:
            self._memories.move_to_end(key)
        return memory

    def reopen(self, process: Facts) -> bool:
        # A descriptor of /proc/PID/mem stays with the memory it was opened on, and exec gives a process a new one.
        memory = self._memories.pop((process.pid, process.start), None)
        if memory is not None:
            memory.close()
        stat = read_stat(process.pid)
        return stat is not None and stat.facts.start == process.start and stat.facts.has_user

    def user(self, process: Facts) -> User:
        stat = self._check(process)
        folder = PROC / str(process.pid)
        try:
            auxv = parse_auxv((folder / "auxv").read_bytes())
            status = (folder / "status").read_text("utf-8", "surrogateescape")
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessGoneError(f"process {process.pid} {repr_name(process.comm)} is gone", process.pid) from error
        except PermissionError as error:
            raise KvmError(errno.EACCES, f"process {process.pid} {repr_name(process.comm)} may not be traced",
                           hint="its owner, or root, may") from error
        rows = (line.split() for line in status.splitlines() if line.startswith(("Uid:", "Gid:")))
        ids = {row[0]: int(row[1]) for row in rows}
        self._check(process)
        ticks = os.sysconf("SC_CLK_TCK")
        return User(process.pid, stat.facts.comm, *stat.ends, auxv, process.start * 1_000_000_000 // ticks,
                    ids["Uid:"], ids["Gid:"])

    def vtop(self, process: Facts | None, address: int) -> int:
        if process is None:
            from kshell.target.space import AddressSpace

            kernel = self.kernel
            if isinstance(kernel, AddressSpace):
                return kernel.translate(address)
            kernel.read(address, 1)     # says why there is nothing to translate with
            raise Fault(address, 1, Reason.UNSUPPORTED, space="kernel", verb="translate")
        self._check(process)
        size = os.sysconf("SC_PAGE_SIZE")
        try:
            with (PROC / str(process.pid) / "pagemap").open("rb", buffering=0) as file:
                raw = os.pread(file.fileno(), 8, address // size * 8)
        except PermissionError as error:
            raise Fault(address, 1, Reason.PERMISSION, space="user", verb="translate") from error
        except (FileNotFoundError, ProcessLookupError) as error:
            raise Fault(address, 1, Reason.GONE, space="user", verb="translate") from error
        self._check(process)
        entry = int.from_bytes(raw, "little")
        if len(raw) < 8 or not entry & PAGEMAP_PRESENT:
            reason = Reason.SWAPPED if entry & PAGEMAP_SWAPPED else Reason.NOT_MAPPED
            raise Fault(address, 1, reason, space="user", verb="translate")
        if not entry & PAGEMAP_FRAME:
            raise Fault(address, 1, Reason.PERMISSION, space="user", verb="translate",
                        detail="/proc/PID/pagemap hides frame numbers", hint="CAP_SYS_ADMIN is needed")
        return (entry & PAGEMAP_FRAME) * size + address % size

    # -- symbols and pages -----------------------------------------------------------------------------------------

    def symbols(self, name: str) -> Sequence[Symbol]:
        return find_symbols(self.target, name)

    def near(self, name: str) -> Sequence[str]:
        return near_names(self.target, name)

    def pages(self) -> Iterator[Page]:
        return iter(())

    def close(self) -> None:
        while self._memories:
            self._memories.popitem()[1].close()
        if self._target is not None and self._owned:
            self._target.close()


def _add_namelist(target: Target, path: str) -> None:
    """Add a vmlinux or System.map to the running system's symbols; only its memory can tell that they belong to it."""
    from kshell.target.vmlinux import add_vmlinux

    try:
        if target.vmcoreinfo is None:
            raise OpenError(path, f"{path}: a namelist cannot be compared with the running kernel, whose memory is not "
                                  "shown", kind="unsupported", hint="without one /proc/kallsyms is used")
        add_vmlinux(target, path)
    except BaseException:
        target.close()
        raise


class Stat:
    """/proc/PID/stat: the facts, and ``arg_start arg_end env_start env_end`` (0 when the caller may not know them)."""

    __slots__ = ("ends", "facts")

    def __init__(self, text: bytes) -> None:
        head, _, rest = text.rpartition(b")")       # a comm may hold anything, brackets and spaces too
        pid, _, comm = head.partition(b"(")
        field = [b"", b"", *rest.split()]           # field[n - 1] is number n of proc(5)
        state, flags, size = field[2].decode(), int(field[8]), int(field[22])
        is_kernel = bool(flags & PF_KTHREAD)
        has_user = not is_kernel and state not in "ZX" and size > 0
        self.facts = Facts(int(pid), int(field[3]), decode(comm), state, 0, is_kernel, 0, int(field[21]), has_user)
        self.ends = (0, 0, 0, 0)
        if len(field) > 50:     # since Linux 3.5
            self.ends = (int(field[47]), int(field[48]), int(field[49]), int(field[50]))


def read_stat(pid: int) -> Stat | None:
    """Return /proc/PID/stat of the process *pid*; None when there is none."""
    try:
        return Stat((PROC / str(pid) / "stat").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_process(pid: int) -> bool:
    """Whether *pid* is a process's number and not only that of one of its threads."""
    try:
        status = (PROC / str(pid) / "status").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return f"\nTgid:\t{pid}\n".encode() in status
