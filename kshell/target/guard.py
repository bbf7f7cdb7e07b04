"""A small process that resumes a guest should kshell be killed while it holds the guest still: SIGKILL asks nobody.

It is told over a pipe when the guest stands by our doing and when it runs again, and sees the pipe close when we end.
Left with a guest that stands it connects to QEMU's monitor itself, whose one place for a client is free by then.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys

_PROGRAM = """
import os, signal, socket, sys, time
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
state = b"r"
while word := os.read(0, 64):
    state = word[-1:]
address = sys.argv[1]
host, _, port = address.rpartition(":")
end = time.monotonic() + 10
while state == b"s" and time.monotonic() < end:
    try:
        if sys.argv[2] == "unix":
            link = socket.socket(socket.AF_UNIX)
            link.settimeout(5)
            link.connect(address)
        else:
            link = socket.create_connection((host or "localhost", int(port)), 5)
        link.recv(65536)
        link.sendall(b'{"execute":"qmp_capabilities"}')
        link.recv(65536)
        link.sendall(b'{"execute":"cont"}')
        link.recv(65536)
        break
    except OSError:
        time.sleep(0.2)
"""


class Guard:
    """The guard of the guest at the QMP socket *address*."""

    def __init__(self, address: str, *, unix: bool) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, address, "unix" if unix else "tcp"], stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, bufsize=0)

    def tell(self, stands: bool) -> None:
        """Tell whether the guest stands by our doing."""
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(OSError):  # somebody has killed it: nothing is guarded, and nothing is lost
            pipe.write(b"s" if stands else b"r")

    def close(self) -> None:
        """Let it end. A second call does nothing."""
        pipe = self._process.stdin
        if pipe is not None and not pipe.closed:
            pipe.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
