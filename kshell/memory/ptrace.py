"""A live process standing still, and its threads' registers, through ptrace(2).

Attached with PTRACE_SEIZE, which sends no signal and stops nothing, then PTRACE_INTERRUPT; let go with PTRACE_DETACH.
No option is set, PTRACE_O_EXITKILL least of all: when kshell ends in between, killed or not, the kernel detaches and
the process runs on (kernel/ptrace.c, ``exit_ptrace``). A thread that was stopped by a signal is stopped afterwards too;
a signal that came just then is delivered.

ptrace(2) binds a tracee to the one thread that attached to it. So each :class:`Hold` has a thread of its own, whose end
also lets go those that cannot be detached: threads in uninterruptible sleep, which do not stop until they wake.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Any, NamedTuple

from kshell.errors import KshellError
from kshell.memory.procmem import rights

SEIZE, INTERRUPT, DETACH, GETREGSET, SETREGSET = 0x4206, 0x4207, 17, 0x4204, 0x4205
NT_PRSTATUS = 1
EVENT_STOP = 128
WALL = 0x4000_0000
PATIENCE = 2.0  # seconds: a thread in uninterruptible sleep does not stop
DEAD = 0.005  # of them after which it is looked whether one has ended
ASLEEP = 0.05  # of them for one that /proc says to be in such a sleep
MAX_ROUNDS = 1000  # of looking for threads that were made meanwhile
MAX_REGISTERS = 4096


class TraceError(KshellError):
    """A thread that may not be traced, is gone, or does not stop."""


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.restype = ctypes.c_long
    library.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    return library


class ThreadGoneError(TraceError):
    """There is no such thread any more, or nothing but its exit status is left of it."""


_Answer = tuple[Any, BaseException | None]


class _Job(NamedTuple):
    """What the thread that traces is to do, and where its answer goes: whoever waits for that may be interrupted."""

    what: Callable[[], Any]
    answer: SimpleQueue[_Answer]


class Hold:
    """Threads that stand still until :meth:`release`, or the end of a ``with`` block.

    :param tids: gives the threads there are; asked until there is no new one, for some are made before all stand
    :raises TraceError: the first of them cannot be traced; the others may be gone by then
    """

    def __init__(self, tids: Callable[[], Iterable[int]]) -> None:
        self._list = tids
        self._library = _library()
        self._held: dict[int, int] = {}  # those that stand, and the signal that each is to get when it goes on
        self._asleep: set[int] = set()  # those that sleep in the kernel; they stop before they come back from there
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="kshell-ptrace", daemon=True)
        self._thread.start()
        try:
            self._do(self._stop_all)
        except BaseException:
            self.release()
            raise

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def __contains__(self, tid: int) -> bool:
        """Whether the thread stands, and its registers can be read."""
        return tid in self._held

    @property
    def threads(self) -> list[int]:
        """The threads that stand, whose registers can be read."""
        return list(self._held)

    def registers(self, tid: int) -> bytes:
        """Return the general registers of a thread, as its machine lays them out.

        :raises TraceError: they cannot be read
        """
        self._check(tid)
        found = self._do(lambda: self._regset(GETREGSET, tid, bytes(MAX_REGISTERS)))
        assert isinstance(found, bytes)
        return found

    def set_registers(self, tid: int, data: bytes) -> None:
        """Change the general registers of a thread.

        :raises TraceError: they cannot be changed
        """
        self._check(tid)
        self._do(lambda: self._regset(SETREGSET, tid, data))

    def release(self) -> None:
        """Let all of them go on. A second call does nothing."""
        self._jobs.put(None)
        self._thread.join()

    def _check(self, tid: int) -> None:
        if tid not in self._held:
            why = "it sleeps in the kernel and cannot be interrupted" if tid in self._asleep else "it is gone"
            raise TraceError(f"thread {tid} does not stop: {why}")

    # -- on either side of the queues --------------------------------------------------------------------------------

    def _do(self, what: Callable[[], Any]) -> Any:
        if not self._thread.is_alive():
            raise TraceError("the threads have been let go")
        job = _Job(what, SimpleQueue())
        self._jobs.put(job)
        found, error = job.answer.get()
        if error is not None:
            raise error
        return found

    def _run(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                try:
                    answer: _Answer = job.what(), None
                except BaseException as error:  # it is raised where it was asked
                    answer = None, error
                job.answer.put(answer)
        finally:
            for tid, signal in self._held.items():
                with suppress(OSError):  # it is gone
                    self._call(DETACH, tid, 0, signal)
        # and the kernel lets the others go now that this thread ends

    # -- in the thread that traces -----------------------------------------------------------------------------------

    def _call(self, request: int, tid: int, address: int = 0, data: int = 0) -> None:
        ctypes.set_errno(0)
        if self._library.ptrace(request, tid, address, data) == -1:
            number = ctypes.get_errno()
            if number:
                raise OSError(number, os.strerror(number))

    def _stop_all(self) -> None:
        first: int | None = None
        seen: set[int] = set()
        for _ in range(MAX_ROUNDS):
            new = [tid for tid in self._list() if tid not in seen]
            if not new:
                break
            seen.update(new)
            waited: list[int] = []
            for tid in new:
                first = tid if first is None else first
                try:
                    self._call(SEIZE, tid)
                    waited.append(tid)
                    self._call(INTERRUPT, tid)
                except OSError as error:
                    if tid == first and not _is_dead(tid):
                        raise _refused(tid, error) from error
            self._wait(waited)
        if first is not None and not self._held and not self._asleep:
            raise ThreadGoneError(f"thread {first} is gone")

    def _wait(self, tids: list[int]) -> None:
        """Wait until the threads stand; those that sleep in the kernel are not waited for."""
        waiting, begun = dict.fromkeys(tids), time.monotonic()
        while waiting:
            for tid in list(waiting):
                try:
                    # stops only: the end of a process that is our own child is its parent's to hear of
                    found = os.waitid(os.P_PID, tid, os.WSTOPPED | os.WNOHANG | WALL)
                except ChildProcessError:
                    del waiting[tid]
                    continue
                if found is not None:
                    del waiting[tid]
                    event, number = found.si_status >> 8, found.si_status & 0x7F
                    # a stop for a signal that it is about to get, and not for us: it gets it when it goes on
                    self._held[tid] = 0 if event == EVENT_STOP else number
                elif time.monotonic() - begun > DEAD and _is_dead(tid):
                    del waiting[tid]
            passed = time.monotonic() - begun
            if passed > PATIENCE or (passed > ASLEEP and all(_state(tid) in "D?" for tid in waiting)):
                self._asleep.update(waiting)
                return
            if waiting:
                time.sleep(0.0002)

    def _regset(self, request: int, tid: int, data: bytes) -> bytes:
        buffer = ctypes.create_string_buffer(data, len(data))
        vector = ctypes.create_string_buffer(struct.pack("PN", ctypes.addressof(buffer), len(data)), 2 * 8)
        try:
            self._call(request, tid, NT_PRSTATUS, ctypes.addressof(vector))
        except OSError as error:
            raise _refused(tid, error) from error
        return buffer.raw[: struct.unpack("PN", vector.raw[:16])[1]]


def _status(tid: int, word: str) -> str:
    """Return what /proc says of a thread behind *word*, "" when it is gone."""
    try:
        with open(f"/proc/{tid}/status", encoding="utf-8", errors="replace") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith(word + ":")), "")
    except OSError:
        return ""


def _state(tid: int) -> str:
    return _status(tid, "State")[:1] or "?"


def _is_dead(tid: int) -> bool:
    """Whether a thread is a zombie: the first of a process may be, while others live."""
    return _state(tid) in "ZX"


def _refused(tid: int, error: OSError) -> TraceError:
    if error.errno == errno.ESRCH:
        return ThreadGoneError(f"thread {tid} is gone")
    if error.errno == errno.EPERM:
        tracer = _status(tid, "TracerPid")
        if tracer.isdecimal() and int(tracer):
            tracer = _status(int(tracer), "Tgid") or tracer  # what is told is a thread
            name = _status(int(tracer), "Name") or "?"
            return TraceError(f"thread {tid} is traced by process {tracer} ({name}): only one debugger can have it",
                              hint="its memory can be read all the same; without --pause nothing is stopped")
        if _status(tid, "Tgid") == str(os.getpid()):
            return TraceError(f"thread {tid} is kshell's own, which cannot stop itself",
                              hint="its memory can be read; another kshell can stop it")
        return TraceError(f"thread {tid} may not be traced by this user{_yama()}", hint=rights())
    if error.errno in (errno.EIO, errno.EINVAL):
        return TraceError(f"the kernel does not take these registers of thread {tid}")
    return TraceError(f"thread {tid} cannot be traced: {error.strerror}")


def _yama() -> str:
    """Return what of Yama's rules stands against it, for a message; "" where there are none."""
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope", encoding="ascii") as file:
            scope = file.read().strip()
    except OSError:
        return ""
    return f" (kernel.yama.ptrace_scope is {scope})" if scope != "0" else ""
