"""QMP that is none, that stalls or lies, machines that quit, and processes that are not the machine."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from kshell.errors import KshellError, OpenError, Reason
from kshell.memory.guestram import GuestRam, parse_mtree
from kshell.memory.qmp import Qmp, QmpError
from kshell.memory.qmpmem import QmpMemory
from kshell.target import qemu
from kshell.target.open import open_target
from kshell.target.qemu import QmpControl
from tests.guest.machine import _dying_with_us as dying_with_us
from tests.guest.machine import qemu_program
from tests.guest.qemu import RunningGuest
from tests.target.test_qemu import opened

pytest_plugins = ["tests.guest.fixtures"]


@contextmanager
def server(path: Path, talk: Callable[[socket.socket], None]) -> Iterator[Path]:
    """Listen at *path*; each client is talked to by *talk*."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(4)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                talk(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield path
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


GREETING = (b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, '
            b'"capabilities": []}}\r\n')


def answers(*lines: bytes, closes: bool = False) -> Callable[[socket.socket], None]:
    """Greet, then answer each request with the next of *lines*, ``ID`` in it replaced.

    :param closes: and then close; otherwise the last of *lines* answers all that follow
    """

    def talk(connection: socket.socket) -> None:
        connection.sendall(GREETING)
        waiting = [b'{"return": {}, "id": ID}\r\n', *lines]
        text, decoder = "", json.JSONDecoder()
        while waiting and (more := connection.recv(65536)):
            text += more.decode()
            while waiting and text.strip():  # a whole request is in it, or several are
                request, end = decoder.raw_decode(text.lstrip())
                text = text.lstrip()[end:]
                connection.sendall(waiting[0].replace(b"ID", json.dumps(request.get("id")).encode()))
                if closes or len(waiting) > 1:
                    waiting.pop(0)

    return talk


def stall(connection: socket.socket) -> None:
    connection.settimeout(20)
    while connection.recv(65536):
        pass


@pytest.mark.parametrize("talk, told", [
    (stall, "no greeting within"),
    (lambda c: None, "does not speak QMP"),
    (lambda c: c.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"), "does not speak QMP"),
    (lambda c: c.sendall(b"\x00\xff" * 50 + b"\n"), "does not speak QMP"),
    (lambda c: c.sendall(b"[1, 2]\n"), "does not speak QMP"),
    (lambda c: c.sendall(b'{"QMP": 7}\n'), "does not speak QMP"),
    (answers(b'{"return": {"arch": "sparc"}, "id": ID}\r\n'), "sparc"),
    (answers(b'{"return": 7, "id": ID}\r\n'), "."),
    (answers(b'{"return": {}, "id": "other"}\r\n'), "."),
    (answers(b'{"error": {"class": "GenericError", "desc": "not now"}, "id": ID}\r\n'), "not now"),
    (answers(b'{"return": {"arch": "x86_64"}, "id": ID}\r\n', closes=True), "quit"),
], ids=["stall", "closes", "ssh", "binary", "list", "no greeting", "sparc", "number", "other id", "refuses", "quits"])
def test_no_qmp(tmp_path: Path, talk: Callable[[socket.socket], None], told: str,
                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kshell.memory.qmp.GREETING_WAIT", 0.4)
    monkeypatch.setattr("kshell.memory.qmp.Qmp.__init__.__defaults__", (0.6,))
    start = time.monotonic()
    with server(tmp_path / "qmp", talk) as path, pytest.raises(OpenError, match=told):
        open_target(f"qmp:{path}")
    assert time.monotonic() - start < 6


def test_an_answer_that_never_comes(tmp_path: Path) -> None:
    def talk(connection: socket.socket) -> None:
        answers(closes=True)(connection)
        stall(connection)

    with server(tmp_path / "qmp", talk) as path, closing(Qmp(str(path), 0.3)) as qmp:
        with pytest.raises(QmpError, match="no answer to stop within"):
            qmp.execute("stop")
        with pytest.raises(QmpError, match="given up"):  # at once
            qmp.execute("cont")


@pytest.mark.parametrize("path, told, kind", [
    ("qmp:/nonexistent/qmp", "no such socket", "missing"), ("qmp:host:70000", "no such socket", "missing"),
    ("qmp:host:" + "9" * 5000, "cannot connect", "missing"), ("qmp:/etc/passwd", "nobody listens", "missing"),
    ("qmp:", "a socket is needed", "format"), ("ram:", "a file is needed", "format"),
    ("ram:/nonexistent", "No such file", "missing"), ("ram:/etc/passwd", "no machine's memory", "format"),
    ("qmp:" + "x" * 200, "cannot connect", "missing"), ("ram:/", "no file", "format"),
])
def test_nothing_there(path: str, told: str, kind: str) -> None:
    with pytest.raises(OpenError, match=told) as caught:
        open_target(path)
    assert caught.value.kind == kind


@contextmanager
def machine(folder: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A QEMU that stands still with nothing in it."""
    command = [*dying_with_us(), qemu_program(), "-nodefaults", "-display", "none", "-S", "-accel", "tcg", "-qmp",
               f"unix:{folder / 'qmp'},server=on,wait=off", *words]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            with suppress(OpenError), closing(Qmp(str(folder / "qmp"))):
                break
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.guest
def test_a_machine_without_linux_and_one_that_quits(tmp_path: Path) -> None:
    with machine(tmp_path, "-m", "32") as process:
        with pytest.raises(OpenError, match="no Linux is found in the virtual machine"):
            open_target(f"qmp:{tmp_path / 'qmp'}")
        qmp = Qmp(str(tmp_path / "qmp"))
        pieces = parse_mtree(qmp.monitor("info mtree -f"))
        ram = qemu._process_memory(qmp, QmpControl(qmp), pieces, False)
        slow = QmpMemory(qmp, pieces, "", lambda: False)
        assert isinstance(ram, GuestRam)
        assert ram.read(0x100000, 4) == slow.read(0x100000, 4) == bytes(4)
        process.kill()
        process.wait()
        for memory in (ram, slow):
            _, fault = memory.read_upto(0x100000, 4)
            assert fault is not None
            assert fault.reason is Reason.GONE, fault
        with pytest.raises(QmpError, match="quit") as caught:
            qmp.execute("query-status")
        assert caught.value.gone
        ram.close()
        qmp.close()


@pytest.mark.guest
def test_one_client_at_a_time(live_guest: RunningGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kshell.memory.qmp.GREETING_WAIT", 0.5)
    with opened(live_guest, "qmp"), pytest.raises(OpenError, match="no greeting") as caught:
        opened(live_guest, "qmp")
    assert "another client" in str(caught.value.hint)
    with opened(live_guest, "qmp"):  # and it is free again
        pass


def test_a_process_that_is_not_the_guests(live_guest: RunningGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket of one machine, and another one's process: not taken for it."""
    sleeper = subprocess.Popen([shutil.which("sleep") or "sleep", "60"])
    try:
        monkeypatch.setattr(qemu, "_processes", lambda qmp: iter([sleeper.pid]))
        with closing(Qmp(str(live_guest.qmp_socket))) as qmp:
            pieces = parse_mtree(qmp.monitor("info mtree -f"))
            with pytest.raises(KshellError, match="is not the one"):
                qemu._process_memory(qmp, QmpControl(qmp), pieces, False)
    finally:
        sleeper.kill()
        sleeper.wait()
