"""Processes that decompress pages ahead of a reader who goes through a dump in order, for as long as that lasts.

Threads gain nothing here: a page is done in microseconds, and the interpreter's lock is handed to and fro for each.
Each process (:mod:`kshell.memory.crewman`) has the dump's descriptor and memory shared with this one (memfd_create(2),
which needs no /dev/shm), cut into slots of JOB pages. A job is asked for by a few bytes on a socket and answered by a
few.

They are new programs rather than forks: no thread's lock is copied, and of descriptors they have these few. They end
when the socket does, so with this process, however it ends; and by themselves when they are asked nothing for a while.
Ctrl-C does not reach them. Whatever goes wrong with them, the reader decompresses by itself.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import socket
import struct
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from kshell.memory.threads import cores

JOB = 64  # pages
MOST = 8  # processes at work, this one with them
SLOTS = 8  # jobs a process may have begun or done that nobody has read yet,
ROOM = 2 << 20  # in about so many bytes
PENDING = 4  # of those, not done yet, while the reader works too: the rest may be quicker here
LOOK = 4  # times as many jobs ahead are looked at as there are slots: blank ones need none
IDLE = 10_000  # milliseconds without a question after which a process ends
REQUEST = struct.Struct("<QI")  # first page, number of the slot
REPLY = struct.Struct("<II")  # number of the slot, how many pages of it were filled
BLANK = -1  # pages of a job that are all zeroes: waking somebody up takes longer
READY = 0xFFFF_FFFF  # the slot of the first reply: it has started

_PROGRAM = r"""
import sys
sys.path[:] = sys.argv[1].split("\n")
from kshell.memory.crewman import main
main(sys.argv[2:])
"""

Failure = TypeVar("Failure")


class CrewError(Exception):
    """No processes are to be had, or one of them has ended."""


@dataclass
class Man:
    """One process."""

    pid: int
    link: socket.socket
    free: list[int]  # slots
    ready: bool = False
    pending: dict[int, int] = field(default_factory=dict)  # slot -> job


class Crew(Generic[Failure]):
    """The processes for one table of pages; job ``n`` are the JOB pages from ``n * JOB`` on.

    :param descriptors: which they get; *numbers* tell what they are (:func:`kshell.memory.crewman.main`)
    :param page: bytes of a page
    :param here: fills a buffer from a page on in this process: how many pages, and what ended it
    :param blank: whether so many pages from one on are all zeroes, as far as a glance tells
    :raises CrewError: one core, no shared memory, or no processes
    """

    def __init__(
        self, descriptors: Sequence[int], numbers: Sequence[int], page: int,
        here: Callable[[int, memoryview], tuple[int, Failure | None]], blank: Callable[[int, int], bool],
    ) -> None:
        count = min(cores(), MOST) - 1
        if count < 1 or not _is_python(sys.executable):
            raise CrewError("there is one core only, or no Python to start")
        self._owner, self._page, self._here, self._is_blank = os.getpid(), page, here, blank
        self._lock = threading.Lock()
        self._men: list[Man] = []
        self._slots = max(min(SLOTS, ROOM // (JOB * page)), 2)
        self._blank = memoryview(bytes(JOB * page))
        self._jobs: dict[int, tuple[Man, int] | None] = {}  # job -> who has it, in which slot; nobody a blank one
        self._done: dict[int, int] = {}  # job -> how many pages of it are in its slot
        size = count * self._slots * JOB * page
        try:
            shared = os.memfd_create("kshell-pages", os.MFD_CLOEXEC)
            try:
                os.ftruncate(shared, size + count * self._slots)
                self._view = memoryview(mmap.mmap(shared, size + count * self._slots))
                self._cancelled = self._view[size:]  # by slot: nobody wants it any more
                for number in range(count):
                    slots = list(range(number * self._slots, (number + 1) * self._slots))
                    self._men.append(_start([shared, *descriptors], [IDLE, size, page, *numbers], slots))
            finally:
                os.close(shared)
        except OSError as error:
            self.close()
            raise CrewError(str(error)) from error

    def fill(self, number: int, out: memoryview) -> tuple[int, Failure | None]:
        """Fill *out*, a whole number of pages, from page *number* on, and have what follows begun.

        Returns how many pages were filled, and what ended it.

        :raises CrewError: a process has ended
        """
        with self._lock:
            if not self.usable():
                raise CrewError("the processes were dismissed")
            return self._fill(number, out)

    def _fill(self, number: int, out: memoryview) -> tuple[int, Failure | None]:
        page, end = self._page, number + len(out) // self._page
        last = (end - 1) // JOB
        self._forget(number // JOB, last + len(self._men) * self._slots * LOOK)
        pieces = {job: (max(number, job * JOB), min(end, (job + 1) * JOB)) for job in range(number // JOB, last + 1)}
        own = [job for job in pieces if job not in self._jobs]  # in order; what is done here, or handed out yet
        theirs = [job for job in pieces if job in self._jobs]
        stop, failure = end, None
        following = last + (end == (last + 1) * JOB)
        while own or theirs:
            self._hear(wait=False)
            while len(own) > len(self._men) and pieces[own[0]] == (own[0] * JOB, (own[0] + 1) * JOB):
                if not self._hand_out(own[0], PENDING):
                    break
                theirs.append(own.pop(0))
            if len(own) <= len(self._men):  # what is left is done here: nobody waits for the last one
                self._go_ahead(following, PENDING)
            done = next((job for job in theirs if job in self._done), None)
            if done is not None:
                theirs.remove(done)
                start, until = pieces[done]
                if self._done[done] in (JOB, BLANK):
                    out[(start - number) * page : (until - number) * page] = self._pages(done, start, until)
                    if until == (done + 1) * JOB:
                        self._let_go(done)
                    continue
                self._let_go(done)  # its reader learns why
            elif own:
                start, until = pieces[own.pop(0)]
            else:
                back = self._take_back(theirs)
                if back is None:
                    self._hear(wait=True)
                    continue
                theirs.remove(back)
                start, until = pieces[back]
            filled, why = self._here(start, out[(start - number) * page : (until - number) * page])
            if why is not None and start + filled < stop:
                stop, failure = start + filled, why
                own = [job for job in own if job * JOB < stop]
                theirs = [job for job in theirs if job * JOB < stop]
        if failure is None:
            self._go_ahead(following, self._slots)
        return stop - number, failure

    def usable(self) -> bool:
        """Whether it is this process's and open."""
        return bool(self._men) and self._owner == os.getpid()

    def leave(self) -> bool:
        """End the processes; False when another thread has something done by them."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self.close()
            return True
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the processes. A second call does nothing."""
        men, self._men = self._men, []
        self._jobs.clear()
        self._done.clear()
        for man in men:
            man.link.close()
            if self._owner == os.getpid():
                with contextlib.suppress(OSError):
                    os.kill(man.pid, signal.SIGKILL)
                    os.waitpid(man.pid, 0)

    # -- jobs ------------------------------------------------------------------------------------------------------

    def _hand_out(self, job: int, most: int) -> bool:
        """Ask for *job* whoever has least to do, with less than *most* begun; False when nobody can take it."""
        if self._is_blank(job * JOB, JOB):
            self._jobs[job], self._done[job] = None, BLANK
            return True
        man = min((man for man in self._men if man.ready and man.free and len(man.pending) < most),
                  key=lambda man: len(man.pending), default=None)
        if man is None:
            return False
        slot = man.free.pop()
        self._cancelled[slot] = 0
        try:
            man.link.send(REQUEST.pack(job * JOB, slot), socket.MSG_NOSIGNAL)
        except OSError as error:
            raise CrewError(f"process {man.pid} has ended") from error
        man.pending[slot] = job
        self._jobs[job] = man, slot
        return True

    def _go_ahead(self, first: int, most: int) -> None:
        """Hand out the jobs from *first* on, which the reader wants next if it goes on."""
        for job in range(first, first + len(self._men) * self._slots * LOOK):
            if job not in self._jobs and not self._hand_out(job, most):
                break

    def _take_back(self, jobs: list[int]) -> int | None:
        """Return one of *jobs* that nobody has begun, and which nobody shall begin; None when all are begun."""
        for man in self._men:
            for slot, job in reversed(list(man.pending.items())[1:]):
                if job in jobs and self._jobs.get(job) == (man, slot):
                    self._cancelled[slot] = 1
                    self._let_go(job)
                    return job
        return None

    def _hear(self, wait: bool) -> None:
        """Note the jobs that are done; with *wait* at least one more."""
        if wait:
            poll = select.poll()
            for man in self._men:
                poll.register(man.link, select.POLLIN)
            poll.poll()
        for man in self._men:
            while man.pending or not man.ready or wait:
                try:
                    reply = man.link.recv(REPLY.size, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    break
                except OSError as error:
                    raise CrewError(f"process {man.pid} has ended") from error
                if len(reply) < REPLY.size:
                    raise CrewError(f"process {man.pid} has ended")
                slot, count = REPLY.unpack(reply)
                if slot == READY:
                    man.ready = True
                    continue
                job = man.pending.pop(slot)
                if self._jobs.get(job) == (man, slot):
                    self._done[job] = count
                else:
                    man.free.append(slot)  # nobody wants it any more

    def _let_go(self, job: int) -> None:
        """Give the slot of *job* back, or have that done when it is answered."""
        found, done = self._jobs.pop(job), self._done.pop(job, None)
        if found is not None and done is not None:
            found[0].free.append(found[1])

    def _forget(self, first: int, last: int) -> None:
        """Let the jobs go that the reader is past, or far from."""
        for job in [job for job in self._jobs if not first <= job <= last]:
            self._let_go(job)

    def _pages(self, job: int, start: int, until: int) -> memoryview:
        """Return the pages *start* to *until* of *job*."""
        found = self._jobs[job]
        if found is None:
            return self._blank[: (until - start) * self._page]
        base = found[1] - job  # in jobs
        return self._view[(start + base * JOB) * self._page : (until + base * JOB) * self._page]


_at_work: weakref.ref[Crew[Any]] | None = None


def call(
    descriptors: Sequence[int], numbers: Sequence[int], page: int,
    here: Callable[[int, memoryview], tuple[int, Failure | None]], blank: Callable[[int, int], bool],
) -> Crew[Failure]:
    """Return a new crew, as :class:`Crew`; the one before it, which had another reader, is dismissed.

    :raises CrewError: as :class:`Crew`, or that one is being read
    """
    global _at_work
    before = _at_work() if _at_work is not None else None
    if before is not None and not before.leave():
        raise CrewError("the processes have another reader")
    made = Crew(descriptors, numbers, page, here, blank)
    _at_work = weakref.ref(made)
    return made


def _is_python(path: str | None) -> bool:
    return path is not None and os.path.basename(path).startswith("python") and not getattr(sys, "frozen", False)


def _start(descriptors: list[int], numbers: list[int], slots: list[int]) -> Man:
    """Start a process with *descriptors* from number 101 on, behind its socket.

    :raises OSError: it cannot be started
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        given = [theirs.fileno(), *descriptors]
        first = max(100, *given) + 1
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            path = "\n".join(part for part in sys.path if os.path.isabs(part))
            command = [sys.executable, "-I", "-S", "-c", _PROGRAM, path, *map(str, [first, *numbers])]
            pid = os.posix_spawn(
                sys.executable, command, os.environ, setsid=True, setsigdef=[signal.SIGPIPE],
                file_actions=[*((os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1, 2)),
                              *((os.POSIX_SPAWN_DUP2, one, first + number) for number, one in enumerate(given))])
        finally:
            os.close(null)
        return Man(pid, ours, slots)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
