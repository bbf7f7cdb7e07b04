"""The exceptions of the libkvm binding, each an OSError with an errno and one of kshell's own errors as well.

So ``except OSError``, ``except KvmError`` and ``except kshell.errors.Fault`` all see a :class:`FaultError`. The errno
values are those of libkvm.md 6.2: EFAULT untranslated, EIO damaged or unreadable, EBADF and EROFS not writable, ESRCH
process gone, ENXIO no user memory to address, EACCES not permitted, EOPNOTSUPP not in this kind of target.
"""

from __future__ import annotations

import errno
import os

from kshell import errors
from kshell.errors import Fault, FormatError, KshellError, Reason, SymbolNotFoundError

#: Why memory did not move, as an errno value.
ERRNO = {
    Reason.NOT_MAPPED: errno.EFAULT,
    Reason.EXCLUDED: errno.EFAULT,
    Reason.OUTSIDE: errno.EFAULT,
    Reason.SWAPPED: errno.EFAULT,
    Reason.TRUNCATED: errno.EIO,
    Reason.ELSEWHERE: errno.EIO,
    Reason.CORRUPT: errno.EIO,
    Reason.IO: errno.EIO,
    Reason.PERMISSION: errno.EACCES,
    Reason.READ_ONLY: errno.EROFS,
    Reason.GONE: errno.ESRCH,
    Reason.UNSUPPORTED: errno.EOPNOTSUPP,
}

OPEN_ERRNO = {
    "missing": errno.ENOENT,
    "permission": errno.EACCES,
    "unsupported": errno.EOPNOTSUPP,
    "symbols": errno.ENOENT,
}


class KvmError(KshellError, OSError):
    """The base of what the class face raises. ``errno`` and ``strerror`` are set; ``hint`` is the next step."""

    def __init__(self, code: int, message: str, *, filename: str | None = None, hint: str | None = None) -> None:
        if filename is None:
            OSError.__init__(self, code, message)
        else:
            OSError.__init__(self, code, message, filename)
        self.hint = hint

    def __str__(self) -> str:
        return str(self.strerror)


class OpenError(KvmError, errors.OpenError):
    """A target that cannot be opened.

    :ivar kind: "missing", "format", "header", "version", "wordsize", "symbols", "permission" or "unsupported"
    :ivar filename: what was to be opened; ``path`` is the same
    """

    def __init__(self, path: str, message: str, *, kind: str = "format", hint: str | None = None) -> None:
        KvmError.__init__(self, OPEN_ERRNO.get(kind, errno.EINVAL), message, filename=path, hint=hint)
        self.path, self.kind = path, kind


class _TransferError(KvmError):
    """What every error of a transfer tells: how far it came."""

    def __init__(
        self, code: int, message: str, address: int = 0, requested: int = 0, moved: int = 0, partial: bytes = b"", *,
        hint: str | None = None,
    ) -> None:
        KvmError.__init__(self, code, message, hint=hint)
        self.address, self.requested, self.moved, self.partial = address, requested, moved, partial


class FaultError(_TransferError, Fault):
    """Memory that could not be moved, or not all of it.

    :ivar address: the first byte that could not be moved
    :ivar requested: bytes asked for
    :ivar moved: bytes moved before ``address``; of a write they stay written
    :ivar partial: for reads, the bytes moved
    :ivar reason: the :class:`kshell.errors.Reason`
    """

    def __init__(self, fault: Fault) -> None:
        _TransferError.__init__(self, ERRNO[fault.reason], str(fault), fault.address, fault.size, fault.done,
                                fault.partial, hint=fault.hint)
        self.size, self.done, self.reason = fault.size, fault.done, fault.reason
        self.space, self.verb, self.detail = fault.space, fault.verb, fault.detail


class ReadOnlyError(_TransferError):
    """A write to what is not open for writing (EBADF), or can be written by nobody (EROFS)."""


class CorruptDumpError(_TransferError, FormatError):
    """Tables of the target that contradict themselves: a translation, a list that loops."""


class ProcessGoneError(_TransferError):
    """The process does not exist any more, or its number is another process's now. ``pid`` tells which."""

    def __init__(
        self, message: str, pid: int, address: int = 0, requested: int = 0, moved: int = 0, partial: bytes = b"",
    ) -> None:
        _TransferError.__init__(self, errno.ESRCH, message, address, requested, moved, partial)
        self.pid = pid


class NoProcessError(KvmError, errors.NoProcessError):
    """No process is selected (ENXIO), or there is none with this pid (ESRCH)."""


class NoUserSpaceError(KvmError, errors.NoUserSpaceError):
    """A kernel thread or a zombie: it has no user memory (ENXIO)."""


class NoSymbolError(SymbolNotFoundError, KeyError):
    """A name that no symbol has; a KeyError too."""

    def __str__(self) -> str:
        return str(self.args[0])


def from_fault(fault: Fault, pid: int | None = None) -> KvmError:
    """Return the exception that stands for *fault*; *pid* is whose memory it was, when it was a process's."""
    if isinstance(fault, KvmError):
        return fault
    facts = (fault.address, fault.size, fault.done, fault.partial)
    if fault.reason is Reason.CORRUPT:
        return CorruptDumpError(errno.EIO, str(fault), *facts, hint=fault.hint)
    if fault.reason is Reason.READ_ONLY:
        return ReadOnlyError(errno.EROFS, str(fault), *facts, hint=fault.hint)
    if fault.reason is Reason.GONE and pid is not None:
        return ProcessGoneError(f"process {pid}: {fault}", pid, *facts)
    return FaultError(fault)


def from_error(error: KshellError | OSError, pid: int | None = None) -> KvmError:
    """Return *error* as a KvmError, for what memories, symbol tables and readers of structures raise."""
    if isinstance(error, KvmError):
        return error
    if isinstance(error, Fault):
        return from_fault(error, pid)
    if isinstance(error, errors.OpenError):
        return OpenError(error.path, str(error), kind=error.kind, hint=error.hint)
    if isinstance(error, FormatError):
        return CorruptDumpError(errno.EIO, str(error), hint=error.hint)
    if isinstance(error, errors.NoUserSpaceError):
        return NoUserSpaceError(errno.ENXIO, str(error), hint=error.hint)
    if isinstance(error, errors.NoProcessError):
        return NoProcessError(errno.ESRCH, str(error), hint=error.hint)
    if isinstance(error, OSError):
        return KvmError(error.errno or errno.EIO, error.strerror or str(error) or os.strerror(errno.EIO))
    return KvmError(errno.EOPNOTSUPP, str(error), hint=error.hint)
