"""The handle: one open target, the selection and the cursor, and the class face (methods that do all or raise).

What it promises is written down in libkvm.md 6.3 and 6.4 (docs/kvm.md in short). One lock per handle makes each
transfer and each step of an iteration one thing; selection and cursor are the caller's to share.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kshell.errors import Fault, KshellError, Reason, repr_name
from kshell.kvm.backend import Backend, Facts, User
from kshell.kvm.errors import (
    FaultError,
    KvmError,
    NoProcessError,
    NoSymbolError,
    NoUserSpaceError,
    ReadOnlyError,
    from_error,
)
from kshell.kvm.proc import Proc
from kshell.kvm.spaces import KAS, PHYS, SELECTED, Space
from kshell.kvm.strings import area_size, split_strings
from kshell.kvm.symbols import best_symbol
from kshell.kvm.transfer import move
from kshell.memory.model import TOP, Memory
from kshell.types.model import Symbol

Buffer = bytes | bytearray | memoryview
AnySpace = Space | Proc | Memory


class Kvm:
    """An open target. Made by :func:`kshell.kvm.open` or :func:`kshell.kvm.kvm_open`.

    :ivar errno: the errno value of the last failure, 0 before the first; successes do not clear it, you may
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.errno = 0
        self.message = ""
        self.lock = threading.RLock()
        self._closed = False
        self._selected: Proc | None = None
        self.cursor: Iterator[Facts] | None = None

    # -- life ------------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def mode(self) -> str:
        """"r" read only, "r+" writes go into the target, "c" writes are kept in memory."""
        return self.backend.mode

    @property
    def path(self) -> str:
        return self.backend.path

    def close(self) -> None:
        """Release everything. A second close does nothing; any other use raises ValueError."""
        with self.lock:
            self._closed = True
            self._selected = self.cursor = None
            self.backend.close()

    def check_open(self) -> None:
        """:raises ValueError: the handle is closed"""
        if self._closed:
            raise ValueError("operation on a closed kvm handle")

    def __enter__(self) -> Kvm:
        self.check_open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        backend = self.backend
        return f"<Kvm {backend.kind} {backend.path!r} mode {backend.mode!r} {'closed' if self._closed else 'open'}>"

    def failed(self, error: KshellError | OSError, pid: int | None = None) -> KvmError:
        """Record *error* as the last failure and return it as a KvmError."""
        known = from_error(error, pid)
        self.errno, self.message = known.errno or errno.EIO, str(known)
        return known

    # -- the core of both faces ------------------------------------------------------------------------------------

    def transfer(
        self, space: AnySpace, address: int, size: int, into: memoryview | None = None, data: memoryview | None = None,
    ) -> tuple[int, KvmError | None, bytes]:
        """Move bytes as :func:`kshell.kvm.transfer.move` does, in *space*; the reason of a stop is recorded."""
        with self.lock:
            if self._closed:
                self.check_open()
            if size == 0:
                return 0, None, b""
            try:
                with self.backend.question():
                    return self._transfer(space, address, size, into, data)
            except (KshellError, OSError) as error:  # the target that moves cannot be asked or held
                return 0, self.failed(error), b""

    def _transfer(
        self, space: AnySpace, address: int, size: int, into: memoryview | None, data: memoryview | None,
    ) -> tuple[int, KvmError | None, bytes]:
        facts: Facts | None = None
        try:
            if data is not None and self.backend.mode == "r":
                raise ReadOnlyError(errno.EBADF, f"cannot write at 0x{address:x}: {self.path} is open for reading",
                                    address, size, hint='open it with mode "r+" or "c" (O_RDWR)')
            if space is KAS:
                moved, fault, piece = move(self.backend.kernel, address, size, into, data)
            elif space is PHYS:
                moved, fault, piece = move(self.backend.physical, address, size, into, data)
            elif isinstance(space, Memory):
                moved, fault, piece = move(space, address, size, into, data)
            else:
                facts, end = self._facts_of(space), self.backend.user_end
                moved, fault, piece = move(self._user_memory(facts), address, size, into, data, end)
                if fault is not None and fault.reason is Reason.GONE and not moved and self.backend.reopen(facts):
                    moved, fault, piece = move(self._user_memory(facts), address, size, into, data, end)
        except (KshellError, OSError) as error:
            return 0, self.failed(error, facts and facts.pid), b""
        if fault is None:
            return moved, None, piece
        return moved, self.failed(fault, facts and facts.pid), piece

    def _facts_of(self, space: Space | Proc) -> Facts:
        """Return the process whose user space it is."""
        if space is SELECTED:
            if self._selected is None:
                raise NoProcessError(errno.ENXIO, "no process is selected", hint="kvm_getu selects one")
            return self._selected.facts
        owner = space.handle if isinstance(space, Proc) else space.owner
        facts = space.facts
        if owner is not self or facts is None:
            raise ValueError("a process of another handle")
        return facts

    def _user_memory(self, facts: Facts) -> Memory:
        if not facts.has_user:
            what = "a kernel thread" if facts.is_kernel else "a zombie" if facts.state == "Z" else "about to end"
            name = repr_name(facts.comm)
            raise NoUserSpaceError(errno.ENXIO, f"process {facts.pid} {name} is {what}: it has no user memory")
        return self.backend.user_space(facts)

    def _read(self, space: AnySpace, address: int, size: int) -> bytes:
        _check_range(address, size)
        _, error, piece = self.transfer(space, address, size)
        if error is not None:
            raise error
        return piece

    def _read_upto(self, space: AnySpace, address: int, size: int) -> bytes:
        """Return what is there. Raises where "nothing is mapped here" would be the wrong answer."""
        _check_range(address, size)
        _, error, piece = self.transfer(space, address, size)
        if error is None or piece or (isinstance(error, FaultError) and error.errno in (errno.EFAULT, errno.EIO)):
            return piece
        raise error

    def _read_into(self, space: AnySpace, address: int, buffer: bytearray | memoryview) -> int:
        view = memoryview(buffer).cast("B")
        if view.readonly:
            raise TypeError("the buffer is read-only")
        _check_range(address, len(view))
        moved, error, _ = self.transfer(space, address, len(view), into=view)
        if error is not None:
            if hasattr(error, "partial"):
                error.partial = bytes(view[:moved])
            raise error
        return moved

    def _write(self, space: AnySpace, address: int, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        _check_range(address, len(view))
        _, error, _ = self.transfer(space, address, len(view), data=view)
        if error is not None:
            raise error

    # -- memory ----------------------------------------------------------------------------------------------------

    def kread(self, address: int, size: int) -> bytes:
        """Return *size* bytes of kernel memory.

        :raises KvmError: unless all of them could be read; ``partial`` holds those before the first that could not
        """
        return self._read(KAS, address, size)

    def kread_upto(self, address: int, size: int) -> bytes:
        """Return the bytes of kernel memory up to the first that cannot be read, at most *size*; maybe ``b""``."""
        return self._read_upto(KAS, address, size)

    def kreadinto(self, address: int, buffer: bytearray | memoryview) -> int:
        """Fill *buffer* from kernel memory and return its size. :raises KvmError: unless it could be filled"""
        return self._read_into(KAS, address, buffer)

    def kwrite(self, address: int, data: Buffer) -> None:
        """Write *data* to kernel memory. :raises KvmError: unless all was written; ``moved`` bytes stay written"""
        self._write(KAS, address, data)

    def pread(self, paddr: int, size: int) -> bytes:
        """Return *size* bytes of physical memory. :raises KvmError: as :meth:`kread`"""
        return self._read(PHYS, paddr, size)

    def pread_upto(self, paddr: int, size: int) -> bytes:
        """Return physical memory as :meth:`kread_upto` does kernel memory."""
        return self._read_upto(PHYS, paddr, size)

    def pwrite(self, paddr: int, data: Buffer) -> None:
        """Write *data* to physical memory. :raises KvmError: as :meth:`kwrite`"""
        self._write(PHYS, paddr, data)

    def uread(self, address: int, size: int) -> bytes:
        """Return *size* bytes of the selected process's memory. :raises NoProcessError: none is selected"""
        return self._read(SELECTED, address, size)

    def uread_upto(self, address: int, size: int) -> bytes:
        """Return the selected process's memory as :meth:`kread_upto` does kernel memory."""
        return self._read_upto(SELECTED, address, size)

    def uwrite(self, address: int, data: Buffer) -> None:
        """Write *data* to the selected process's memory. :raises KvmError: as :meth:`kwrite`"""
        self._write(SELECTED, address, data)

    def aread(self, space: AnySpace, address: int, size: int) -> bytes:
        """Return *size* bytes of *space*: KAS, PHYS, a Proc, its ``space``, or a kshell Memory."""
        return self._read(check_space(space), address, size)

    def aread_upto(self, space: AnySpace, address: int, size: int) -> bytes:
        """Return memory of *space* as :meth:`kread_upto` does kernel memory."""
        return self._read_upto(check_space(space), address, size)

    def awrite(self, space: AnySpace, address: int, data: Buffer) -> None:
        """Write *data* to *space*. :raises KvmError: as :meth:`kwrite`"""
        self._write(check_space(space), address, data)

    def vtop(self, address: int, space: AnySpace = KAS) -> int:
        """Return the physical address behind *address*.

        :raises FaultError: it has none; whether the dump holds the page is not asked
        """
        _check_range(address, 0)
        check_space(space)
        with self.lock:
            self.check_open()
            if space is PHYS:
                return address
            facts: Facts | None = None
            try:
                if isinstance(space, Memory):
                    return _translate(space, address)
                with self.backend.question():
                    if space is not KAS:
                        facts = self._facts_of(space)
                        self._user_memory(facts)
                    return self.backend.vtop(facts, address)
            except (KshellError, OSError) as error:
                raise self.failed(error, facts and facts.pid) from error

    # -- symbols ---------------------------------------------------------------------------------------------------

    def find_symbol(self, name: str) -> Symbol | None:
        """Return the symbol *name*: the kernel's before modules', global before local, then the last in the table."""
        with self.lock:
            self.check_open()
            try:
                return best_symbol(self.backend.symbols(name))
            except (KshellError, OSError) as error:
                raise self.failed(error) from error

    def symbol(self, name: str) -> Symbol:
        """Return the symbol *name*. :raises NoSymbolError: there is none (a KeyError); carries near names"""
        found = self.find_symbol(name)
        if found is None:
            with self.lock:
                raise NoSymbolError(name, self.backend.near(name))
        return found

    def nlist(self, *names: str) -> dict[str, Symbol | None]:
        """Return each of *names* with its symbol, or with None."""
        return {name: self.find_symbol(name) for name in names}

    # -- processes -------------------------------------------------------------------------------------------------

    def procs(self) -> Iterator[Proc]:
        """Yield the processes, each once.

        :raises FaultError: the list cannot be followed further
        :raises CorruptDumpError: the list loops or contradicts itself
        """
        with self.lock:
            self.check_open()
            source = self.start_processes()
        while (facts := self.next_process(source)) is not None:
            yield Proc(self, facts)

    def start_processes(self) -> Iterator[Facts]:
        """Begin a pass over the processes. For both faces."""
        try:
            return self.backend.processes()
        except (KshellError, OSError) as error:
            raise self.failed(error) from error

    def next_process(self, source: Iterator[Facts]) -> Facts | None:
        """Return the next process of a pass, None at its end. For both faces."""
        with self.lock:
            self.check_open()
            try:
                with self.backend.question():
                    return next(source, None)
            except (KshellError, OSError) as error:
                raise self.failed(error) from error

    def proc(self, pid: int) -> Proc:
        """Return the process *pid*. :raises NoProcessError: there is none"""
        with self.lock:
            self.check_open()
            try:
                with self.backend.question():
                    facts = self.backend.process(pid) if pid >= 0 else None
                if facts is None:
                    raise NoProcessError(errno.ESRCH, f"no process with pid {pid}")
            except (KshellError, OSError) as error:
                raise self.failed(error, pid) from error
            return Proc(self, facts)

    def getu(self, proc: Proc) -> User:
        """Select *proc* for uread and uwrite and return its user area.

        :raises KvmError: it has no user memory, is gone or may not be read; the earlier selection stays
        """
        if not isinstance(proc, Proc):
            raise TypeError(f"a Proc is selected, not {type(proc).__name__}")
        with self.lock:
            self.check_open()
            facts = self._facts_of(proc)
            try:
                with self.backend.question():
                    self._user_memory(facts)
                    user = self.backend.user(facts)
            except (KshellError, OSError) as error:
                raise self.failed(error, facts.pid) from error
            self._selected = proc
            return user

    @property
    def selected(self) -> Proc | None:
        """The process that getu selected last."""
        return self._selected

    @contextmanager
    def user(self, pid: int | Proc) -> Iterator[User]:
        """Select a process for the time of a ``with`` block; afterwards the earlier selection is back."""
        proc = pid if isinstance(pid, Proc) else self.proc(pid)
        before = self._selected
        user = self.getu(proc)
        try:
            yield user
        finally:
            self._selected = None if self._closed else before

    def user_area(self, proc: Proc) -> User:
        """Return the user area of *proc*, selecting nothing."""
        with self.lock:
            self.check_open()
            facts = self._facts_of(proc)
            try:
                with self.backend.question():
                    self._user_memory(facts)
                    return self.backend.user(facts)
            except (KshellError, OSError) as error:
                raise self.failed(error, facts.pid) from error

    def strings(self, proc: Proc, which: str) -> list[str]:
        """Return the "argument" or "environment" strings of *proc*, all or an error."""
        with self.lock:
            user = self.user_area(proc)
            start, end = (user.arg_start, user.arg_end) if which == "argument" else (user.env_start, user.env_end)
            try:
                size = area_size(start, end, which)
            except KshellError as error:
                raise self.failed(error, proc.pid) from error
            return split_strings(self.aread(proc, start, size))


def _check_range(address: int, size: int) -> None:
    if not 0 <= address < TOP:
        raise ValueError(f"address {address:#x} is not in 0..2**64-1")
    if size < 0:
        raise ValueError(f"size {size} is negative")


def _translate(space: Memory, address: int) -> int:
    """Translate in a Memory that is an address space."""
    translate = getattr(space, "translate", None)
    if translate is None:
        raise Fault(address, 1, Reason.UNSUPPORTED, space=space.space, verb="translate", detail="no page tables")
    return int(translate(address))


def check_space(space: AnySpace) -> AnySpace:
    if not isinstance(space, Space | Proc | Memory):
        raise TypeError(f"a space is KAS, PHYS, a Proc, its space or a Memory, not {type(space).__name__}")
    return space
