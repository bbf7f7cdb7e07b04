"""What a handle stands on: the small interface between the binding and one kind of target, and the facts it passes.

Backends: :mod:`kshell.kvm.backend_image` (dumps, over a Target), :mod:`kshell.kvm.backend_live` (the running system).
A backend raises :class:`kshell.errors.KshellError` (Fault, FormatError, ...) or OSError; the handle makes counts or
KvmErrors of them. It is called under the handle's lock, from one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from kshell.memory.model import Memory
from kshell.types.model import Symbol


class Facts(NamedTuple):
    """What is known of one process (thread group) at the moment it was read.

    :ivar pid: as the initial namespace (image) or our own (live) numbers it; the thread group's
    :ivar state: one letter as ps(1) prints it: R S D T t X Z P I
    :ivar address: of its task_struct; 0 on the running system without kernel memory
    :ivar is_kernel: a kernel thread or the idle task: it never has user memory
    :ivar mm: address of its mm_struct; 0 when it has none or it is not known
    :ivar start: when it started, in the backend's own unit: with the pid, its identity
    :ivar has_user: whether it has user memory now
    """

    pid: int
    ppid: int
    comm: str
    state: str
    address: int
    is_kernel: bool
    mm: int
    start: int
    has_user: bool


class User(NamedTuple):
    """The Linux meaning of a user area: there is no such structure, so it is put together from several.

    Addresses are user virtual, ends exclusive. ``auxv`` is the auxiliary vector the kernel passed at exec, pairs
    (type, value) without the AT_NULL at its end. ``start_time`` is nanoseconds since boot.
    """

    pid: int
    comm: str
    arg_start: int
    arg_end: int
    env_start: int
    env_end: int
    auxv: tuple[tuple[int, int], ...]
    start_time: int
    uid: int
    gid: int


class Page(NamedTuple):
    """One page of the image, as :func:`kshell.kvm.kvm_walk_pages` tells it; None is "not known".

    :ivar paddr: physical address
    :ivar kmap_vaddr: in the kernel image, where it is one of the image's pages
    :ivar dmap_vaddr: in the direct map
    :ivar prot: PROT_READ | PROT_WRITE | PROT_EXEC of the direct map
    :ivar offset: in the file
    :ivar size: bytes
    """

    paddr: int
    kmap_vaddr: int | None
    dmap_vaddr: int | None
    prot: int | None
    offset: int | None
    size: int


class Backend(Protocol):
    """One target, seen with libkvm's eyes."""

    #: one word for repr: "vmcore", "live"
    kind: str
    #: what was opened
    path: str
    #: where symbols come from, for kvm_namelist
    namelist: str
    #: "r", "r+" or "c"
    mode: str
    #: end of user addresses, exclusive; a transfer in a process's space never reaches beyond
    user_end: int
    #: whether the target's architecture is that of this machine
    native: bool

    def question(self) -> AbstractContextManager[None]:
        """The time of one transfer or step: nothing of a target that moves is kept from one to the next."""

    @property
    def displacement(self) -> int:
        """What KASLR added to linked addresses, modulo 2**64."""

    @property
    def kernel(self) -> Memory: ...

    @property
    def physical(self) -> Memory: ...

    def processes(self) -> Iterator[Facts]:
        """Yield the processes, each once. An error ends it."""

    def process(self, pid: int) -> Facts | None:
        """Return the process *pid*, None when there is none."""

    def user_space(self, process: Facts) -> Memory:
        """Return the memory of a process that has some; the same process, or an error: never another one's."""

    def reopen(self, process: Facts) -> bool:
        """Told that the memory of *process* answered "gone": whether there is a new one of the same process (exec)."""

    def user(self, process: Facts) -> User:
        """Read the user area of *process*."""

    def vtop(self, process: Facts | None, address: int) -> int:
        """Translate a virtual address of *process* (None: the kernel) to a physical one, or raise Fault."""

    def symbols(self, name: str) -> Sequence[Symbol]:
        """Return the symbols of this exact name in table order, the kernel's if it has any, else the modules'."""

    def near(self, name: str) -> Sequence[str]:
        """Return names that are like *name*, for "did you mean"."""

    def pages(self) -> Iterator[Page]:
        """Yield the pages that the image holds, in ascending order; nothing when that is not known."""

    def close(self) -> None:
        """Release everything. A second call does nothing."""


WalkCallback = Callable[[Page, Any], object]
