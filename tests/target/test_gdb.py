"""A running guest by its gdb stub: found without debuginfo, read, written, and left as it was found."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest

from kshell.errors import Fault, OpenError, Reason
from kshell.linux.tasks import iter_processes
from kshell.memory.gdbmachine import GdbMachine
from kshell.memory.gdbstub import Connection, dial
from kshell.target.control import ControlError
from kshell.target.open import open_target
from kshell.target.target import Target
from tests.guest.build import boot
from tests.guest.fixtures import have
from tests.guest.oracle import Oracle
from tests.guest.qemu import RunningGuest
from tests.guest.spec import named_spec

pytest_plugins = ["tests.guest.fixtures"]


def place(guest: RunningGuest) -> str:
    return f"gdb:{guest.gdb_socket}"


def status(guest: RunningGuest) -> str:
    return str(guest.command("query-status")["status"])


def wait_status(guest: RunningGuest, wanted: str) -> None:
    deadline = time.monotonic() + 10
    while status(guest) != wanted:
        assert time.monotonic() < deadline, f"{status(guest)}, not {wanted}"
        time.sleep(0.05)


@pytest.fixture
def machine(live_guest: RunningGuest) -> Iterator[Target]:
    with open_target(place(live_guest), mode="r+") as target:
        yield target
    assert status(live_guest) == "running"


@pytest.fixture
def oracle(live_guest: RunningGuest) -> Oracle:
    assert live_guest.oracle_folder is not None
    return Oracle(live_guest.oracle_folder)


def kshell(guest: RunningGuest, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "kshell", "-S", *arguments, place(guest)], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_kernel_is_found_and_its_processes_are_the_guests(
    machine: Target, live_guest: RunningGuest, oracle: Oracle,
) -> None:
    assert machine.release == oracle.release
    with machine.question():
        assert status(live_guest) == "paused"
        found = {(task.pid, task.ppid, task.comm) for task in iter_processes(machine) if "kworker" not in task.comm}
        told = {(row.pid, row.ppid, row.comm[:15]) for row in oracle.processes() if "kworker" not in row.comm}
        assert found == told
        assert machine.symbol("jiffies").address == oracle.symbol("jiffies")
        victim = next(task for task in iter_processes(machine) if task.comm == "victim")
        user = machine.user_space(victim.mm)
        assert user.read(oracle.victim()["greeting"], 12) == b"kshell victi"
        pattern = user.read(oracle.victim()["pattern"], 1 << 20)
        assert pattern == bytes((7 * at + 3) & 255 for at in range(256)) * 4096
        data, fault = user.read_upto(oracle.victim()["hole"] - 4, 8)
        assert data == pattern[-4:]
        assert fault is not None
        assert fault.reason is Reason.NOT_MAPPED
    assert status(live_guest) == "running"


def test_warm_and_cold_find_the_same(
    live_guest: RunningGuest, oracle: Oracle, monkeypatch: pytest.MonkeyPatch,
) -> None:
    with open_target(place(live_guest)) as warm:
        assert "known by its build id" in warm.findings["kernel"]
        info = warm.vmcoreinfo
    monkeypatch.setenv("KSHELL_CACHE", "off")
    with open_target(place(live_guest)) as cold:
        assert "by their shape" in cold.findings["kernel"]
        assert cold.vmcoreinfo is not None
        assert info is not None
        assert cold.vmcoreinfo.raw == info.raw
        # what the kernel itself would write into a dump is in it: an ELF note at the physical address that /sys tells
        address = int(oracle.text("sys/kernel/vmcoreinfo").split()[0], 16)
        with cold.question():
            own = cold.physical.read(address, 4096)[24:].split(b"\0")[0].splitlines()
        assert len(own) > 50
        assert set(own) <= set(cold.vmcoreinfo.raw.splitlines())


def test_the_clock_of_the_guest_stands_in_a_question_and_goes_on_behind(machine: Target) -> None:
    def jiffies() -> int:
        return machine.kernel.u64(machine.symbol("jiffies").address)

    with machine.question():
        first = jiffies()
        time.sleep(0.1)
        machine.forget()
        assert jiffies() == first
    time.sleep(0.1)
    with machine.question():
        assert jiffies() > first
    again = jiffies()  # outside of questions each read is a question
    time.sleep(0.1)
    assert jiffies() > again


def test_what_is_no_ram_is_not_zeroes(machine: Target) -> None:
    with machine.question():
        with pytest.raises(Fault, match="outside RAM"):
            machine.physical.read(0xFEE0_0000, 4)  # the local APIC
        with pytest.raises(Fault, match="outside RAM"):
            machine.physical.read(0xA_0000, 4)
        with pytest.raises(Fault, match="outside RAM"):
            machine.physical.read(256 << 20, 1)
        assert len(machine.physical.read((256 << 20) - 16, 16)) == 16
        assert sum(run.end - run.start for run in machine.physical.ranges()) > 255 << 20


def test_reads_are_those_of_the_memory_file(machine: Target, live_guest: RunningGuest) -> None:
    assert live_guest.memory_file is not None
    with machine.question(), live_guest.memory_file.open("rb") as file:
        for address in (0x1000, 0x100_0000, 0x345_6789):
            file.seek(address)
            assert machine.physical.read(address, 10000) == file.read(10000)


def test_registers_of_each_cpu_are_what_qemu_says(machine: Target, live_guest: RunningGuest) -> None:
    with machine.question():
        told = live_guest.monitor("info registers -a")
        assert len(machine.cpus) == 2
        for cpu, text in zip(machine.cpus, told.split("CPU#")[1:], strict=True):
            assert f"RIP={cpu.registers['rip']:016x}" in text
            assert f"CR3={cpu.registers['cr3']:016x}" in text
            assert f"RFL={cpu.registers['rflags']:08x}" in text


def test_a_write_reaches_the_guest(machine: Target, live_guest: RunningGuest, oracle: Oracle) -> None:
    with machine.question():
        teller = next(task for task in iter_processes(machine) if task.comm == "teller")
        user = machine.user_space(teller.mm)
        address = oracle.part("teller")["text"]
        old = user.read(address, 64)
        user.write(address, b"written through the gdb stub\0")
    live_guest.wait_console((b"TELLER text written through the gdb stub",), 20)
    with machine.question():
        user.write(address, old)


HOSTNAME = b"/proc/sys/kernel/hostname\0"


@pytest.mark.parametrize("how", ["gdb", "qmp", "ram"])
def test_the_kernel_itself_sees_what_was_written_into_it(live_guest: RunningGuest, oracle: Oracle, how: str) -> None:
    """The teller is made to read its hostname from /proc, and the kernel's memory has another one."""
    path = {"gdb": place(live_guest), "qmp": f"qmp:{live_guest.qmp_socket}", "ram": f"ram:{live_guest.memory_file}"}
    with open_target(path[how], mode="r+") as target:
        with target.question():
            teller = next(task for task in iter_processes(target) if task.comm == "teller")
            user, where = target.user_space(teller.mm), oracle.part("teller")["path"]
            space = target.value("struct uts_namespace", target.symbol("init_uts_ns").address)
            old_path, name = user.read(where, 64), space["name"]["nodename"].address
            old_name = target.kernel.read(name, 65)
            user.write(where, HOSTNAME)
            target.kernel.write(name, f"renamed-by-{how}".encode() + b"\0")
        try:
            live_guest.wait_console((f"TELLER opened renamed-by-{how}".encode(),), 20)
        finally:
            with target.question():
                target.kernel.write(name, old_name)
                user = target.user_space(teller.mm)
                user.write(where, old_path)


def test_writes_need_to_be_asked_for(live_guest: RunningGuest) -> None:
    with open_target(place(live_guest)) as target, pytest.raises(Fault, match="not open for writing"):
        target.physical.write(0x1000, b"x")
    with open_target(place(live_guest), mode="c") as target, target.question():
        target.physical.write(0x100_0000, b"private")
        assert target.physical.read(0x100_0000, 7) == b"private"
    with open_target(place(live_guest)) as target, target.question():
        assert target.physical.read(0x100_0000, 7) != b"private"


def test_a_machine_that_was_stopped_is_left_stopped(live_guest: RunningGuest) -> None:
    """QEMU tells of one that was stopped by ``stop`` until 8.0; from 8.1 on it is taken to have run, which is said."""
    qemu = live_guest.command("query-version")["qemu"]
    tells = (qemu["major"], qemu["minor"]) < (8, 1)
    live_guest.command("stop")
    try:
        with open_target(place(live_guest)) as target, target.question():
            assert target.kernel.u64(target.symbol("jiffies").address)
            assert ("does not tell whether it ran" in target.findings.get("found", "")) != tells
        assert status(live_guest) == ("paused" if tells else "running")
        live_guest.command("stop")
        kshell(live_guest, *(() if tells else ("--stay-stopped",)), "-e", "::ps")
        assert status(live_guest) == "paused"
    finally:
        live_guest.command("cont")
    kshell(live_guest, "--stay-stopped", "-e", "::stop")
    try:
        assert status(live_guest) == "paused"
    finally:
        live_guest.command("cont")
    assert status(live_guest) == "running"


def test_one_that_stands_at_a_step_is_left_there(live_guest: RunningGuest) -> None:
    """Every QEMU tells that it did not run: its state is not that of one that our coming has stopped."""
    machine = GdbMachine(Connection(place(live_guest), dial(str(live_guest.gdb_socket))))
    machine.resume(0)
    assert machine.wait(10)
    machine.connection.close()
    try:
        assert status(live_guest) == "debug"
        with open_target(place(live_guest)) as target, target.question():
            assert target.kernel.u64(target.symbol("jiffies").address)
            assert "found" not in target.findings
        assert status(live_guest) == "debug"
        kshell(live_guest, "-e", "::ps")
        assert status(live_guest) == "debug"
    finally:
        live_guest.command("cont")
    assert status(live_guest) == "running"


def test_one_that_somebody_else_stops_meanwhile_is_left_stopped(live_guest: RunningGuest) -> None:
    with open_target(place(live_guest)) as target:
        with target.question():
            pass
        live_guest.command("stop")
        assert target.control is not None
        assert not target.control.is_running()
    try:
        assert status(live_guest) == "paused"
    finally:
        live_guest.command("cont")


@pytest.mark.parametrize("line", ["_stext::dump -l 400000", "::ps ! 'echo up; sleep 30'"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_killed_in_a_question_the_guest_runs_again(
    live_guest: RunningGuest, number: signal.Signals, line: str,
) -> None:
    words = [sys.executable, "-m", "kshell", "-S", "-e", line, place(live_guest)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline()  # the pipe is full now, or a command runs, and the question goes on
    assert status(live_guest) == "paused"
    process.send_signal(number)
    process.stdout.close()
    process.wait(20)
    wait_status(live_guest, "running")
    assert "init" in kshell(live_guest, "-e", "::ps")  # and the stub takes the next one


def test_two_on_one_stub(live_guest: RunningGuest) -> None:
    with open_target(place(live_guest)) as first:
        with pytest.raises(OpenError, match="another debugger is connected"):
            open_target(place(live_guest))
        with first.question():
            assert first.kernel.u64(first.symbol("jiffies").address)
    time.sleep(0.2)
    assert status(live_guest) == "running"


def test_a_connection_that_the_stub_takes_late_does_not_stop_the_guest(
    live_guest: RunningGuest, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As from another host, where nothing tells that the stub is taken."""
    monkeypatch.setattr("kshell.memory.gdbstub.is_taken", lambda _: False)
    with open_target(place(live_guest)), pytest.raises(OpenError, match="does not answer"):
        monkeypatch.setattr("kshell.target.gdb.Connection", partial(Connection, answer_seconds=1.0))
        open_target(place(live_guest))
    time.sleep(0.5)
    wait_status(live_guest, "running")
    time.sleep(0.3)
    assert status(live_guest) == "running"


def test_an_error_at_the_opening_lets_it_run(live_guest: RunningGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kshell.target.gdb.attach_machine", lambda *_: False)
    with pytest.raises(OpenError, match="no Linux kernel"):
        open_target(place(live_guest))
    assert status(live_guest) == "running"


# -- what goes wrong --------------------------------------------------------------------------------------------------


class Proxy:
    """Stands between kshell and the stub. The first connection is cut behind *cut* bytes of the stub's; 0: none is.

    What passes is torn into pieces of a few bytes, so that packets arrive in halves.
    """

    def __init__(self, path: Path, stub: Path, cut: int = 0) -> None:
        self.path, self._stub, self._cut, self.connections = path, stub, cut, 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(4)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(str(self._stub))
                self.connections += 1
                with near, far:
                    self._pass(near, far, self._cut if self.connections == 1 else 0)

    def _pass(self, near: socket.socket, far: socket.socket, cut: int) -> None:
        passed = 0
        while True:
            for end in select.select([near, far], [], [])[0]:
                data = end.recv(4096)
                if not data:
                    return
                if end is near:
                    far.sendall(data)
                    continue
                for at in range(0, len(data), 701):
                    near.sendall(data[at : at + 701])
                passed += len(data)
                if cut and passed > cut:
                    return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def test_packets_in_pieces(live_guest: RunningGuest, tmp_path: Path) -> None:
    with (closing(Proxy(tmp_path / "gdb", live_guest.gdb_socket)) as proxy,
          open_target(f"gdb:{proxy.path}") as target, target.question()):
        assert "victim" in {task.comm for task in iter_processes(target)}
    wait_status(live_guest, "running")


@pytest.mark.parametrize("cut", [10, 1000, 9000, 40_000, 150_000])
def test_a_connection_that_is_cut(live_guest: RunningGuest, tmp_path: Path, cut: int) -> None:
    """QEMU leaves a machine stopped whose debugger is lost: it is let go by another connection."""
    with closing(Proxy(tmp_path / "gdb", live_guest.gdb_socket, cut)) as proxy:
        done = subprocess.run([sys.executable, "-m", "kshell", "-S", "-e", "::ps", f"gdb:{proxy.path}"],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode != 0
        assert re.search("closed the connection|is gone: ", done.stderr)
        assert "Traceback" not in done.stderr
        wait_status(live_guest, "running")


def test_a_machine_that_quits(tmp_path: Path) -> None:
    """At the prompt, and while it runs for ::cont."""
    have(named_spec("6.1"))
    with boot(named_spec("live")) as guest, open_target(place(guest)) as target:
        with target.question():
            assert target.kernel.u64(target.symbol("jiffies").address)
        assert target.control is not None
        target.control.resume()
        threading.Timer(0.5, guest.process.kill).start()
        with pytest.raises(ControlError, match="closed the connection"):
            target.control.wait(20)
        with pytest.raises(ControlError, match="closed the connection"), target.question():
            pass


def test_the_symbols_of_another_kernel(live_guest: RunningGuest, tmp_path: Path) -> None:
    path = tmp_path / "System.map"
    path.write_text("ffffffff81000000 T _stext\nffffffff82000000 D swapper_pg_dir\n")
    with pytest.raises(OpenError, match=r"not the System\.map of this kernel: swapper_pg_dir at"):
        open_target(place(live_guest), str(path))
    assert status(live_guest) == "running"


def test_no_descriptor_and_no_process_is_left(live_guest: RunningGuest) -> None:
    with open_target(place(live_guest)):
        pass
    before, children = sorted(os.listdir("/proc/self/fd")), _children()
    for _ in range(3):
        with open_target(place(live_guest)) as target:
            target.symbol("jiffies")
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert _children() == children


def _children() -> list[str]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return file.read().split()
