"""The gdb remote protocol's packets: sent, acknowledged, received, unpacked; every wait is bounded.

GDB manual, appendix "Remote Serial Protocol" (packets, run-length encoding, escapes, QStartNoAckMode); QEMU gdbstub.c.
An answer that was under way when something went wrong (Ctrl-C, a slow stub) is dropped before the next question, so
that question and answer never get out of step.
"""

from __future__ import annotations

import binascii
import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence

from kshell.errors import KshellError, OpenError
from kshell.lang.numbers import decimal_value

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
TAKEN_SECONDS = 1.0
SETTLE_SECONDS = 2.0  # for an answer that is late already
MAX_PACKET = 1 << 20  # bytes of a packet that are taken in
MAX_EXPANDED = 1 << 22  # and of one whose runs are written out
MAX_TRIES = 4  # of a packet that arrives damaged
MAX_NOISE = 1 << 16  # bytes between packets
MAX_OUTPUT = 1 << 20
WINDOW = 16  # questions that are sent ahead of their answers, to a stub that takes them
INTERRUPT = b"\x03"
BUSY = "perhaps another debugger is connected to it: a stub takes one at a time"


class StubError(KshellError):
    """The stub closed the connection, does not answer, or answers with what is no packet."""


def frame(payload: bytes) -> bytes:
    """Return *payload* as a packet: ``$``, escaped, ``#``, checksum."""
    if any(byte in payload for byte in b"#$}*"):
        payload = b"".join(b"}%c" % (byte ^ 0x20) if byte in b"#$}*" else b"%c" % byte for byte in payload)
    return b"$%b#%02x" % (payload, sum(payload) & 0xFF)


def unpack(raw: bytes) -> bytes:
    """Return what the bytes between ``$`` and ``#`` mean: escapes and runs written out.

    :raises StubError: a run of nothing, a cut escape, or too much
    """
    if b"}" not in raw and b"*" not in raw:
        return raw
    found = bytearray()
    at = 0
    while at < len(raw):
        byte = raw[at]
        if byte in b"}*" and at + 1 >= len(raw):
            raise StubError("the stub sent a packet that ends within an escape")
        if byte == 0x7D:
            found.append(raw[at + 1] ^ 0x20)
            at += 2
        elif byte == 0x2A:
            count = raw[at + 1] - 29
            if not found or not 3 <= count <= 97:
                raise StubError("the stub sent a run that repeats nothing, or an impossible number of times")
            found += found[-1:] * count
            at += 2
        else:
            found.append(byte)
            at += 1
        if len(found) > MAX_EXPANDED:
            raise StubError(f"the stub sent a packet of more than {MAX_EXPANDED >> 20} MiB")
    return bytes(found)


def is_taken(place: str) -> bool:
    """Whether a debugger is connected to the stub at *place* already, as far as this host's kernel tells.

    A second connection would do harm: QEMU takes it once the first one ends, and stops the machine for it.
    """
    port = decimal_value(place.rpartition(":")[2])
    ports = b"" if port is None else b":%04X" % port
    path = os.path.realpath(place).encode("utf-8", "surrogateescape") if "/" in place else b""
    for table in ("unix",) if path else ("tcp", "tcp6"):
        try:
            with open(f"/proc/net/{table}", "rb") as file:
                rows = [line.split() for line in file.read().splitlines()[1:]]
        except OSError:
            continue
        for row in rows:
            # net/unix/af_unix.c: path and SS_CONNECTED; net/ipv4/tcp_ipv4.c: local address and TCP_ESTABLISHED
            if path and len(row) == 8 and row[5] == b"03" and os.path.realpath(row[7]) == path:
                return True
            if not path and ports and row[1].endswith(ports) and row[3] == b"01":
                return True
    return False


def dial(place: str) -> socket.socket:
    """Connect to ``HOST:PORT`` (``[v6]:PORT``, ``:PORT`` for this host) or the path of a Unix socket.

    :raises OpenError: nobody listens there, or the name is none
    """
    path = place if "/" in place else None
    patience = time.monotonic() + TAKEN_SECONDS  # one that was killed is about to let go
    while is_taken(place):
        if time.monotonic() > patience:
            raise OpenError(f"gdb:{place}", "another debugger is connected to the gdb stub", kind="permission",
                            hint="a stub takes one at a time; qmp: and ram: work beside it")
        time.sleep(0.05)
    try:
        if path is not None:
            found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                found.settimeout(CONNECT_SECONDS)
                found.connect(path)
            except BaseException:
                found.close()
                raise
            return found
        host, _, digits = place.rpartition(":")
        port = decimal_value(digits)
        if port is None or not 0 < port < 1 << 16:
            raise OpenError(f"gdb:{place}", "not a place of a gdb stub", kind="format",
                            hint="gdb:HOST:PORT or gdb:/path/of/a/socket")
        found = socket.create_connection((host.strip("[]") or "localhost", port), CONNECT_SECONDS)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return found
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        kind = "permission" if isinstance(error, PermissionError) else "missing"
        raise OpenError(f"gdb:{place}", f"cannot connect to the gdb stub: {why.lower()}", kind=kind,
                        hint="QEMU listens with -gdb tcp::1234, or -gdb unix:PATH,server=on,wait=off") from error


class Connection:
    """One stub. Not for two threads at once: whoever uses it holds a lock.

    :ivar place: as the user named it, for messages
    :ivar acks: whether packets are acknowledged; off once QStartNoAckMode was answered with OK
    :ivar ahead: whether questions may be sent before the earlier ones are answered (QEMU: yes)
    :ivar stops: stop replies that came without being waited for
    :ivar retries: how often a damaged packet was asked for again
    :ivar output: what the stub's monitor printed (``O`` packets), the newest part
    :ivar stopped: whether a stop reply was heard, as QEMU before 8.1 sends one when our coming stops the machine
    :ivar on_loss: called once, when the connection is found to be lost for good
    """

    def __init__(self, place: str, stream: socket.socket, answer_seconds: float = ANSWER_SECONDS) -> None:
        self.place, self._socket, self.answer_seconds = place, stream, answer_seconds
        self.acks, self.ahead = True, False
        self.stops: deque[bytes] = deque(maxlen=64)
        self.retries = 0
        self.output = bytearray()
        self.stopped = False
        self.on_loss: Callable[[], None] | None = None
        self._buffer = bytearray()
        self._owed = 0  # answers that are still to come to questions nobody waits for any more
        self._unsaid = b""  # acknowledgements to go out with the next packet
        self._gone: str | None = None

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    # -- questions and answers -------------------------------------------------------------------------------------

    def ask(self, question: bytes | str, seconds: float | None = None) -> bytes:
        """Send *question* and return the answer: b"" when the stub does not know it.

        :raises StubError: there is none in time, or the connection is lost
        """
        return self.ask_all([question.encode() if isinstance(question, str) else question], seconds)[0]

    def ask_all(self, questions: Sequence[bytes], seconds: float | None = None) -> list[bytes]:
        """As :meth:`ask`, for several at once: some are sent ahead where the stub takes that."""
        self._settle()
        answers: list[bytes] = []
        window = WINDOW if self.ahead else 1
        sent = 0
        while len(answers) < len(questions):
            batch = questions[sent : len(answers) + window]
            if batch:
                self._owed += len(batch)
                sent += len(batch)
                self._put(b"".join(map(frame, batch)))
            packet = self._answer(self.answer_seconds if seconds is None else seconds)
            self._owed -= 1
            answers.append(packet)
        return answers

    def tell(self, packet: bytes | str) -> None:
        """Send what has no answer of its own but a stop reply, in its time: ``c``, ``vCont``."""
        self._settle()
        self._put(frame(packet.encode() if isinstance(packet, str) else packet))

    def interrupt(self) -> None:
        """Ask a machine that runs to stop (a byte, no packet)."""
        self._put(INTERRUPT)

    def wait_stop(self, seconds: float) -> bytes | None:
        """Return the stop reply that came or comes within *seconds*; None when none does.

        :raises StubError: the connection is lost
        """
        if self.stops:
            return self.stops.popleft()
        deadline = time.monotonic() + seconds
        while True:
            packet = self._packet(deadline)
            if packet is None:
                return None
            if packet[:1] in (b"T", b"S", b"W", b"X"):
                return packet
            self._is_output(packet)
            # the late answer to a question nobody waits for

    def _answer(self, seconds: float) -> bytes:
        """Return the next packet that is an answer. A stop reply here is one that nobody asked for."""
        deadline = time.monotonic() + seconds
        while True:
            packet = self._packet(deadline)
            if packet is None:
                raise self._lost(f"does not answer within {seconds:g} s", hint=BUSY, final=False)
            if self._is_stop(packet):
                self.stopped = True
                self.stops.append(packet)
                continue
            if not self._is_output(packet):
                return packet

    def _is_output(self, packet: bytes) -> bool:
        """Whether *packet* is console output (``O`` and hex digits); it is kept."""
        if packet[:1] != b"O" or packet == b"OK":
            return False
        try:
            self.output += binascii.unhexlify(packet[1:])
        except ValueError:
            return False
        del self.output[:-MAX_OUTPUT]
        return True

    @staticmethod
    def _is_stop(packet: bytes) -> bool:
        """Whether *packet* tells of a stop: a letter, two digits; no answer to a question of ours begins so."""
        return packet[:1] in (b"T", b"S", b"W", b"X") and len(packet) >= 3 and packet[1:3].isalnum() and (
            len(packet) == 3 or packet[:1] != b"S")

    def _settle(self) -> None:
        """Take in the answers to questions that nobody waits for any more."""
        while self._owed:
            packet = self._packet(time.monotonic() + min(self.answer_seconds, SETTLE_SECONDS))
            if packet is None:
                self._owed = 0  # the question never left
                return
            if self._is_stop(packet):
                self.stops.append(packet)
            elif not self._is_output(packet):
                self._owed -= 1

    # -- packets ---------------------------------------------------------------------------------------------------

    def _packet(self, deadline: float) -> bytes | None:
        """Return the next packet, its acknowledgement noted; None when *deadline* comes first.

        :raises StubError: the stub closed, or sends what is no packet, or damaged ones again and again
        """
        damaged = noise = 0
        while True:
            start = self._buffer.find(b"$")
            if start != 0:
                cut = len(self._buffer) if start < 0 else start
                if self._buffer.startswith(b'{"QMP"'):
                    raise self._lost("is a monitor of QEMU", hint=f"kshell qmp:{self.place}")
                noise += cut - self._buffer.count(b"+", 0, cut)
                del self._buffer[:cut]
                if noise > MAX_NOISE:
                    raise self._lost("sends bytes that are no packets", hint="is it a gdb stub?")
            end = self._buffer.find(b"#", 1) if self._buffer else -1
            if end < 0 or len(self._buffer) < end + 3:
                if len(self._buffer) > MAX_PACKET:
                    raise self._lost(f"sent a packet of more than {MAX_PACKET >> 20} MiB without an end")
                if not self._take(deadline):
                    return None
                continue
            raw, told = bytes(self._buffer[1:end]), bytes(self._buffer[end + 1 : end + 3])
            del self._buffer[: end + 3]
            if self.acks and told.lower() != b"%02x" % (sum(raw) & 0xFF):
                damaged += 1
                self.retries += 1
                if damaged >= MAX_TRIES:
                    raise self._lost(f"sent a packet with a wrong checksum {damaged} times",
                                     hint="the line is bad, or it is no gdb stub")
                self._send(b"-")
                continue
            if self.acks:
                self._unsaid += b"+"  # goes out with the next packet, or before anything is waited for
            return unpack(raw)

    def _take(self, deadline: float) -> bool:
        """Take in more bytes; False when *deadline* comes first."""
        if self._gone is not None:
            raise StubError(self._gone)
        if self._unsaid:
            self._put(b"")  # a stub may send nothing more before its last packet is acknowledged
        left = deadline - time.monotonic()
        try:
            self._socket.settimeout(max(left, 0.000001))
            data = self._socket.recv(1 << 16)
        except (TimeoutError, BlockingIOError):
            return False
        except OSError as error:
            raise self._lost(f"is gone: {error.strerror or error}") from error
        if not data:
            raise self._lost("closed the connection", hint="the machine has ended, or its monitor ended the stub")
        self._buffer += data
        return True

    def _put(self, data: bytes) -> None:
        unsaid, self._unsaid = self._unsaid, b""
        if unsaid or data:
            self._send(unsaid + data)

    def _send(self, data: bytes) -> None:
        if self._gone is not None:
            raise StubError(self._gone)
        try:
            self._socket.settimeout(self.answer_seconds)
            self._socket.sendall(data)
        except TimeoutError as error:
            raise self._lost(f"takes nothing in for {self.answer_seconds:g} s") from error
        except OSError as error:
            with contextlib.suppress(OSError):  # what it said before it went
                self.stopped |= b"$T" in self._socket.recv(1 << 16)
            raise self._lost(f"is gone: {(error.strerror or str(error)).lower()}") from error

    def _lost(self, why: str, hint: str | None = None, final: bool = True) -> StubError:
        message = f"the gdb stub at {self.place} {why}"
        if final:
            self._gone = message
            on_loss, self.on_loss = self.on_loss, None
            if on_loss is not None:
                on_loss()
        return StubError(message, hint=hint)

    def close(self) -> None:
        """End the connection. A second close does nothing."""
        self.on_loss = None
        with contextlib.suppress(OSError):
            self._socket.close()
        self._gone = self._gone or f"the connection to the gdb stub at {self.place} is closed"


__all__ = ["Connection", "StubError", "dial", "frame", "unpack"]
