"""A running guest: QEMU started, asked through QMP (JSON over a Unix socket), and ended by its own process id.

QMP: docs/interop/qmp-spec.rst in QEMU.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cache import held, remove_unheld
from .machine import command
from .progress import GuestFailed, RigError
from .spec import GuestSpec

READY = b"KSHELL-READY"
FAILED = (b"KSHELL-FAILED", b"Kernel panic")
CONSOLE_TAIL = 2000


@dataclass
class RunningGuest:
    """A guest under QEMU. ``gdb_socket`` speaks the gdb remote protocol, ``qmp_socket`` takes one more client."""

    spec: GuestSpec
    process: subprocess.Popen[bytes]
    folder: Path
    console: Path
    oracle_folder: Path | None = None
    """the unpacked oracle, when boot() made this guest"""
    memory_file: Path | None = None
    """the file that is the guest's memory, where the spec asks for one"""
    _qmp: socket.socket | None = None
    _pending: bytes = field(default=b"", repr=False)

    @property
    def qmp_socket(self) -> Path:
        return self.folder / "qmp"

    @property
    def gdb_socket(self) -> Path:
        return self.folder / "gdb"

    def command(self, name: str, timeout: float = 300.0, **arguments: object) -> Any:
        """Execute one QMP command and return its answer.

        :raises RigError: QEMU refused it; the text has QEMU's reason
        """
        return self._request(name, arguments, timeout)

    def monitor(self, line: str) -> str:
        """Execute a line of QEMU's human monitor and return what it printed."""
        answer = self._request("human-monitor-command", {"command-line": line}, 300.0)
        return str(answer)

    def wait_console(self, marks: tuple[bytes, ...], seconds: float, failing: tuple[bytes, ...] = FAILED) -> bytes:
        """Wait until one of *marks* stands on the console and return the console's bytes.

        :raises GuestFailed: QEMU ended, the guest said it failed, or time ran out
        """
        deadline = time.monotonic() + seconds
        while True:
            ended = self.process.poll() is not None
            text = self.console.read_bytes() if self.console.exists() else b""
            if any(mark in text for mark in marks):
                return text
            if any(mark in text for mark in failing):
                raise self.failure("failed")
            if ended:
                raise self.failure(f"ended early (QEMU returned {self.process.returncode}; 0 is a reset or power-off)")
            if time.monotonic() > deadline:
                raise self.failure(f"was not ready after {seconds:.0f} s")
            time.sleep(0.1)

    def wait_end(self, seconds: float) -> None:
        """Wait until the guest has powered off.

        :raises GuestFailed: it has not within that time
        """
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self.failure(f"did not power off within {seconds:.0f} s") from None

    def failure(self, what: str) -> GuestFailed:
        """Return the error that says what went wrong, with the end of the console."""
        text = self.console.read_bytes() if self.console.exists() else b""
        tail = text[-CONSOLE_TAIL:].decode("utf-8", "backslashreplace").replace("\r", "")
        tail += (self.folder / "qemu.log").read_text(errors="backslashreplace")[-CONSOLE_TAIL:]
        return GuestFailed(f"guest {self.spec.name} {what}; its console ends:\n{tail}", self.console)

    def end(self) -> None:
        """End QEMU (by its own process id) and close the sockets."""
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _request(self, name: str, arguments: dict[str, object], timeout: float) -> Any:
        self._connect(timeout)
        answer = self._exchange({"execute": name, "arguments": arguments}, timeout)
        if "error" in answer:
            raise RigError(f"QMP {name}: {answer['error'].get('desc')}")
        return answer["return"]

    def _connect(self, timeout: float) -> None:
        if self._qmp is not None:
            return
        control = self.folder / "control"
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        deadline = time.monotonic() + 20
        while True:
            try:
                connection.connect(str(control))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise self.failure("has no QMP socket") from None
                time.sleep(0.05)
        self._qmp = connection
        self._receive(timeout)  # the greeting
        self._exchange({"execute": "qmp_capabilities"}, timeout)

    def _exchange(self, message: dict[str, object], timeout: float) -> dict[str, Any]:
        assert self._qmp is not None
        self._qmp.sendall(json.dumps(message).encode())
        while True:
            answer = self._receive(timeout)
            if "event" not in answer:
                return answer

    def _receive(self, timeout: float) -> dict[str, Any]:
        assert self._qmp is not None
        self._qmp.settimeout(timeout)
        while b"\n" not in self._pending:
            try:
                data = self._qmp.recv(1 << 16)
            except TimeoutError:
                raise self.failure(f"QMP gave no answer within {timeout:.0f} s") from None
            if not data:
                raise self.failure("closed its QMP socket")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def started(
    spec: GuestSpec, kernel: Path, initrd: Path, arguments: str, drives: list[Path], console: Path | None = None,
    more: list[str] | None = None,
) -> Iterator[RunningGuest]:
    """Start a guest and end it when the block ends, however it ends; *console* gets a copy of its console.

    *more* is added to QEMU's command line.

    Sockets live in a short folder under /tmp, since a Unix socket's path has at most 107 bytes.
    """
    remove_unheld(Path("/tmp").glob("kshell-guest-*"))
    folder = Path(tempfile.mkdtemp(prefix="kshell-guest-", dir="/tmp"))
    log = folder / "console.log"
    try:
        with held(folder):
            errors = folder / "qemu.log"
            with errors.open("wb") as stderr:
                process = subprocess.Popen(
                    [*command(spec, kernel, initrd, arguments, folder, drives), *(more or [])],
                    stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, start_new_session=True,
                )  # fmt: skip
            guest = RunningGuest(spec, process, folder, log)
            try:
                yield guest
            finally:
                guest.end()
                complaint = errors.read_bytes()
                if console is not None:
                    text = log.read_bytes() if log.exists() else b""
                    console.write_bytes(text + (b"\n[QEMU] " + complaint if complaint else b""))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
