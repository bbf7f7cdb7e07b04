"""A machine behind a gdb stub: what the stub can, its threads (CPUs) and registers, memory, running and stopping.

GDB manual, appendix "Remote Serial Protocol"; QEMU gdbstub.c and docs/system/gdb.rst (``qqemu.*``). Everything is done
by packets that QEMU 4.1 and later know. QEMU stops the machine when a debugger connects.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kshell.errors import FormatError, OpenError
from kshell.memory.gdbstub import Connection, StubError
from kshell.memory.gdbxml import Description, Register, read_description

FEATURES = "qSupported:xmlRegisters=i386;swbreak+;hwbreak+;vContSupported+"
SMALLEST_PACKET, LARGEST_PACKET = 64, 1 << 20
MAX_THREADS = 4096
PATIENCE = 2.0  # seconds in which a machine usually stops
THREAD = re.compile(r"(p[0-9a-f]+\.)?[0-9a-f]{1,8}")
SIGNALS = {2: "SIGINT", 5: "SIGTRAP"}
#: the names that kshell has for registers that QEMU calls otherwise
NAMES = {"eflags": "rflags", "k_gs_base": "kernel_gs_base"}


class Halt(NamedTuple):
    """A stop reply.

    :ivar signal: 2 asked, 5 breakpoint or step; -1: the machine has ended
    :ivar thread: the stub's name of the CPU, "" when it is not told
    :ivar watch: the address that a watchpoint saw touched
    """

    signal: int
    thread: str
    watch: int | None = None


class GdbMachine:
    """The machine behind *connection*.

    :ivar found_running: whether it ran before we came; None: the stub does not tell
    :ivar stands: it does not run at this moment
    :raises OpenError: the stub lacks what is needed, or there is none
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.stands = True
        self.place = f"gdb:{connection.place}"
        self._features = self._shake_hands()
        try:
            self.packet = min(max(int(self._features.get("PacketSize", "400"), 16), SMALLEST_PACKET), LARGEST_PACKET)
        except ValueError:
            self.packet = 1024
        told = any(packet[:1] in (b"T", b"S") for packet in connection.stops)
        connection.stops.clear()
        if "QStartNoAckMode+" in self._features and self._ask("QStartNoAckMode") == "OK":
            connection.acks = False
        if self._ask("Qqemu.PhyMemMode:1") != "OK":
            raise OpenError(self.place, "this stub has no physical memory mode, so nothing but one CPU's view can be "
                            "read", kind="unsupported", hint="QEMU's stub has it, since QEMU 4.1")
        connection.ahead = True  # a stub that knows this is QEMU's, which takes questions ahead
        self.threads = self._read_threads()
        self.description = self._describe()
        self.version = self._version()
        self.found_running = True if told else self._ran()
        self._chunk = self._largest_read()

    def _shake_hands(self) -> dict[str, str]:
        answer = self._ask(FEATURES)
        words = (word.partition("=") for word in answer.split(";"))
        return {name: value for name, _, value in words}

    def _ask(self, question: str) -> str:
        return self.connection.ask(question).decode("latin-1")

    def _read_threads(self) -> list[str]:
        """Return the stub's names of the CPUs, in their order."""
        found: list[str] = []
        answer = self._ask("qfThreadInfo")
        while answer[:1] == "m" and len(found) < MAX_THREADS:
            found += answer[1:].split(",")
            answer = self._ask("qsThreadInfo")
        if not found or not all(map(THREAD.fullmatch, found)):
            raise OpenError(self.place, "the gdb stub tells of no CPUs", kind="format")
        return found

    def _describe(self) -> Description:
        try:
            return read_description(self._document)
        except FormatError as error:
            raise OpenError(self.place, str(error), kind="format") from error

    def _document(self, name: str) -> bytes:
        parts: list[bytes] = []
        done = 0
        while done <= LARGEST_PACKET:
            answer = self.connection.ask(f"qXfer:features:read:{name}:{done:x},{self.packet - 8:x}")
            if answer[:1] not in (b"m", b"l"):
                raise FormatError(f"the gdb stub does not give {name}, which describes its registers")
            parts.append(answer[1:])
            done += len(answer) - 1
            if answer[:1] == b"l" or len(answer) == 1:
                break
        return b"".join(parts)

    def _version(self) -> tuple[int, int]:
        """Return QEMU's version, (0, 0) when the stub has no monitor."""
        found = re.search(r"(\d+)\.(\d+)", self.monitor("info version"))
        return (int(found[1]), int(found[2])) if found else (0, 0)

    def _ran(self) -> bool | None:
        """Whether it ran before we came, of a machine that sent no stop reply as we came; None: that is not told.

        Since QEMU 8.1 (758370052fb6 "gdbstub: only send stop-reply packets when allowed to") none is sent. The stop
        that our coming causes is a plain "paused"; one that stood already keeps its own state (gdbstub/system.c:
        gdb_chr_event, system/cpus.c: vm_stop): not yet started (-S), at a breakpoint, its kernel dead, an I/O error.
        """
        if self.version < (8, 1):
            return False
        return False if re.search(r"VM status: paused \(", self.monitor("info status")) else None

    def monitor(self, line: str) -> str:
        """Return what QEMU's monitor says to *line*; "" where there is none."""
        self.connection.output.clear()
        self.connection.ask(b"qRcmd," + binascii.hexlify(line.encode()))
        return self.connection.output.decode("utf-8", "replace")

    def _largest_read(self) -> int:
        """Return how many bytes one ``m`` may ask for: half a packet where the stub counts the payload only."""
        for size in (self.packet // 2, (self.packet - 4) // 2):
            if len(self.connection.ask(f"m0,{size:x}")) == 2 * size:
                return size
        return SMALLEST_PACKET // 2

    # -- memory ----------------------------------------------------------------------------------------------------

    def read_pages(self, numbers: Sequence[int], size: int) -> list[bytes | None]:
        """Return the pages of these numbers, None for one that the stub cannot read.

        :raises StubError: the connection is lost
        """
        steps = [(at, min(self._chunk, size - at)) for at in range(0, size, self._chunk)]
        questions = [b"m%x,%x" % (number * size + at, count) for number in numbers for at, count in steps]
        answers = self.connection.ask_all(questions)
        found: list[bytes | None] = []
        for place in range(0, len(answers), len(steps)):
            data = self._unhex(answers[place : place + len(steps)])
            found.append(data if data is not None and len(data) == size else None)
        return found

    def read(self, address: int, size: int) -> Iterator[bytes]:
        """Yield the bytes at *address*, fewer where the stub cannot read them."""
        questions = [b"m%x,%x" % (address + at, min(self._chunk, size - at)) for at in range(0, size, self._chunk)]
        for answer in self.connection.ask_all(questions):
            data = self._unhex([answer])
            if data is None:
                return
            yield data

    def _unhex(self, answers: Sequence[bytes]) -> bytes | None:
        """Return the bytes that *answers* spell; None for an error.

        :raises StubError: an answer is neither
        """
        if any(answer[:1] == b"E" or not answer for answer in answers):
            return None
        try:
            return binascii.unhexlify(b"".join(answers))
        except ValueError as error:
            raise StubError(f"the gdb stub at {self.connection.place} answers a read with what is no bytes") from error

    def write(self, address: int, data: memoryview) -> Iterator[int]:
        """Write *data*, yielding how many bytes of it have been written so far; stops where the stub refuses."""
        step = max((self.packet - 40) // 2, 1)
        for at in range(0, len(data), step):
            piece = data[at : at + step]
            if self.connection.ask(b"M%x,%x:%b" % (address + at, len(piece), binascii.hexlify(piece))) != b"OK":
                return
            yield at + len(piece)

    # -- registers -------------------------------------------------------------------------------------------------

    def registers(self, cpu: int) -> dict[str, int]:
        """Return the registers of a CPU by kshell's names, those of at most 64 bits.

        :raises StubError: the stub does not tell them
        """
        self._select(cpu)
        data = self._unhex([self.connection.ask("g")])
        if data is None:
            raise StubError(f"the gdb stub does not tell the registers of CPU {cpu}")
        found: dict[str, int] = {}
        for register in self.description.registers.values():
            piece = data[register.offset : register.offset + register.size]
            if len(piece) == register.size and register.size <= 8:
                found[NAMES.get(register.name, register.name)] = int.from_bytes(piece, "little")
        return found

    def register(self, name: str) -> Register | None:
        """Return the register of this name, kshell's or the stub's."""
        own = next((theirs for theirs, ours in NAMES.items() if ours == name), name)
        return self.description.registers.get(own)

    def set_register(self, cpu: int, register: Register, value: int) -> bool:
        """Change a register; whether the stub did."""
        self._select(cpu)
        data = value.to_bytes(register.size, "little").hex()
        return self._ask(f"P{register.number:x}={data}") == "OK"

    def _select(self, cpu: int) -> None:
        if self._ask(f"Hg{self.threads[cpu]}") != "OK":
            raise StubError(f"the gdb stub has no CPU {cpu} any more")

    # -- running and stopping --------------------------------------------------------------------------------------

    def point(self, insert: bool, kind: int, address: int, size: int) -> bool:
        """Insert or remove a breakpoint: kind 0 software, 1 hardware, 2 to 4 write, read, access; whether it worked."""
        return self._ask(f"{'Z' if insert else 'z'}{kind},{address:x},{size:x}") == "OK"

    def resume(self, cpu: int | None = None) -> None:
        """Let all CPUs run; with *cpu* have that one execute one instruction, while the others stand."""
        self.stands = False
        self.connection.tell("vCont;c" if cpu is None else f"vCont;s:{self.threads[cpu]}")

    def wait(self, seconds: float) -> Halt | None:
        """Return why it stopped, None when it still runs after *seconds*.

        :raises StubError: the connection is lost, or the machine has ended
        """
        packet = self.connection.wait_stop(seconds)
        if packet is None:
            return None
        self.stands = True
        return self._halt(packet.decode("latin-1"))

    def halt(self, seconds: float) -> Halt:
        """Stop it, and return the stop reply.

        :raises StubError: it does not stop in time, or the connection is lost
        """
        self.connection.interrupt()
        found = self.wait(min(seconds, PATIENCE)) or self._stands_already() or self.wait(seconds)
        if found is None:
            raise StubError(f"the machine behind {self.place} does not stop within {seconds:g} s")
        return found

    def _stands_already(self) -> Halt | None:
        """Whether the machine stands, and its stop reply was missed: then a stub answers questions."""
        try:
            name = self._ask("qC")
        except StubError:
            return None
        self.stands = True
        self.connection.stops.clear()
        return Halt(2, name.removeprefix("QC"))

    def _halt(self, packet: str) -> Halt:
        if packet[:1] in "WX":
            raise StubError(f"the machine behind {self.place} has ended")
        try:
            signal = int(packet[1:3], 16)
            words = dict(word.split(":", 1) for word in packet[3:].split(";") if ":" in word)
            watch = next((int(words[name], 16) for name in ("watch", "rwatch", "awatch") if name in words), None)
        except ValueError as error:
            raise StubError(f"the gdb stub tells of a stop in a way that is not known: {packet[:60]!r}") from error
        return Halt(signal, words.get("thread", ""), watch)

    def cpu_of(self, thread: str) -> int | None:
        """Return the number of the CPU that the stub calls *thread*, in whichever of its forms."""
        def plain(name: str) -> int:
            return int(name.rpartition(".")[2], 16)

        if not THREAD.fullmatch(thread):
            return None
        return next((number for number, name in enumerate(self.threads) if plain(name) == plain(thread)), None)

    def detach(self) -> None:
        """Have all breakpoints removed and let the machine run.

        :raises StubError: the stub refuses
        """
        # QEMU wants the number of the process (the machine) once any debugger has named its threads with one
        plain, named = "D", f"D;{(self.threads[0].partition('.')[0].lstrip('p') or '1')}"
        for question in (named, plain) if self.threads[0][:1] == "p" else (plain, named):
            if self._ask(question) == "OK":
                self.stands = False
                return
        raise StubError(f"the gdb stub at {self.connection.place} does not let go of the machine")

    def clear_points(self) -> None:
        """Have the breakpoints removed that an earlier debugger left: QEMU does so when it is asked why it stands."""
        self.connection.tell("?")
        self.connection.wait_stop(self.connection.answer_seconds)
