"""A process held still by ptrace(2), for questions (``--pause``), for ::stop, for registers: it is never harmed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from kshell.errors import KshellError, OpenError
from kshell.memory.procmem import rights
from kshell.memory.ptrace import Hold, TraceError
from kshell.target.formats import Options
from kshell.target.open import open_target
from kshell.target.process import ProcessFacts, ProcessTarget
from tests.conformance.run import Machine, Said
from tests.programs import compiled

Child = subprocess.Popen[bytes]
PAUSE = Options(pause=True)


@contextmanager
def running(*words: str) -> Iterator[Child]:
    """Run still.c, which does what the first word says; it has said "ready"."""
    program = compiled("-O1", "-g", "-pthread", name="still", sources=("still.c",))
    with subprocess.Popen([str(program), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        try:
            yield child
        finally:
            child.kill()


def obey(child: Child, text: str, mode: str = "r", *, pause: bool = False) -> Said:
    machine = Machine(target=False)
    with open_target(f"pid:{child.pid}", mode=mode, options=Options(pause=pause)) as target:
        machine.session.attach(target)
        return machine.run(text)


def opened(child: Child, mode: str = "r") -> ProcessTarget:
    target = open_target(f"pid:{child.pid}", mode=mode, options=PAUSE)
    assert isinstance(target, ProcessTarget)
    return target


def states(pid: int) -> str:
    return "".join(sorted(one.read_text().rpartition(") ")[2][0] for one in Path(f"/proc/{pid}/task").glob("*/stat")))


def becomes(pid: int, wanted: str) -> None:
    until = time.monotonic() + 5
    while states(pid) != wanted and time.monotonic() < until:
        time.sleep(0.005)
    assert states(pid) == wanted


def test_a_question_sees_one_instant() -> None:
    """Four threads count as fast as they can, in two places each that differ by one at most."""
    with running("count") as child, opened(child) as target:
        address = target.symbol("counters").address
        with target.question():
            assert states(child.pid) == "ttttt"
            before = target.kernel.read(address, 64)
            time.sleep(0.05)
            assert target.kernel.read(address, 64) == before
            assert {one.state for one in target.facts.threads()} <= {"R", "S"}, "as they were before"
            assert all(isinstance(one.pc, int) for one in target.facts.threads())
        time.sleep(0.05)
        assert target.kernel.read(address, 64) != before and "t" not in states(child.pid)


def test_stop_and_cont() -> None:
    with running("count") as child:
        said = obey(child, "::stop; counters/J; counters/J; <rip=p; ::cont\n! sleep 1\ncounters/J; ::status")
        values = re.findall(r"^counters: +(\w+)", said.out, re.M)
        assert values[0] == values[1] != values[2] and "control: running" in said.out
        assert "t" not in states(child.pid)
        obey(child, "::stop")  # and is left
        assert "t" not in states(child.pid)


@pytest.mark.parametrize("how", ["nanosleep", "poll", "select", "read", "futex", "pause", "wait", "sigwait"])
def test_system_calls_go_on(how: str) -> None:
    """A thread that waits in the kernel is there again afterwards, and its program has seen nothing."""
    with running("call", how) as child:
        becomes(child.pid, "S")
        with opened(child) as target:
            for _ in range(20):
                with target.question():
                    assert states(child.pid) == "t"
        becomes(child.pid, "S")
        assert child.stdout is not None and child.stdin is not None
        child.send_signal(signal.SIGUSR1)
        assert child.stdout.readline() == f"{how}: waits still\n".encode()


def test_no_signal_is_lost() -> None:
    """Signals that arrive in the very moment in which a thread is stopped."""
    with running("signals") as child, opened(child) as target:
        count, address = 0, target.symbol("signals").address
        until = time.monotonic() + 3
        while time.monotonic() < until:
            for _ in range(5):
                try:
                    os.kill(child.pid, signal.SIGRTMIN)
                    count += 1
                except BlockingIOError:  # the queue of the user is full
                    break
            with target.question():
                pass
        until = time.monotonic() + 5
        while target.kernel.u64(address) < count and time.monotonic() < until:
            time.sleep(0.01)
        assert target.kernel.u64(address) == count > 100


def test_threads_that_come_and_go() -> None:
    with running("short") as child, opened(child) as target:
        for _ in range(50):
            with target.question():
                assert set(states(child.pid)) <= {"t", "X", "Z"}
                facts = target.facts
                assert isinstance(facts, ProcessFacts) and facts.hold is not None
                for tid in facts.hold.threads:
                    assert facts.registers(tid)[1]["rip"]
        assert child.poll() is None


def test_many_threads() -> None:
    """Each is asked for once: with 2,000 threads a process stood still for 40 s while each of them was looked up."""
    with running("many") as child, open_target(f"pid:{child.pid}") as target:
        assert isinstance(target, ProcessTarget)
        machine = Machine(target=False)
        machine.session.attach(target)
        facts, count = target.facts, 0
        assert isinstance(facts, ProcessFacts)
        plain = facts._tids

        def counted() -> list[str]:
            nonlocal count
            count += 1
            return plain()

        facts._tids = counted  # type: ignore[method-assign]
        said = machine.run("::stack -a; ::stop; ::threads; ::cont")
        assert not said.errors and said.out.count("stack of thread ") == 301 and said.out.count("waiting+") >= 300
        assert count < 30 and "t" not in states(child.pid)


def test_one_that_sleeps_in_the_kernel() -> None:
    """The parent of a vfork(2) cannot be stopped; it is no obstacle, and not stopped when it wakes."""
    with running("vfork") as child:
        becomes(child.pid, "D")
        with opened(child) as target:
            begun = time.monotonic()
            with target.question():
                assert target.kernel.read(target.symbol("counters").address, 8)
                with pytest.raises(TraceError, match="sleeps in the kernel"):
                    target.facts.registers(None)
            assert time.monotonic() - begun < 2
            assert child.stdin is not None and child.stdout is not None
            child.stdin.write(b"\n")
            child.stdin.flush()
            assert child.stdout.readline() == b"both\n", "it goes on while kshell is still there"


def test_a_stopped_process_stays_stopped() -> None:
    with running("count") as child:
        child.send_signal(signal.SIGSTOP)
        becomes(child.pid, "TTTTT")
        with opened(child) as target, target.question():
            assert target.facts.registers(None)[1]["rip"]
        becomes(child.pid, "TTTTT")
        with opened(child) as target, target.question():
            os.kill(child.pid, signal.SIGCONT)  # while it is held
        until = time.monotonic() + 5
        while "T" in states(child.pid) and time.monotonic() < until:
            time.sleep(0.01)
        assert "T" not in states(child.pid)


def test_stopped_while_it_is_held() -> None:
    with running("count") as child:
        with opened(child) as target, target.question():
            os.kill(child.pid, signal.SIGSTOP)
        becomes(child.pid, "TTTTT")


HOLD = """
import sys, time
from kshell.target.formats import Options
from kshell.target.open import open_target
target = open_target(f"pid:{sys.argv[1]}", options=Options(pause=True))
with target.question():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_kshell_leaves_it_running(number: signal.Signals) -> None:
    with running("count") as child:
        with subprocess.Popen([sys.executable, "-c", HOLD, str(child.pid)], stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
            assert states(child.pid) == "ttttt"
            for text in ("::regs", "$c", "<rip=p", "::stop"):
                said = obey(child, text)
                assert f"is traced by process {holder.pid} (" in said.err and "only one debugger" in said.err
            with pytest.raises(OpenError, match=f"traced by process {holder.pid}"):
                opened(child)
            assert obey(child, "counters/J").out, "memory is there all the same"
            holder.send_signal(number)
            holder.wait()
        until = time.monotonic() + 5
        while "t" in states(child.pid) and time.monotonic() < until:
            time.sleep(0.01)
        assert "t" not in states(child.pid)
        with open_target(f"pid:{child.pid}") as target:
            before = target.kernel.read(target.symbol("counters").address, 64)
            time.sleep(0.05)
            assert target.kernel.read(target.symbol("counters").address, 64) != before


def test_one_that_ends_while_it_is_held() -> None:
    with running("count") as child, opened(child) as target:
        with target.question():
            os.kill(child.pid, signal.SIGKILL)
            until = time.monotonic() + 5
            while "t" in states(child.pid) and time.monotonic() < until:
                time.sleep(0.01)
            with pytest.raises(KshellError):
                target.facts.registers(None)
        with target.question(), pytest.raises(KshellError):
            target.facts.registers(None)
        assert child.wait(5) == -signal.SIGKILL, "and its parent hears of it"


def test_its_parent_hears_of_its_end() -> None:
    """Also where that is who looks at it: kshell as a library, at a child of its own."""
    for _ in range(20):
        with running("count") as child, opened(child) as target:
            child.kill()
            with suppress(KshellError), target.question():
                target.facts.registers(None)
            assert child.wait(10) == -signal.SIGKILL


def test_registers_are_changed() -> None:
    """A thread that spins as long as a register holds nothing."""
    with running("spin") as child:
        said = obey(child, "<rip=p; <rbx=J; 5>cs", "r+", pause=True)
        assert "main+" in said.out and said.out.split()[-1] == "0"
        assert len(said.errors) == 1 and "cs" in said.err
        said = obey(child, "::stop; 0t43>rbx; 0t44>rbx; <rbx=D; ::writes; ::undo; ::undo; <rbx=J; 0t42>rbx; ::cont",
                    "r+")
        assert not said.errors and "rbx" in said.out and said.out.split()[0] == "44" and said.out.split()[-1] == "0"
        assert child.stdout is not None and child.stdout.readline() == b"rbx 42\n"


def test_the_program_counter_is_changed_in_a_system_call() -> None:
    """The kernel would start the call again, two bytes before the new place: orig_rax tells it not to."""
    with running("call", "pause") as child:
        becomes(child.pid, "S")
        said = obey(child, "arrived>rip", "r+", pause=True)
        assert not said.errors and child.stdout is not None
        assert child.stdout.readline() == b"arrived\n"


def test_registers_are_not_changed() -> None:
    with running("spin") as child:
        for text, mode, pause, why in (
                ("1>rbx", "r", True, "not open for writing"), ("1>rbx", "r+", False, "::stop"),
                ("1>rbx", "c", True, "not open for writing"), ("<nothing=J", "r", False, "nothing")):
            said = obey(child, text, mode, pause=pause)
            assert said.errors and why in said.err, text
        assert "t" not in states(child.pid)


def test_nothing_is_stopped_unasked() -> None:
    """Lists of variables and ordinary questions leave a running process alone."""
    with running("count") as child, open_target(f"pid:{child.pid}") as target:
        machine = Machine(target=False)
        machine.session.attach(target)
        assert isinstance(target, ProcessTarget)
        facts = target.facts
        facts._held = None  # type: ignore[attr-defined]  # to be called would fail
        said = machine.run("$v; ::threads; ::status; counters/J; ::mappings ! head -1; <thread=D; <undefined=D")
        assert len(said.errors) == 1 and f"{child.pid}" in said.out


def test_holds_are_let_go() -> None:
    with running("count") as child:
        with Hold(lambda: [child.pid]) as hold:
            assert hold.threads == [child.pid] and len(hold.registers(child.pid)) == 27 * 8
            with pytest.raises(TraceError, match="is gone"):
                hold.registers(1)
        with pytest.raises(TraceError, match="let go"):
            hold._do(lambda: None)
        with pytest.raises(TraceError, match="is gone"):
            Hold(lambda: [4194304])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_another_user() -> None:
    with running("count") as child:
        code = ("import os\nfrom kshell.memory.ptrace import Hold\nos.setuid(65534)\n"
                f"try:\n    Hold(lambda: [{child.pid}])\nexcept Exception as error:\n    print(error, error.hint)")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "may not be traced by this user" in done.stdout and "be root" in done.stdout, done.stderr


def test_kshell_itself() -> None:
    """Its memory is there; to stop itself is what no process can."""
    code = ("import os, sys; from kshell.__main__ import main; "
            "sys.argv = ['kshell', '-q', '-p', str(os.getpid()), '-e', '::threads; $c; ::stop; ::stacks; ::status'];"
            " main()")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.count("is kshell's own, which cannot stop itself") == 3 and "Traceback" not in done.stderr
    assert "control: running" in done.stdout


def test_what_root_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert "CAP_SYS_PTRACE" in rights()
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "be root" in rights()
