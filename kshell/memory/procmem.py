"""User memory of a live process through /proc/PID/mem, of that process and no other that gets its number later.

proc(5); fs/proc/base.c (``mem_rw``): a descriptor stays with the process it was opened for, reads 0 bytes when that is
gone, and EIO where nothing is mapped. A descriptor of the folder /proc/PID stays with the process too: no file in it
can be opened (ESRCH) when that is gone, whoever has the number then.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from kshell.errors import Fault, NoProcessError, NoUserSpaceError, Reason
from kshell.memory.model import Memory, Range
from kshell.memory.overlay import Overlay

MAX_READ = 1 << 26
TOP_OFFSET = (1 << 63) - 1


def start_time(pid: int) -> int:
    """Return when the process started, in clock ticks since boot.

    :raises NoProcessError: there is no such process
    """
    try:
        return _started(Path(f"/proc/{pid}/stat").read_bytes())
    except (OSError, ValueError, IndexError) as error:
        raise NoProcessError(f"no process {pid}") from error


def _started(stat: bytes) -> int:
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def rights() -> str:
    """Return what a user needs who may not trace a process, for a hint."""
    if os.geteuid() == 0:
        return "root needs CAP_SYS_PTRACE in the user namespace of the process; in containers it often has not"
    return "be root, or its user with kernel.yama.ptrace_scope = 0"


class ProcessMemory(Memory):
    """The user memory of one live process.

    :raises NoProcessError: there is no such process
    :raises NoUserSpaceError: a kernel thread or a zombie
    :raises Fault: Reason.PERMISSION, when the caller may not trace it
    """

    space = "user"

    def __init__(self, pid: int, writable: bool = False) -> None:
        self.pid, self.writable = pid, writable
        self._fd = self._folder = -1
        try:
            self._folder = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self.started = _started(self._file("stat"))
            access = os.O_RDWR if writable else os.O_RDONLY
            self._fd = os.open("mem", access | os.O_CLOEXEC, dir_fd=self._folder)
            if not self._file("maps"):  # a kernel thread's mem file can be opened by root, and holds nothing
                raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
        except PermissionError as error:
            self.close()
            detail = f"process {pid} may not be traced by this user"
            raise Fault(0, 0, Reason.PERMISSION, space="user", detail=detail, hint=rights()) from error
        except OSError as error:
            there = self._is_there()
            self.close()
            if not there:
                raise NoProcessError(f"no process {pid}") from error
            # ESRCH of a process that is there: it has no memory (any more)
            why = "a kernel thread or a zombie" if error.errno == errno.ESRCH else error.strerror
            raise NoUserSpaceError(f"process {pid} has no user memory: {why}") from error

    def _is_there(self) -> bool:
        """Whether the process that was opened lives or is a zombie, whoever has its number."""
        try:
            return self._folder >= 0 and bool(self._file("stat"))
        except OSError:
            return False

    def _file(self, name: str) -> bytes:
        """Return a file of the process that was opened, by its folder, which no other process gets.

        Not by its number and start time: in clock ticks, that is the same for two that follow each other fast.

        :raises OSError: the process is gone (ESRCH), or it may not be read
        """
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
        with open(descriptor, "rb") as file:
            return file.read()

    def file(self, name: str) -> bytes:
        """Return the file *name* in the folder of the process. Raises as :meth:`_file`."""
        return self._file(name)

    def folder(self, name: str) -> list[str]:
        """Return the names in the folder *name* of the process.

        :raises OSError: the process is gone
        """
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            return os.listdir(descriptor)
        finally:
            os.close(descriptor)

    def link(self, name: str) -> str:
        """Return what the link *name* in the folder of the process leads to.

        :raises OSError: the process is gone, or it may not be read
        """
        return os.readlink(name, dir_fd=self._folder)

    def mode(self, name: str) -> int:
        """Return st_mode of what *name* in the folder of the process leads to. Raises as :meth:`link`."""
        return os.stat(name, dir_fd=self._folder).st_mode

    def _executes_another(self) -> bool:
        """Whether the process lives and has memory, though what was opened is gone: that is execve(2)."""
        try:
            return bool(self._file("maps"))
        except OSError:
            return False

    def _fault(self, address: int, size: int, number: int, done: int, verb: str, data: bytes = b"") -> Fault:
        reasons = {errno.EIO: Reason.NOT_MAPPED, errno.EFAULT: Reason.NOT_MAPPED, errno.ESRCH: Reason.GONE,
                   errno.EPERM: Reason.PERMISSION, errno.EACCES: Reason.PERMISSION, errno.EBADF: Reason.READ_ONLY}
        reason = reasons.get(number, Reason.IO)
        detail = "" if reason is not Reason.IO else os.strerror(number)
        if reason is Reason.GONE and self._executes_another():
            detail = "it executes another program now; open it again"
        return Fault(address, size, reason, partial=data, done=done, space="user", verb=verb, detail=detail)

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        parts: list[bytes] = []
        done = 0
        while done < size:
            at = address + done
            number = errno.EIO
            part = b""
            if at <= TOP_OFFSET:
                try:
                    part = os.pread(self._fd, min(size - done, MAX_READ, TOP_OFFSET - at + 1), at)
                    number = errno.ESRCH
                except OSError as error:
                    number = error.errno or errno.EIO
            if not part:
                data = b"".join(parts)
                return data, self._fault(at, size, number, done, "read", data)
            parts.append(part)
            done += len(part)
        return b"".join(parts), None

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        view, done = memoryview(data).cast("B"), 0
        if not self.writable:
            raise Fault(address, len(view), Reason.READ_ONLY, space="user", verb="write")
        while done < len(view):
            at = address + done
            number, count = errno.EIO, 0
            if at <= TOP_OFFSET:
                try:
                    count = os.pwrite(self._fd, view[done : done + MAX_READ], at)
                    number = errno.ESRCH
                except OSError as error:
                    number = error.errno or errno.EIO
            if not count:
                raise self._fault(at, len(view), number, done, "write")
            done += count

    def ranges(self) -> Iterator[Range]:
        try:
            lines = self._file("maps").splitlines()
        except OSError:
            return
        for line in lines:
            start, _, end = line.split(b" ", 1)[0].partition(b"-")
            if int(end, 16) <= TOP_OFFSET:
                yield Range(int(start, 16), int(end, 16))

    def close(self) -> None:
        for descriptor in (self._fd, self._folder):
            if descriptor >= 0:
                os.close(descriptor)
        self._fd = self._folder = -1


class PrivateProcessMemory(ProcessMemory):
    """The user memory of one live process with writes that only we see. Raises as :class:`ProcessMemory`."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self._private = Overlay(_Below(self))
        self.writable = True

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        return self._private.read_upto(address, size)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        self._private.write(address, data)


class _Below(Memory):
    """What lies below the private writes: the process as it is."""

    space = "user"

    def __init__(self, process: ProcessMemory) -> None:
        self._process = process

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        return ProcessMemory.read_upto(self._process, address, size)
