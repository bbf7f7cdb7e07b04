"""A gdb stub on loopback that misbehaves as it is told: for what no real one can be made to do."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kshell.memory.gdbstub import frame

#: what QEMU 7.2 says of itself, as far as the tests need it
TARGET_XML = (
    b"l<target><architecture>i386:x86-64</architecture><feature name='org.gnu.gdb.i386.core'>"
    + b"".join(b"<reg name='%b' bitsize='64'/>" % name for name in (b"rax", b"rip", b"cr3", b"cr4"))
    + b"</feature></target>")
ANSWERS = {
    b"vCont?": b"vCont;c;C;s;S", b"Qqemu.PhyMemMode:1": b"OK", b"qfThreadInfo": b"m01,02", b"qsThreadInfo": b"l",
    b"D": b"OK", b"?": b"T05thread:01;",
}


def qemu(packet: bytes) -> bytes:
    """Answer as QEMU does, with memory whose byte at address i is ``(7*i+3)&255``."""
    if packet.startswith(b"qSupported"):
        return b"PacketSize=400;qXfer:features:read+;vContSupported+"
    if packet.startswith(b"qXfer:features:read:target.xml:0,"):
        return TARGET_XML
    if packet[:1] == b"m":
        address, size = (int(word, 16) for word in packet[1:].split(b","))
        return bytes((7 * at + 3) & 255 for at in range(address, address + size)).hex().encode()
    if packet[:2] == b"Hg" or packet[:1] == b"M":  # taken, and nothing is there that keeps it
        return b"OK"
    if packet == b"g":
        return b"00" * 32
    return ANSWERS.get(packet, b"")


class Talk:
    """One connection, seen from the stub.

    :ivar heard: the packets that came
    """

    def __init__(self, stream: socket.socket) -> None:
        self.stream, self.heard = stream, list[bytes]()
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self.stream.sendall(data)

    def hear(self) -> bytes | None:
        """Return the next packet; None when the other side has closed."""
        while True:
            start, end = self._buffer.find(b"$"), self._buffer.find(b"#")
            if 0 <= start < end and len(self._buffer) >= end + 3:
                packet, self._buffer = self._buffer[start + 1 : end], self._buffer[end + 3 :]
                self.heard.append(packet)
                return packet
            data = self.stream.recv(4096)
            if not data:
                return None
            self._buffer += data


def obey(talk: Talk, answer: Callable[[bytes], bytes | None] = qemu) -> None:
    """Answer every packet until the other side closes; None answers nothing."""
    while (packet := talk.hear()) is not None:
        said = answer(packet)
        if said is not None:
            talk.send(b"+" + frame(said))


@contextmanager
def stub(behave: Callable[[Talk], None]) -> Iterator[str]:
    """Have a stub that behaves so to each who connects, and give its place."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        talks: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    stream, _ = server.accept()
                    stream.settimeout(20)
                    talks.append(stream)
                    with stream, contextlib.suppress(OSError):
                        behave(Talk(stream))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            for stream in talks:
                with contextlib.suppress(OSError):
                    stream.shutdown(socket.SHUT_RDWR)
            thread.join(5)
