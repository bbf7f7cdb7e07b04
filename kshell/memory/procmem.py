"""User memory of a live process through /proc/PID/mem, of that process and no other that gets its number later.

proc(5); fs/proc/base.c (``mem_rw``): a descriptor stays with the process it was opened for, reads 0 bytes when that is
gone, and EIO where nothing is mapped. /proc/PID/stat field 22 (start time) tells whether a number was used again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from kshell.errors import Fault, NoProcessError, NoUserSpaceError, Reason
from kshell.memory.model import Memory, Range

MAX_READ = 1 << 26
TOP_OFFSET = (1 << 63) - 1


def start_time(pid: int) -> int:
    """Return when the process started, in clock ticks since boot: with the pid it names one process for ever.

    :raises NoProcessError: there is no such process
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        return int(stat[stat.rindex(b")") + 2 :].split()[19])
    except (OSError, ValueError, IndexError) as error:
        raise NoProcessError(f"no process {pid}") from error


class ProcessMemory(Memory):
    """The user memory of one live process.

    :raises NoProcessError: there is no such process
    :raises NoUserSpaceError: a kernel thread or a zombie
    :raises Fault: Reason.PERMISSION, when the caller may not trace it
    """

    space = "user"

    def __init__(self, pid: int, writable: bool = False) -> None:
        self.pid, self.writable = pid, writable
        self._fd = -1
        self.started = start_time(pid)
        try:
            self._fd = os.open(f"/proc/{pid}/mem", (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except PermissionError as error:
            hint = "be root, or its user with kernel.yama.ptrace_scope = 0"
            detail = f"process {pid} may not be traced by this user"
            raise Fault(0, 0, Reason.PERMISSION, space="user", detail=detail, hint=hint) from error
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise NoProcessError(f"no process {pid}") from error
            raise NoUserSpaceError(f"process {pid} has no user memory: {error.strerror}") from error
        if start_time(pid) != self.started or not self._has_memory():
            self.close()
            raise NoUserSpaceError(f"process {pid} has no user memory: a kernel thread or a zombie")

    def _has_memory(self) -> bool:
        """A kernel thread's mem file can be opened by root, and holds nothing; neither do its maps."""
        try:
            with Path(f"/proc/{self.pid}/maps").open("rb") as file:
                return bool(file.read(1))
        except OSError:
            return False

    def _fault(self, address: int, size: int, number: int, done: int, verb: str, data: bytes = b"") -> Fault:
        reasons = {errno.EIO: Reason.NOT_MAPPED, errno.EFAULT: Reason.NOT_MAPPED, errno.ESRCH: Reason.GONE,
                   errno.EPERM: Reason.PERMISSION, errno.EACCES: Reason.PERMISSION, errno.EBADF: Reason.READ_ONLY}
        reason = reasons.get(number, Reason.IO)
        detail = "" if reason is not Reason.IO else os.strerror(number)
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
            lines = Path(f"/proc/{self.pid}/maps").read_bytes().splitlines()
        except OSError:
            return
        for line in lines:
            start, _, end = line.split(b" ", 1)[0].partition(b"-")
            if int(end, 16) <= TOP_OFFSET:
                yield Range(int(start, 16), int(end, 16))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
