"""A file that is there when it is complete, and not before: written beside its name, renamed at the end."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from types import TracebackType

from kshell.errors import KshellError


class OutputError(KshellError):
    """The file cannot be written; nothing of it was left."""


class OutputFile:
    """Write the file *path*: ``with OutputFile(path) as file: file.append(...)``. It appears when the block ends well.

    Bytes never written are a hole, where the file system has holes, and zeroes to a reader.
    """

    def __init__(self, path: str, *, force: bool = False, source: str | None = None) -> None:
        """:raises OutputError: it exists (unless *force*), is *source* itself, or its folder cannot be written"""
        self.path, self.force, self.end, self.written = path, force, 0, 0
        if not os.path.basename(path):
            raise OutputError(f"{path or 'an empty name'}: names no file")
        try:
            there: os.stat_result | None = os.stat(path)
        except OSError:
            there = None
        if there is not None:
            if source is not None and os.path.exists(source) and os.path.samestat(there, os.stat(source)):
                raise OutputError(f"{path}: is the source itself", hint="give the converted image another name")
            if not stat.S_ISREG(there.st_mode):
                raise OutputError(f"{path}: is there, and no regular file")
            if not force:
                raise OutputError(f"{path}: exists", hint="--force writes over it")
        folder, name = os.path.split(os.path.realpath(path))
        try:
            self._fd, self._temporary = tempfile.mkstemp(prefix=f".{name[:100]}.", dir=folder)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
        self._final = os.path.join(folder, name)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write *data* at *offset*.

        :raises OutputError: the disk is full, or fails
        """
        view, done = memoryview(data).cast("B"), 0
        try:
            while done < len(view):
                done += os.pwrite(self._fd, view[done:], offset + done)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}; nothing of it was left") from error
        self.written += done
        self.end = max(self.end, offset + done)

    def append(self, data: bytes | bytearray | memoryview) -> int:
        """Write *data* at the end; return where that was."""
        offset = self.end
        self.write(offset, data)
        return offset

    def clear(self) -> None:
        """Forget what was written: it is written again from the beginning."""
        os.ftruncate(self._fd, 0)
        self.end = self.written = 0

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            os.close(self._fd)
            if os.path.exists(self._temporary):
                with contextlib.suppress(OSError):
                    os.unlink(self._temporary)

    def _finish(self) -> None:
        umask = os.umask(0)
        os.umask(umask)
        try:
            os.ftruncate(self._fd, self.end)
            os.fchmod(self._fd, 0o600 & ~umask)  # memory has secrets: for its owner, as vmcores are
            os.fsync(self._fd)
            if self.force:
                os.rename(self._temporary, self._final)
            else:
                os.link(self._temporary, self._final)  # fails where another one has made it meanwhile
                os.unlink(self._temporary)
        except FileExistsError as error:
            raise OutputError(f"{self.path}: exists by now", hint="--force writes over it") from error
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}; nothing of it was left") from error
