"""A running guest through QMP and through its memory file: the answers, the writes, and the guest left as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kshell.errors import Fault, Reason
from kshell.linux import tasks
from kshell.linux.processes import cmdline, user_memory
from kshell.memory.guestram import parse_mtree
from kshell.memory.qmp import Qmp
from kshell.memory.qmpmem import QmpMemory
from kshell.target import kernels, qemu
from kshell.target.formats import Options
from kshell.target.open import open_target
from kshell.target.qemu import QmpControl, parse_registers
from kshell.target.scan import find_vmcoreinfo
from kshell.target.target import Target
from tests.guest.oracle import Oracle
from tests.guest.qemu import RunningGuest

pytest_plugins = ["tests.guest.fixtures"]


def opened(guest: RunningGuest, how: str, mode: str = "r", pause: bool = False) -> Target:
    return open_target(place(guest, how), mode=mode, options=Options(pause=pause))


def place(guest: RunningGuest, how: str) -> str:
    return f"qmp:{guest.qmp_socket}" if how == "qmp" else f"ram:{guest.memory_file}"


@pytest.fixture(params=["qmp", "ram"])
def target(request: pytest.FixtureRequest, live_guest: RunningGuest) -> Iterator[Target]:
    with opened(live_guest, request.param, "r+") as found:
        yield found


@contextmanager
def slow_road(patch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(pid: int, writable: bool) -> int:
        raise PermissionError(1, "Operation not permitted")

    with patch.context() as context:
        context.setattr(qemu, "open_process_memory", refuse)
        yield


# -- answers ----------------------------------------------------------------------------------------------------------


def test_the_processes_are_those_of_the_guest(target: Target, live_guest: RunningGuest) -> None:
    oracle = Oracle(live_guest.oracle_folder)  # type: ignore[arg-type]
    ours = {task.pid: task.comm for task in tasks.iter_processes(target)}
    for line in oracle.processes():
        if not line.comm.startswith("kworker"):
            assert ours[line.pid] == line.comm[:15]  # /proc has long names of kernel threads
    victim = oracle.process("victim")
    task = tasks.task_by_pid(target, victim.pid)
    assert cmdline(target, task).split(b"\0")[:-1] == oracle.cmdline(victim.pid)
    told = oracle.victim()
    memory = user_memory(target, task)
    assert memory.read(told["greeting"], 34) == b"kshell victim: the quick brown fox"
    data, fault = memory.read_upto(told["hole"] - 4, 8)
    assert data == bytes((7 * i + 3) & 255 for i in range(told["pattern_size"] - 4, told["pattern_size"]))
    assert fault is not None
    assert fault.reason is Reason.NOT_MAPPED


def test_a_kernel_that_was_here_before_is_not_looked_for(
    live_guest: RunningGuest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("KSHELL_CACHE", "")
    with opened(live_guest, "qmp") as target:
        assert "VMCOREINFO" in target.findings
        first = {task.comm for task in tasks.iter_processes(target)}
    searched = []
    plain = find_vmcoreinfo

    def watched(*arguments: Any) -> Any:
        searched.append(arguments)
        return plain(*arguments)

    monkeypatch.setattr(kernels, "find_vmcoreinfo", watched)
    with opened(live_guest, "qmp") as target:
        assert "known by its build id" in target.findings["kernel"]
        assert first == {task.comm for task in tasks.iter_processes(target)}
        assert target.symbol("init_task").address and target.type("struct task_struct").size
    assert not searched
    monkeypatch.setattr(qemu, "is_crash_kernel", lambda target: True)  # the one that died is meant
    with opened(live_guest, "qmp") as target:
        assert "VMCOREINFO" in target.findings and "known" not in target.findings["kernel"]
    assert searched


def test_symbols_are_those_of_kallsyms(target: Target, live_guest: RunningGuest) -> None:
    oracle = Oracle(live_guest.oracle_folder)  # type: ignore[arg-type]
    own = [line for line in oracle.kallsyms() if line.module is None]
    for line in own[:: len(own) // 500]:
        assert line.address in [symbol.address for symbol in target.symbols.find_all(line.name)], line.name


def test_the_slow_road_answers_the_same(live_guest: RunningGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(live_guest, "ram") as quick:
        expected = [(task.pid, task.comm) for task in tasks.iter_processes(quick) if task.pid < 20]
        text = quick.kernel.read(quick.symbol("_stext").address, 200_000)
    with slow_road(monkeypatch), opened(live_guest, "qmp", "r+", pause=True) as slow:
        assert isinstance(slow.physical, QmpMemory)
        assert "slow" in slow.findings["memory"]
        assert "Operation not permitted" in slow.findings["memory"]
        with slow.question():
            assert [(task.pid, task.comm) for task in tasks.iter_processes(slow) if task.pid < 20] == expected
            assert slow.kernel.read(slow.symbol("_stext").address, 200_000) == text
            assert slow.physical.read(0x100000 + 5, 70_000) == b"".join(
                slow.physical.read(0x100000 + 5 + at, 1000) for at in range(0, 70_000, 1000))
            with pytest.raises(Fault, match="QMP cannot write memory"):
                slow.physical.write(0x100000, b"x")
            _, fault = slow.physical.read_upto((256 << 20) - 4, 8)
            assert fault is not None
            assert (fault.reason, fault.done) == (Reason.OUTSIDE, 4)
    assert live_guest.command("query-status")["running"]


def test_without_files_words_are_enough(live_guest: RunningGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Qmp(str(live_guest.qmp_socket))) as qmp:
        pieces = parse_mtree(qmp.monitor("info mtree -f"))
        slow = QmpMemory(qmp, pieces, "", lambda: False)
        monkeypatch.setattr("tempfile.mkdtemp", lambda prefix: "/nonexistent/kshell")
        with pytest.raises(OSError, match="nonexistent"):
            slow.read(0x100000, 100_000)
        slow._folder = Path("/nonexistent")
        live_guest.command("stop")
        try:
            with opened(live_guest, "ram") as quick:
                assert slow.read(0x101003, 100_000) == quick.physical.read(0x101003, 100_000)
        finally:
            live_guest.command("cont")


def test_registers_of_every_cpu(live_guest: RunningGuest) -> None:
    with opened(live_guest, "qmp", pause=True) as target, target.question():
        cpus = target.cpus
        assert [cpu.number for cpu in cpus] == [0, 1]
        for cpu in cpus:
            assert {"rax", "r15", "rip", "rsp", "rflags", "cs", "gs_base", "cr3", "cr4"} <= set(cpu.registers)
            assert cpu.registers["cr4"] & 1 << 5  # PAE
        text = live_guest.monitor("info registers -a")
        assert f"CR3={cpus[0].registers['cr3']:016x}" in text
        assert f"RIP={cpus[1].registers['rip']:016x}" in text
    assert parse_registers("nothing") == []


# -- writes -----------------------------------------------------------------------------------------------------------


def console(guest: RunningGuest, mark: str) -> None:
    """Wait until the guest has said *mark*."""
    guest.wait_console((mark.encode(),), 20)


@pytest.mark.parametrize("how", ["qmp", "ram", "qmp-pause"])
def test_the_guest_sees_what_was_written(live_guest: RunningGuest, how: str) -> None:
    teller = Oracle(live_guest.oracle_folder).part("teller")  # type: ignore[arg-type]
    with opened(live_guest, how.removesuffix("-pause"), "r+", "pause" in how) as target:
        with target.question():
            memory = user_memory(target, tasks.task_by_pid(target, teller["pid"]))
            before = memory.read(teller["text"], 40)
            memory.write(teller["text"], f"written by {how}".encode() + b"\0")
        console(live_guest, f"TELLER text written by {how}")
        with target.question():
            memory.write(teller["text"], before)


def test_a_private_copy_is_not_seen(live_guest: RunningGuest) -> None:
    teller = Oracle(live_guest.oracle_folder).part("teller")  # type: ignore[arg-type]
    with opened(live_guest, "qmp", "c") as target, opened(live_guest, "ram") as other:
        memory = user_memory(target, tasks.task_by_pid(target, teller["pid"]))
        memory.write(teller["number"], (77).to_bytes(8, "little"))
        assert memory.u64(teller["number"]) == 77
        same = user_memory(other, tasks.task_by_pid(other, teller["pid"]))
        assert same.u64(teller["number"]) != 77
    with opened(live_guest, "qmp") as target, pytest.raises(Fault) as caught:
        target.physical.write(0x100000, b"x")
    assert caught.value.reason is Reason.READ_ONLY


# -- running stays running --------------------------------------------------------------------------------------------


def test_paused_for_a_question_only(live_guest: RunningGuest) -> None:
    with opened(live_guest, "qmp", pause=True) as target:
        jiffies = target.symbol("jiffies").address
        assert live_guest.command("query-status")["running"]
        with target.question():
            assert not live_guest.command("query-status")["running"]
            first = target.kernel.u64(jiffies)
            time.sleep(0.1)
            assert target.kernel.u64(jiffies) == first
            assert target.physical.window(0x100000) is not None
            with target.question():  # a statement in a statement
                pass
            assert not live_guest.command("query-status")["running"]
        assert live_guest.command("query-status")["running"]
        deadline = time.monotonic() + 20
        while True:
            time.sleep(0.05)
            with target.question():
                if target.kernel.u64(jiffies) != first:
                    break
            assert time.monotonic() < deadline, "what is read does not move"
        with pytest.raises(ZeroDivisionError), target.question():
            raise ZeroDivisionError
        assert live_guest.command("query-status")["running"]


def test_what_stood_still_stays_so(live_guest: RunningGuest) -> None:
    live_guest.command("stop")
    try:
        with opened(live_guest, "qmp", pause=True) as target:
            with target.question():
                pass
            assert not live_guest.command("query-status")["running"]
        assert not live_guest.command("query-status")["running"]
    finally:
        live_guest.command("cont")


def test_stopped_and_left(live_guest: RunningGuest) -> None:
    target = opened(live_guest, "qmp")
    assert target.control is not None
    target.control.stop()
    target.control.stop()
    assert not live_guest.command("query-status")["running"]
    target.close()
    assert live_guest.command("query-status")["running"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_killed_in_a_question(live_guest: RunningGuest, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "kshell", "-q", "--pause", "-e", "::status ! 'echo up; sleep 30'"]
    child = subprocess.Popen([*command, place(live_guest, "qmp")], stdout=subprocess.PIPE, start_new_session=True,
                             preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))  # nohup ignores it
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        assert not live_guest.command("query-status")["running"]
        child.send_signal(number)
        assert child.wait(10) == (-9 if number == signal.SIGKILL else 128 + number)
        deadline = time.monotonic() + 10
        while not live_guest.command("query-status")["running"]:
            assert time.monotonic() < deadline, "the guest was left stopped"
            time.sleep(0.05)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()  # type: ignore[union-attr]
        os.killpg(child.pid, signal.SIGKILL) if _group(child.pid) else None


def _group(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except OSError:
        return False
    return True


def test_many_stops_leak_nothing(live_guest: RunningGuest) -> None:
    with opened(live_guest, "qmp", pause=True) as target:
        address = target.symbol("jiffies").address
        for _ in range(20):
            with target.question():
                target.kernel.u64(address)
        files = len(os.listdir("/proc/self/fd"))
        for _ in range(300):
            with target.question():
                target.kernel.u64(address)
        assert len(os.listdir("/proc/self/fd")) <= files
        assert isinstance(target.control, QmpControl)
        events = target.control.qmp._client.events
        assert events.empty()
        assert not events.history
    assert live_guest.command("query-status")["running"]


# -- the shell --------------------------------------------------------------------------------------------------------


def shell(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "kshell", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("how", ["qmp", "ram"])
def test_status(live_guest: RunningGuest, how: str) -> None:
    facts = json.loads(shell("--json", "-e", "::status", place(live_guest, how)).stdout)
    assert facts["kind"] == "virtual machine"
    assert facts["host"] == "kshell-guest"
    assert "RAM at 0-10000000" in facts["memory"]
    assert facts.get("control") == ("running" if how == "qmp" else None)
    assert facts["cpus"] == ("2" if how == "qmp" else "no registers of CPUs")


def test_write_show_undo(live_guest: RunningGuest) -> None:
    teller = Oracle(live_guest.oracle_folder).part("teller")  # type: ignore[arg-type]
    at = f"{teller['number']:x}"
    lines = ("-e", "::getu teller", "-e", f"{at}::uwrite -l 8 0t4242", "-e", "::undo", "-e", f"{at}/E")
    done = shell("-q", "-w", "--pause", *lines, place(live_guest, "qmp"))
    assert done.stdout.splitlines()[0].endswith(": 1 -> 0x1092")
    assert done.stdout.splitlines()[-1].split()[-1] == "1"
    refused = shell("-q", *lines[:4], place(live_guest, "qmp"), status=1)
    assert "not open for writing" in refused.stderr
