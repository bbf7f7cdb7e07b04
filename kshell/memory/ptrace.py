"""A look at a live process through ptrace(2): registers of a thread, or all of it standing still for a moment.

Attached with PTRACE_SEIZE, which sends no signal and stops nothing, then PTRACE_INTERRUPT; let go with PTRACE_DETACH.
No option is set, PTRACE_O_EXITKILL least of all: when kshell ends in between, killed or not, the kernel detaches and
the process runs on (kernel/ptrace.c, ``exit_ptrace``). A thread that was stopped by a signal is stopped afterwards too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kshell.errors import KshellError

SEIZE, INTERRUPT, DETACH, GETREGSET = 0x4206, 0x4207, 17, 0x4204
NT_PRSTATUS = 1
WALL = 0x4000_0000
PATIENCE = 2.0  # seconds: a thread in uninterruptible sleep does not stop
MAX_REGISTERS = 4096


class TraceError(KshellError):
    """A thread that may not be traced, is gone, or does not stop."""


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.restype = ctypes.c_long
    library.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    return library


def _call(library: ctypes.CDLL, request: int, tid: int, address: int = 0, data: object = None) -> None:
    ctypes.set_errno(0)
    if library.ptrace(request, tid, address, data) == -1:
        number = ctypes.get_errno()
        if number:
            raise OSError(number, os.strerror(number))


@contextmanager
def stopped(tids: list[int]) -> Iterator[list[int]]:
    """Stop the threads *tids*; give those that stopped; let all go in the end.

    :raises TraceError: the first of them cannot be stopped; the others may be gone by then
    """
    library = _library()
    held: list[int] = []
    try:
        for number, tid in enumerate(tids):
            try:
                _call(library, SEIZE, tid)
                held.append(tid)
                _call(library, INTERRUPT, tid)
            except OSError as error:
                if not number:
                    raise _refused(tid, error) from error
        ready = [tid for tid in held if _wait(tid)]
        if held and not ready:
            raise TraceError(f"thread {tids[0]} does not stop: it sleeps in the kernel and cannot be interrupted")
        yield ready
    finally:
        for tid in held:
            try:
                _call(library, DETACH, tid)
            except OSError:
                continue  # it is gone; or it did not stop, and the kernel lets it go when we end


def _wait(tid: int) -> bool:
    """Wait until the thread stands; False when it ends or does not stop in time."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            found, status = os.waitpid(tid, os.WNOHANG | WALL)
        except ChildProcessError:
            return False
        if found:
            return os.WIFSTOPPED(status)
        if time.monotonic() > until:
            return False
        time.sleep(0.0005)


def registers(tid: int) -> bytes:
    """Return the general registers of a thread that stands still, as its machine lays them out.

    :raises TraceError: they cannot be read
    """
    buffer = ctypes.create_string_buffer(MAX_REGISTERS)
    vector = ctypes.create_string_buffer(struct.pack("PN", ctypes.addressof(buffer), MAX_REGISTERS), 2 * 8)
    try:
        _call(_library(), GETREGSET, tid, NT_PRSTATUS, ctypes.addressof(vector))
    except OSError as error:
        raise _refused(tid, error) from error
    size = struct.unpack("PN", vector.raw[:16])[1]
    return buffer.raw[:size]


def _refused(tid: int, error: OSError) -> TraceError:
    if error.errno == errno.ESRCH:
        return TraceError(f"thread {tid} is gone")
    if error.errno == errno.EPERM:
        return TraceError(f"thread {tid} may not be traced by this user, or another debugger has it",
                          hint="be root, or its user with kernel.yama.ptrace_scope = 0; gdb and strace hold a process")
    return TraceError(f"thread {tid} cannot be traced: {error.strerror}")
