"""Somebody who lets a machine go should this process be killed: a small process that holds the same socket.

It sleeps in a read of a pipe whose other end only we have. When that ends without the word that all is well, we are
dead (SIGKILL, SIGTERM, out of memory) and it says the farewell. It is a new program rather than a fork: nothing of
this process is kept alive by it, no thread's lock is copied, and of descriptors it has these two.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

#: a stub that got half a packet, or runs the machine, first has that ended: ``#00#00`` is no packet's checksum
INTERRUPT = b"+\x03#00#00"

_PROGRAM = r"""
import os, socket, sys
last = b""
while True:
    word = os.read(100, 4096)
    if not word:
        break
    last = word[-1:]
if last != b"q":
    stub = socket.socket(fileno=101)
    stub.settimeout(600)  # behind another debugger it is long until the stub hears us
    heard = b""
    def answer(*starts):
        global heard  # packets that we did not ask for come first: answers that nobody waits for any more
        while True:
            start = heard.find(b"$")
            end = heard.find(b"#", start)
            if start < 0 or end < 0:
                data = stub.recv(65536)
                if not data:
                    raise OSError
                heard += data
                continue
            packet, heard = heard[start + 1 : end], heard[end:]
            if packet.startswith(starts):
                return packet
    try:
        stop, *release = bytes.fromhex(sys.argv[1]).split(b"\n")
        stub.sendall(stop)
        answer(b"T", b"S", b"W", b"X")
        for words in release if last == b"r" else ():
            stub.sendall(words)
            if answer(b"OK", b"E") == b"OK":
                break  # it runs: one more byte would stop it
    except OSError:
        pass
"""


class Guard:
    """The one who waits.

    :param descriptor: the socket
    :param farewells: what is said on it: the first stops the machine and is answered with a stop reply; of the others,
        which let it run, as many as it takes until one is answered with OK; none after ``release(False)``
    """

    def __init__(self, descriptor: int, farewells: list[bytes]) -> None:
        self._pid = self._pipe = -1
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            try:
                self._pid = os.posix_spawn(
                    sys.executable, [sys.executable, "-I", "-S", "-c", _PROGRAM, b"\n".join(farewells).hex()],
                    {"PATH": "/usr/bin:/bin"}, setsid=True, setsigdef=[signal.SIGPIPE],
                    file_actions=[*((os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1, 2)),
                                  (os.POSIX_SPAWN_DUP2, reader, 100), (os.POSIX_SPAWN_DUP2, descriptor, 101)])
            finally:
                os.close(null)
            self._pipe = writer
        except OSError:
            os.close(writer)  # without one, being killed is the only thing that is not provided for
        finally:
            os.close(reader)
        self.release(True)

    def release(self, release: bool) -> None:
        """Tell whether the machine is to run should we be killed."""
        if self._pipe >= 0:
            with contextlib.suppress(OSError):
                os.write(self._pipe, b"r" if release else b"k")

    def abandon(self) -> None:
        """Have the farewell said without us, whenever the stub hears it."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def dismiss(self) -> None:
        """All is well: it ends. A second call does nothing."""
        if self._pipe < 0:
            return
        with contextlib.suppress(OSError):
            os.write(self._pipe, b"q")
        os.close(self._pipe)
        self._pipe = -1
        with contextlib.suppress(OSError):
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
