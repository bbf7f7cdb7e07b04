"""The function face: the names, arguments and results of the manual of section 3KVM, and the BSD additions.

Counts and -1: no function raises for a condition of the *target*. What C leaves undefined raises: TypeError for
arguments of wrong types, ValueError for numbers out of range, short buffers and closed handles. Where manual and
implementation of the original differ, docs/kvm.md tells which one is followed.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kshell.errors import KshellError
from kshell.kvm.backend import Facts, User, WalkCallback
from kshell.kvm.errors import KvmError
from kshell.kvm.handle import AnySpace, Kvm, check_space
from kshell.kvm.proc import Proc
from kshell.kvm.spaces import KAS, PHYS, SELECTED
from kshell.kvm.symbols import Nlist
from kshell.memory.model import TOP

if TYPE_CHECKING:
    from typing_extensions import Buffer  # collections.abc has it from Python 3.12 on

NO_ADDRESS = TOP - 1


def kvm_close(kd: Kvm) -> int:
    """Close; 0, also the second time. Everything else on a closed handle raises ValueError."""
    if not isinstance(kd, Kvm):
        raise TypeError(f"a kvm handle is closed, not {type(kd).__name__}")
    kd.close()
    return 0


def kvm_geterr(kd: Kvm | None) -> str:
    """Return the text of the last failure, ``""`` before the first and for None. Successes do not clear it."""
    return "" if kd is None else _handle(kd).message


def kvm_namelist(kd: Kvm) -> str:
    """Return the path symbols come from: the namelist, or the dump itself."""
    return _handle(kd).backend.namelist


def kvm_native(kd: Kvm) -> bool:
    """Return whether the target is of this machine's architecture."""
    return _handle(kd).backend.native


def kvm_kerndisp(kd: Kvm) -> int:
    """Return load address minus link address of the kernel (KASLR), maybe negative; 0 when unknown."""
    try:
        value = _handle(kd).backend.displacement
    except (KshellError, OSError) as error:
        kd.failed(error)
        return 0
    return value - TOP if value >= TOP // 2 else value


# -- symbols -------------------------------------------------------------------------------------------------------


def kvm_nlist(kd: Kvm, nl: list[Nlist]) -> int:
    """Look up the names of *nl* up to an entry without one; 0, or -1 when there is no symbol table.

    Missing names are no failure: their type and value are 0.
    """
    _handle(kd)
    entries: list[Nlist] = []
    for entry in nl:
        if not isinstance(entry, Nlist):
            raise TypeError(f"nl holds Nlist entries, not {type(entry).__name__}")
        if not entry.n_name:
            break
        entries.append(entry)
    for entry in entries:
        entry.clear()
    try:
        for entry in entries:
            found = kd.find_symbol(entry.n_name or "")
            if found is not None:
                entry.fill(found)
    except KvmError:
        for entry in entries:
            entry.clear()
        return -1
    return 0


# -- processes -----------------------------------------------------------------------------------------------------


def kvm_setproc(kd: Kvm) -> int:
    """Rewind the process list. 0; -1 when its head cannot be read. Selects nothing, changes no selection."""
    with _handle(kd).lock:
        kd.cursor = None
        try:
            source = kd.start_processes()
            first = kd.next_process(source)
        except KvmError:
            kd.cursor = iter(())
            return -1
        kd.cursor = _with_first(first, source)
        return 0


def _with_first(first: Facts | None, rest: Iterator[Facts]) -> Iterator[Facts]:
    if first is not None:
        yield first
        yield from rest


def kvm_nextproc(kd: Kvm) -> Proc | None:
    """Return the next process; None at the end, and when the list cannot be followed, with ``kd.errno`` set."""
    with _handle(kd).lock:
        try:
            if kd.cursor is None:
                kd.cursor = kd.start_processes()
            facts = kd.next_process(kd.cursor)
        except KvmError:
            return None
        return None if facts is None else Proc(kd, facts)


def kvm_getproc(kd: Kvm, pid: int) -> Proc | None:
    """Return the process *pid*, None when there is none. Moves no cursor."""
    number = operator.index(pid)
    try:
        return _handle(kd).proc(number)
    except KvmError:
        return None


def kvm_getu(kd: Kvm, proc: Proc) -> User | None:
    """Select *proc* for kvm_uread and kvm_uwrite and return its user area.

    None for a kernel thread, a zombie, a process that is gone or may not be read; the earlier selection stays.
    """
    try:
        return _handle(kd).getu(proc)
    except KvmError:
        return None


def kvm_getcmd(
    kd: Kvm, proc: Proc, u: User | None, arg: list[str] | None = None, env: list[str] | None = None,
) -> int:
    """Fill *arg* and *env* with the arguments and environment of *proc*; None skips that half.

    0, or -1 with both lists untouched. *u* is accepted for the manual's sake: all is read from *proc*.
    """
    _handle(kd)
    if not isinstance(proc, Proc):
        raise TypeError(f"proc is a Proc, not {type(proc).__name__}")
    for given in (arg, env):
        if given is not None and not isinstance(given, list):
            raise TypeError(f"arg and env are lists or None, not {type(given).__name__}")
    try:
        kd.user_area(proc)
        arguments = None if arg is None else kd.strings(proc, "argument")
        environment = None if env is None else kd.strings(proc, "environment")
    except KvmError:
        return -1
    if arg is not None and arguments is not None:
        arg[:] = arguments
    if env is not None and environment is not None:
        env[:] = environment
    return 0


# -- transfers -----------------------------------------------------------------------------------------------------


def kvm_kread(kd: Kvm, addr: int, buf: Buffer | None, nbytes: int | None = None) -> int:
    """Read kernel memory into *buf*; bytes moved, or -1 when the first could not be."""
    return _read(kd, KAS, addr, buf, nbytes)


def kvm_kwrite(kd: Kvm, addr: int, buf: Buffer | None, nbytes: int | None = None) -> int:
    """Write *buf* to kernel memory; bytes moved, or -1 when the first could not be."""
    return _write(kd, KAS, addr, buf, nbytes)


def kvm_uread(kd: Kvm, addr: int, buf: Buffer | None, nbytes: int | None = None) -> int:
    """Read memory of the process that kvm_getu selected last; as kvm_kread."""
    return _read(kd, SELECTED, addr, buf, nbytes)


def kvm_uwrite(kd: Kvm, addr: int, buf: Buffer | None, nbytes: int | None = None) -> int:
    """Write memory of the process that kvm_getu selected last; as kvm_kwrite."""
    return _write(kd, SELECTED, addr, buf, nbytes)


def kvm_pread(kd: Kvm, paddr: int, buf: Buffer | None, nbytes: int | None = None) -> int:
    """Read physical memory; as kvm_kread."""
    return _read(kd, PHYS, paddr, buf, nbytes)


def kvm_pwrite(kd: Kvm, paddr: int, buf: Buffer | None, nbytes: int | None = None) -> int:
    """Write physical memory; as kvm_kwrite."""
    return _write(kd, PHYS, paddr, buf, nbytes)


def kvm_aread(kd: Kvm, addr: int, buf: Buffer | None, nbytes: int | None, as_: AnySpace) -> int:
    """Read memory of any space: KAS, PHYS, a Proc, its ``space``, or a kshell Memory; as kvm_kread."""
    return _read(kd, check_space(as_), addr, buf, nbytes)


def kvm_awrite(kd: Kvm, addr: int, buf: Buffer | None, nbytes: int | None, as_: AnySpace) -> int:
    """Write memory of any space; as kvm_kwrite."""
    return _write(kd, check_space(as_), addr, buf, nbytes)


kvm_read = kvm_kread
kvm_write = kvm_kwrite


def kvm_physaddr(kd: Kvm, as_: AnySpace, addr: int) -> int:
    """Return the physical address behind *addr* in *as_*, or 2**64-1."""
    _handle(kd)
    try:
        return kd.vtop(_address(addr), as_)
    except KvmError:
        return NO_ADDRESS


def kvm_walk_pages(kd: Kvm, cb: WalkCallback, arg: Any = None) -> int:
    """Call ``cb(page, arg)`` for each page the image holds, ascending; a false answer stops.

    :returns: 1 when all pages were shown, 0 when stopped, or when the target does not know its pages
    """
    backend = _handle(kd).backend
    seen = False
    try:
        for page in backend.pages():
            seen = True
            if not cb(page, arg):
                return 0
            kd.check_open()
    except KshellError as error:
        kd.failed(error)
        return 0
    return int(seen)


def _handle(kd: Kvm) -> Kvm:
    if not isinstance(kd, Kvm):
        raise TypeError(f"kd is a kvm handle, not {type(kd).__name__}")
    kd.check_open()
    return kd


def _address(value: int) -> int:
    number = operator.index(value)
    if not 0 <= number < TOP:
        raise ValueError(f"address {number:#x} is not in 0..2**64-1")
    return number


def _buffer(buf: Buffer | None, nbytes: int | None, write: bool) -> memoryview | None:
    """Return the bytes of *buf* that take part; None for none."""
    if type(buf) is bytearray and type(nbytes) is int and 0 < nbytes == len(buf):
        return memoryview(buf)  # as below, for what is asked for most
    size = None if nbytes is None else operator.index(nbytes)
    if size is not None and size < 0:
        raise ValueError(f"nbytes is {size}")
    if buf is None:
        if size == 0:
            return None
        raise TypeError("buf is None")
    view = memoryview(buf)
    if size == 0 or (view.nbytes == 0 and size is None):
        return None
    if not view.c_contiguous:
        raise TypeError("buf is not contiguous")
    if view.readonly and not write:
        raise TypeError("buf is read-only")
    if view.format != "B" or view.ndim != 1:
        view = view.cast("B")
    if size is None or size == len(view):
        return view
    if size > len(view):
        raise ValueError(f"nbytes is {size}, buf has {len(view)} bytes")
    return view[:size]


def _read(kd: Kvm, space: AnySpace, addr: int, buf: Buffer | None, nbytes: int | None) -> int:
    _handle(kd)
    address, view = _address(addr), _buffer(buf, nbytes, False)
    if view is None:
        return 0
    moved, _, _ = kd.transfer(space, address, len(view), into=view)
    return moved or -1


def _write(kd: Kvm, space: AnySpace, addr: int, buf: Buffer | None, nbytes: int | None) -> int:
    _handle(kd)
    address, view = _address(addr), _buffer(buf, nbytes, True)
    if view is None:
        return 0
    moved, _, _ = kd.transfer(space, address, len(view), data=view)
    return moved or -1
