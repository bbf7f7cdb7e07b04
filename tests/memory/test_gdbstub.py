"""The gdb remote protocol: packets, and stubs that close, stall, send garbage, damage or halve what they say."""

from __future__ import annotations

import signal
import socket
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kshell.errors import Fault, FormatError, OpenError, Reason
from kshell.memory.gdbmachine import GdbMachine
from kshell.memory.gdbmemory import GdbMemory
from kshell.memory.gdbstub import Connection, StubError, dial, frame, unpack
from kshell.memory.gdbxml import read_description
from tests.memory.fake_stub import Talk, obey, qemu, stub

PATTERN = bytes((7 * at + 3) & 255 for at in range(1 << 16))


def connect(place: str, seconds: float = 5.0) -> Connection:
    return Connection(place, dial(place), seconds)


@pytest.mark.parametrize("raw, meaning", [
    (b"OK", b"OK"), (b"", b""),
    (b"0* ", b"0000"),          # the GDB manual's own example
    (b"a}\x03b", b"a#b"), (b"}\x04", b"$"), (b"}]", b"}"), (b"}\x0a", b"*"),
    (b"x*\"y", b"xxxxxxy"),     # '"' is 34: 5 more
])
def test_unpack(raw: bytes, meaning: bytes) -> None:
    assert unpack(raw) == meaning


@pytest.mark.parametrize("raw", [b"*\"", b"a*", b"a}", b"a*\x1f", b"a*\x7f"])
def test_runs_and_escapes_that_are_none(raw: bytes) -> None:
    with pytest.raises(StubError):
        unpack(raw)


def test_a_packet_that_unpacks_to_too_much() -> None:
    with pytest.raises(StubError, match="MiB"):
        unpack(b"a" + b"*~" * 60000)


@given(st.binary(max_size=200))
def test_what_is_framed_comes_back(payload: bytes) -> None:
    packet = frame(payload)
    assert packet[:1] == b"$"
    assert packet.count(b"$") == packet.count(b"#") == 1
    assert unpack(packet[1:-3]) == payload
    assert int(packet[-2:], 16) == sum(packet[1:-3]) & 255


def test_a_stub_that_obeys() -> None:
    with stub(obey) as place:
        machine = GdbMachine(connect(place))
        assert machine.threads == ["01", "02"]
        assert machine.description.architecture == "i386:x86-64"
        assert (machine.packet, machine.found_running) == (1024, False)
        memory = GdbMemory(machine, nullcontext)
        assert memory.read(5, 20000) == PATTERN[5:20005]
        assert machine.registers(1) == {"rax": 0, "rip": 0, "cr3": 0, "cr4": 0}
        found = memory.gather([4090, 3, 60000], 16)
        assert found.ok.all()
        assert [row.tobytes() for row in found.data] == [PATTERN[at : at + 16] for at in (4090, 3, 60000)]
        assert memory.read_many([1, 9000], 3) == [PATTERN[1:4], PATTERN[9000:9003]]
        machine.connection.close()


@pytest.mark.parametrize("version, said, ran", [
    (b"10.0.13", b"paused", None), (b"10.0.13", b"paused (debug)", False), (b"8.1.0", b"paused (prelaunch)", False),
    (b"8.1.0", b"nothing that is known", None), (b"8.0.5", b"paused", False),
])
def test_what_tells_whether_it_ran(version: bytes, said: bytes, ran: bool | None) -> None:
    """QEMU 8.1 and later send no stop reply to one who connects; what they say of the state tells some of it."""
    says = {b"info version": version + b" (Debian)", b"info status": b"VM status: " + said}

    def behave(talk: Talk) -> None:
        while (packet := talk.hear()) is not None:
            if packet.startswith(b"qRcmd,"):
                talk.send(b"+" + frame(b"O" + says[bytes.fromhex(packet[6:].decode())].hex().encode()) + frame(b"OK"))
            else:
                talk.send(b"+" + frame(qemu(packet)))

    with stub(behave) as place:
        machine = GdbMachine(connect(place))
        assert machine.found_running is ran
        machine.connection.close()


def test_pages_are_asked_for_once_until_the_machine_moves() -> None:
    talks: list[Talk] = []

    def behave(talk: Talk) -> None:
        talks.append(talk)
        obey(talk)

    with stub(behave) as place:
        machine = GdbMachine(connect(place))
        memory = GdbMemory(machine, nullcontext)
        memory.read(4096, 8)
        count = len(talks[0].heard)
        memory.read(4200, 100)
        assert len(talks[0].heard) == count
        memory.flush()
        memory.read(4200, 100)
        assert len(talks[0].heard) == count + 8  # a page in packets of 512 bytes
        machine.connection.close()


def test_only_ram_is_read() -> None:
    with stub(obey) as place:
        machine = GdbMachine(connect(place))
        memory = GdbMemory(machine, nullcontext, writable=True)
        memory.set_ram([(0, 5000), (8192, 16384)])
        data, fault = memory.read_upto(4990, 100)
        assert data == PATTERN[4990:5000]
        assert fault is not None
        assert (fault.reason, fault.address) == (Reason.OUTSIDE, 5000)
        assert memory.gather([4990, 6000, 8190, 8192], 16).ok.tolist() == [False, False, False, True]
        assert memory.read_upto(7000, 1)[0] == b""
        with pytest.raises(Fault, match="outside RAM"):
            memory.write(6000, b"x")
        with pytest.raises(Fault, match="the bytes are not there") as caught:  # as QEMU does for ROM
            memory.write(8192, PATTERN[8192:8195] + b"!")
        assert (caught.value.done, caught.value.address) == (3, 8195)
        machine.connection.close()


def test_acknowledged_packets_that_are_damaged_are_asked_for_again() -> None:
    def behave(talk: Talk) -> None:
        assert talk.hear() == b"hello"
        talk.send(b"+$world#00")
        assert talk.stream.recv(1) == b"-"
        talk.send(b"$wo")
        time.sleep(0.05)
        talk.send(b"rld#28")
        talk.hear()

    with stub(behave) as place:
        connection = connect(place)
        assert connection.ask("hello") == b"world"
        assert connection.retries == 1
        connection.close()


def test_a_stub_with_wrong_checksums_for_ever() -> None:
    def behave(talk: Talk) -> None:
        talk.hear()
        for _ in range(10):
            talk.send(b"+$world#00")
        talk.hear()

    with stub(behave) as place:
        connection = connect(place)
        with pytest.raises(StubError, match="wrong checksum 4 times"):
            connection.ask("hello")
        with pytest.raises(StubError, match="wrong checksum"):
            connection.ask("again")


@pytest.mark.parametrize("said, error", [
    (b"", "closed the connection"),
    (b"+$half of it", "closed the connection"),
    (b"HTTP/1.1 400 Bad Request\r\n" * 4000, "no packets"),
    (b"+$" + b"x" * (2 << 20), "without an end"),
    (b'{"QMP": {"version": {}, "capabilities": ["oob"]}}\r\n', "is a monitor of QEMU"),
])
def test_a_stub_that_sends_garbage_or_closes(said: bytes, error: str) -> None:
    def behave(talk: Talk) -> None:
        talk.hear()
        talk.send(said)

    with stub(behave) as place:
        connection = connect(place)
        with pytest.raises(StubError, match=error):
            connection.ask("hello")
        connection.close()


def test_a_stub_that_stalls_and_then_answers_late() -> None:
    """The late answer is not taken for the answer to the next question."""
    def behave(talk: Talk) -> None:
        talk.hear()
        time.sleep(0.5)
        talk.send(b"+" + frame(b"late"))
        talk.hear()
        talk.send(b"+" + frame(b"in time"))
        talk.hear()

    with stub(behave) as place:
        connection = connect(place, 0.2)
        start = time.monotonic()
        with pytest.raises(StubError, match=r"does not answer within 0\.2 s"):
            connection.ask("one")
        assert time.monotonic() - start < 0.45
        connection.answer_seconds = 5
        assert connection.ask("two") == b"in time"
        connection.close()


def test_an_interrupt_in_a_question_does_not_put_answers_out_of_step() -> None:
    def behave(talk: Talk) -> None:
        while (packet := talk.hear()) is not None:
            time.sleep(0.3)
            talk.send(b"+" + frame(packet))

    with stub(behave) as place:
        connection = connect(place)
        threading.Timer(0.1, signal.raise_signal, (signal.SIGINT,)).start()
        with pytest.raises(KeyboardInterrupt):
            connection.ask("one")
        assert connection.ask("two") == b"two"
        connection.close()


def test_a_second_debugger_is_told_that_one_is_there() -> None:
    """QEMU takes one connection; the next one waits in the kernel's queue and gets no answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(StubError, match="does not answer") as caught:
            GdbMachine(connect(place, 0.2))
        assert "another debugger" in (caught.value.hint or "")


def test_console_output_between_answers() -> None:
    def behave(talk: Talk) -> None:
        talk.hear()
        talk.send(b"+" + frame(b"O" + b"QEMU".hex().encode()) + frame(b"OK"))
        talk.hear()

    with stub(behave) as place:
        connection = connect(place)
        assert connection.ask("qRcmd,00") == b"OK"
        assert connection.output == b"QEMU"
        connection.close()


@pytest.mark.parametrize("answers, error", [
    ({b"Qqemu.PhyMemMode:1": b""}, "no physical memory mode"),
    ({b"qfThreadInfo": b"l"}, "no CPUs"),
    ({b"qfThreadInfo": b"m../../etc"}, "no CPUs"),
    ({b"qXfer": b""}, "does not give target.xml"),
    ({b"qXfer": b"l<target><reg name='a' bitsize='x'/></target>"}, "without a size"),
    ({b"qXfer": b"l<target"}, "no XML"),
])
def test_a_stub_that_lacks_something(answers: dict[bytes, bytes], error: str) -> None:
    def answer(packet: bytes) -> bytes:
        return next((said for start, said in answers.items() if packet.startswith(start)), None) or (
            b"" if any(map(packet.startswith, answers)) else qemu(packet))

    with stub(lambda talk: obey(talk, answer)) as place:
        connection = connect(place)
        with pytest.raises(OpenError, match=error):
            GdbMachine(connection)
        connection.close()


@pytest.mark.parametrize("document, error", [
    (b"<!DOCTYPE a [<!ENTITY x 'y'>]><target/>", "declares entities"),
    (b"<!DOCTYPE a SYSTEM 'file:///etc/passwd'><target><include href='../passwd'/></target>", "impossible name"),
    (b"<target><xi:include href='target.xml'/></target>", "without end"),
    (b"<target><reg name='a' bitsize='7'/></target>", "7 bits"),
    (b"<target><reg name='a' bitsize='8' regnum='99999'/></target>", "register number"),
])
def test_hostile_descriptions(document: bytes, error: str) -> None:
    with pytest.raises(FormatError, match=error):
        read_description(lambda name: document)


def test_registers_lie_in_the_order_of_their_numbers() -> None:
    documents = {
        "target.xml": b"<target><architecture>x</architecture><xi:include href='a.xml'/>"
                      b"<reg name='D' bitsize='8'/></target>",
        "a.xml": b"<feature><reg name='B' bitsize='32' regnum='1'/><reg name='C' bitsize='64'/>"
                 b"<reg name='A' bitsize='16' regnum='0'/></feature>",
    }
    found = read_description(documents.__getitem__)
    assert found.architecture == "x"
    assert [(r.name, r.number, r.offset, r.size) for r in found.registers.values()] == [
        ("a", 0, 0, 2), ("d", 1, 2, 1), ("c", 2, 3, 8)]


@pytest.mark.parametrize("place", ["nowhere", "host:0", "host:99999", "", ":", "host:port", "host:" + "9" * 5000])
def test_places_that_are_none(place: str) -> None:
    with pytest.raises(OpenError, match="not a place of a gdb stub"):
        dial(place)


def test_a_stub_that_is_taken() -> None:
    with stub(obey) as place:
        first = dial(place)
        with pytest.raises(OpenError, match="another debugger is connected"):
            dial(place)
        first.close()
        dial(place).close()


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(OpenError, match="cannot connect to the gdb stub: no such file") as caught:
        dial(str(tmp_path / "socket"))
    assert "-gdb" in (caught.value.hint or "")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(OpenError, match="connection refused"):
        dial(f"127.0.0.1:{port}")
    with pytest.raises(OpenError):
        dial("/" + "x" * 200)
