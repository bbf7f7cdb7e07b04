"""QEMU's machine protocol (QMP), one round of questions at a time: qemu.qmp underneath, bounded waits, kshell's errors.

docs/interop/qmp-spec.rst in QEMU. qemu.qmp is asynchronous; its loop runs here only while questions are open. A server
takes one client at a time and greets it: a second one waits for its greeting until the first has gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from kshell.errors import KshellError, OpenError, repr_name
from kshell.lang.numbers import decimal_value

GREETING_WAIT = 5.0
ANSWER_WAIT = 20.0
ROUND = 16  # questions sent before the first is answered

_T = TypeVar("_T")


class QmpError(KshellError):
    """A question that QEMU did not answer, or refused.

    :ivar gone: the connection is lost: QEMU has quit, hangs, or does not speak QMP
    """

    def __init__(self, message: str, *, gone: bool = False, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.gone = gone


class Qmp:
    """A connection to one QEMU.

    :param address: path of a Unix socket, or HOST:PORT
    :raises OpenError: nobody is there, or it does not speak QMP
    """

    def __init__(self, address: str, wait: float = ANSWER_WAIT) -> None:
        self.address, self.wait = address, wait
        self._dead = ""
        place = _place(address)
        try:
            from qemu.qmp import QMPClient
        except ImportError as error:
            raise OpenError(f"qmp:{address}", "the Python package qemu.qmp is not installed", kind="unsupported",
                            hint="pip install qemu.qmp") from error
        logger = logging.getLogger("qemu.qmp")
        logger.propagate = False  # it would tell on stderr what is told here as an error
        logger.addHandler(logging.NullHandler())
        self.is_unix = isinstance(place, str)
        connection = _connect(address, place)
        self.peer = _peer(connection)
        self._loop = asyncio.new_event_loop()
        self._client: Any = QMPClient("kshell")
        self._client.events.event_filter = lambda event: False  # it would keep every STOP and RESUME for ever
        try:
            self._run(self._client.connect(connection), min(wait, GREETING_WAIT))
        except TimeoutError as error:
            self._end()
            connection.close()
            raise OpenError(
                f"qmp:{address}", f"no greeting within {min(wait, GREETING_WAIT):g} s", kind="format",
                hint="another client (libvirt, another kshell) holds it, or it is no QMP socket: one more is made with "
                     "-qmp unix:PATH,server=on,wait=off; a gdb stub, which stops its guest now, is opened with gdb:"
            ) from error
        except Exception as error:  # whatever qemu.qmp makes of it
            self._end()
            connection.close()
            raise OpenError(f"qmp:{address}", f"does not speak QMP: {_text(error)}", kind="format",
                            hint="a gdb stub is opened with gdb:") from error

    def _run(self, work: Coroutine[Any, Any, _T], wait: float) -> _T:
        return self._loop.run_until_complete(asyncio.wait_for(work, wait))

    def execute(self, command: str, **arguments: Any) -> Any:
        """Execute *command* and return its answer.

        :raises QmpError: QEMU refused it, or is gone
        """
        (answer,) = self.execute_all((command, arguments))
        if isinstance(answer, QmpError):
            raise answer
        return answer

    def execute_all(self, *commands: tuple[str, dict[str, Any]]) -> list[Any]:
        """Execute *commands* in one round, in order; return their answers, a QmpError in place of one that is missing.

        :raises QmpError: it was gone before, or gave no answer in time
        """
        if self._dead:
            raise QmpError(self._dead, gone=True)
        from qemu.qmp import ExecuteError

        async def ask() -> list[Any]:
            work = [self._client.execute(command, arguments or None) for command, arguments in commands]
            return await asyncio.gather(*work, return_exceptions=True)

        names = ", ".join(dict.fromkeys(command for command, _ in commands))
        try:
            answers = self._run(ask(), self.wait)
        except TimeoutError as error:
            self._dead = f"QEMU gave no answer to {names} within {self.wait:g} s: the connection is given up"
            raise QmpError(self._dead, gone=True) from error
        except Exception as error:
            raise self._lost(error) from error
        for number, answer in enumerate(answers):
            if isinstance(answer, ExecuteError):
                answers[number] = QmpError(f"QEMU refuses {commands[number][0]}: {_text(answer)}")
            elif isinstance(answer, BaseException):
                answers[number] = self._lost(answer)
        return answers

    def _lost(self, error: BaseException) -> QmpError:
        self._dead = f"QEMU has quit, or broke the connection: {_text(error)}"
        return QmpError(self._dead, gone=True)

    def monitor(self, line: str) -> str:
        """Execute a *line* of the human monitor and return what it prints. Raises as :meth:`execute`."""
        return self.monitor_all([line])[0]

    def monitor_all(self, lines: Sequence[str]) -> list[str]:
        """As :meth:`monitor`, of some lines in rounds of a few, in order."""
        found: list[str] = []
        for first in range(0, len(lines), ROUND):
            for answer in self.execute_all(*map(monitor_line, lines[first : first + ROUND])):
                if isinstance(answer, QmpError):
                    raise answer
                found.append(str(answer))
        return found

    @property
    def lost(self) -> str:
        """Why the connection is no more, "" while it is there."""
        return self._dead

    def close(self) -> None:
        """Disconnect. A second call does nothing."""
        if not self._loop.is_closed():
            self._end()
        self._dead = self._dead or "the connection to QEMU is closed"

    def _end(self) -> None:
        try:
            self._run(self._client.disconnect(), 2.0)
        except Exception:  # it tells how the connection ended; that is known, or no longer matters
            pass
        finally:
            pending = asyncio.all_tasks(self._loop)
            for task in pending:
                task.cancel()
            if pending:
                self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            self._loop.close()


def monitor_line(line: str) -> tuple[str, dict[str, Any]]:
    """Return the command that executes *line* of the human monitor."""
    return "human-monitor-command", {"command-line": line}


def _place(address: str) -> str | tuple[str, int]:
    """Return a path, or host and port."""
    host, colon, port = address.rpartition(":")
    number = decimal_value(port)
    if colon and "/" not in address and number is not None and number < 1 << 16 and not os.path.exists(address):
        return host or "localhost", number
    return address


def _connect(address: str, place: str | tuple[str, int]) -> socket.socket:
    """Return a connected socket, not waited for any longer than a greeting is."""
    family = socket.AF_UNIX if isinstance(place, str) else None
    try:
        if family is None:
            assert not isinstance(place, str)
            connection = socket.create_connection(place, GREETING_WAIT)
        else:
            connection = socket.socket(family, socket.SOCK_STREAM)
            connection.settimeout(GREETING_WAIT)
            try:
                connection.connect(place)
            except BaseException:
                connection.close()
                raise
    except FileNotFoundError as error:
        raise OpenError(f"qmp:{address}", "no such socket", kind="missing",
                        hint="QEMU makes one with -qmp unix:PATH,server=on,wait=off") from error
    except PermissionError as error:
        raise OpenError(f"qmp:{address}", "permission denied", kind="permission",
                        hint="the socket is of the user that runs QEMU: sudo kshell ...") from error
    except ConnectionRefusedError as error:
        raise OpenError(f"qmp:{address}", "nobody listens: no socket, or its QEMU has quit", kind="missing") from error
    except BlockingIOError as error:
        raise OpenError(f"qmp:{address}", "others are waiting for it already", kind="missing",
                        hint="a QMP socket takes one client at a time: libvirt, another kshell") from error
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise OpenError(f"qmp:{address}", f"cannot connect: {text}", kind="missing") from error
    connection.setblocking(False)
    return connection


def _peer(connection: socket.socket) -> int:
    """Return the process id that listens on a Unix socket, 0 when it is not known."""
    if connection.family != socket.AF_UNIX:
        return 0
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    except OSError:
        return 0
    return int(struct.unpack("3i", raw)[0])


def _text(error: BaseException) -> str:
    """Return the innermost cause in one line."""
    while error.__cause__ is not None or getattr(error, "exc", None) is not None:
        error = error.__cause__ or error.exc  # type: ignore[attr-defined]
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 200 else repr_name(text[:200]) + "..."
