"""Breakpoints, watchpoints and steps on a running guest, whose teller opens a file again and again (live.c)."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kshell.builtin import make_registry
from kshell.console import Console
from kshell.errors import KshellError
from kshell.linux.current import current_address
from kshell.linux.stack import task_stack
from kshell.linux.user_stack import with_user_frames
from kshell.session import Session
from kshell.shell.scripted import run_text
from kshell.target.gdb import KINDS, GdbControl
from kshell.target.open import open_target
from tests.commands.test_examples import MACHINE, examples
from tests.guest.build import ORACLE_DRIVE, _empty, _powered
from tests.guest.fixtures import have
from tests.guest.oracle import Oracle
from tests.guest.qemu import READY, RunningGuest
from tests.guest.spec import named_spec

pytest_plugins = ["tests.guest.fixtures"]
FIRST = int.from_bytes(b"/run/fir", "little")


class Prompt:
    """A session on the guest: ``ask`` obeys a line and returns what it printed; ``err`` is what went to stderr."""

    def __init__(self, guest: RunningGuest, mode: str = "r+") -> None:
        self.guest, self.err = guest, ""
        self.target = open_target(f"gdb:{guest.gdb_socket}", mode=mode)
        self.session = Session(self.target, make_registry(print, plugins=False))
        self.session.interactive = True
        self._out, self._err = io.StringIO(), io.StringIO()
        self._console = Console(self.session, self._out, self._err)

    def ask(self, line: str) -> str:
        run_text(self.session, self._console, line, string=False, recover=False)
        out, self.err = self._out.getvalue(), self._err.getvalue()
        for stream in (self._out, self._err):
            stream.seek(0)
            stream.truncate()
        return out

    @property
    def status(self) -> str:
        return str(self.guest.command("query-status")["status"])


@pytest.fixture
def prompt(live_guest: RunningGuest) -> Iterator[Prompt]:
    found = Prompt(live_guest)
    try:
        yield found
    finally:
        found.session.close()
    assert found.status == "running"


@pytest.fixture
def teller(live_guest: RunningGuest) -> dict[str, int]:
    assert live_guest.oracle_folder is not None
    return Oracle(live_guest.oracle_folder).part("teller")


def test_a_breakpoint_stops_at_its_function_in_the_right_process(prompt: Prompt, teller: dict[str, int]) -> None:
    prompt.ask("::bp -p teller do_sys_openat2")
    said = prompt.ask("::cont")
    where = rf"breakpoint 1 at do_sys_openat2: CPU [01], pid {teller['pid']} \(teller\)\ndo_sys_openat2: "
    assert re.match(where, said)
    assert prompt.status == "debug"
    assert prompt.ask("<rip=J").split() == [f"{prompt.target.symbol('do_sys_openat2').address:x}"]
    assert "/run/first" in prompt.ask("<rsi/s")
    told = prompt.guest.monitor("info registers -a")
    assert f"RIP={prompt.target.symbol('do_sys_openat2').address:016x}" in told
    stack = prompt.ask("$c").splitlines()
    assert stack[0].startswith("do_sys_openat2")
    assert any(line.startswith("do_syscall_64+") for line in stack)
    assert prompt.ask("::events").splitlines()[1].split()[:5] == ["1", "on", "execute", "1", "1"]
    assert prompt.ask("::cont") == said or "breakpoint 1" in said  # and again
    prompt.ask("::delete all")
    prompt.ask("::cont")
    assert prompt.status == "running"


def test_steps(prompt: Prompt) -> None:
    prompt.ask("::bp -p teller __x64_sys_open; ::cont; ::delete all")
    start = prompt.target.symbol("__x64_sys_open").address
    said = prompt.ask("::step")
    assert said.startswith("step at __x64_sys_open+")
    for _ in range(40):  # to the call of do_sys_openat2
        if re.search(r":\s+call\b.*do_sys_openat2", said):
            break
        said = prompt.ask("::step")
    call = prompt.session.cpu.registers()["rip"]
    over = prompt.ask("::step over")
    assert over.startswith("step at __x64_sys_open+")
    assert prompt.session.cpu.registers()["rip"] == call + 5
    assert start < call
    out = prompt.ask("::step out")
    assert out.startswith("step at do_syscall_64+")
    assert prompt.ask(",3::step").count("step at") == 1


def test_steps_in_user_code(prompt: Prompt) -> None:
    """Out of the kernel, then out of functions of a program without unwind tables, to where its stack says."""
    prompt.ask("::bp -p teller __x64_sys_open; ::cont; ::delete all")
    task = current_address(prompt.target, next(
        one for one in prompt.target.cpus if one.number == prompt.session.cpu.number))
    stack = with_user_frames(prompt.target, task_stack(prompt.target, task))
    places = [(frame.pc, frame.sp) for frame in stack.frames if frame.stack == "user"]
    assert len(places) >= 4 and not stack.end and stack.complete
    for _ in range(6):
        assert prompt.ask("::step out").startswith("step at ")
        if prompt.session.cpu.registers()["rip"] < 1 << 63:
            break
    for number, (pc, sp) in enumerate(places[:3]):
        registers = prompt.session.cpu.registers()
        assert (registers["rip"], registers["rsp"]) == (pc, sp)
        shown = prompt.ask("::stack -u")
        assert "<user>" not in shown and "[" not in shown and len(shown.splitlines()) >= 3
        if number < 2:  # the third one never returns
            prompt.ask("::step out")
    for _ in range(60):  # to the next call, and over it
        if re.search(r":\s+call", said := prompt.ask("::step")):
            break
    before = prompt.session.cpu.registers()
    assert re.search(r":\s+call", said) and prompt.ask("::step over").startswith("step at ")
    after = prompt.session.cpu.registers()
    assert after["rip"] == before["rip"] + 5 and after["rsp"] == before["rsp"]


def test_a_condition_in_the_language(prompt: Prompt) -> None:
    prompt.ask(f"::bp -p teller -c '*<rsi==0x{FIRST:x}' do_sys_openat2")
    assert prompt.ask("::cont -t 20").startswith("breakpoint 1")
    prompt.ask("::delete 1; ::bp -p teller -c '*<rsi==1234' do_sys_openat2")
    assert prompt.ask("::cont -t 1") == ""
    assert "no event within 1 s" in prompt.err
    assert prompt.status == "running"
    prompt.ask("::delete all; ::bp -p teller -c '<thread::print struct task_struct comm' do_sys_openat2")
    assert prompt.ask("::cont -t 20").startswith("breakpoint 3")
    prompt.ask("::delete all; ::bp -p teller -c '*0==1' do_sys_openat2")
    assert prompt.ask("::cont -t 20").startswith("breakpoint 4")
    assert "condition of breakpoint 4 cannot be evaluated" in prompt.err


def test_commands_at_each_hit_and_a_stop_at_the_last(prompt: Prompt, teller: dict[str, int]) -> None:
    prompt.ask("::bp -p teller -n 0t20 -e '<rsi/s; <hits=D' do_sys_openat2")
    said = prompt.ask("::cont -t 60")
    assert said.count("/run/first") == 20
    assert re.findall(r"^\s+(\d+)\s*$", said, re.M) == [str(number) for number in range(1, 21)]
    assert f"pid {teller['pid']} (teller)" in said.splitlines()[-2]
    prompt.ask("::delete all; ::bp -p teller -e '::stop' do_sys_openat2")
    assert prompt.ask("::cont -t 20").startswith("breakpoint 2")
    prompt.ask("::delete all; ::bp -p teller -e '::cont' do_sys_openat2")
    assert prompt.ask("::cont -t 1") == ""
    prompt.ask("::delete all; ::bp -p teller -e '::step' do_sys_openat2")
    prompt.ask("::cont -t 20")
    assert "commands of a breakpoint cannot step" in prompt.err


def test_user_code_of_one_process(prompt: Prompt, teller: dict[str, int]) -> None:
    prompt.ask("::bp -p teller do_sys_openat2; ::cont; ::delete all")
    address = prompt.ask("$c").splitlines()[-1].split()[0]  # where the system call returns to
    prompt.ask("::cont; 0::context")
    prompt.ask(f"{address}::bp")
    assert "user address and there is no process context" in prompt.err
    prompt.ask(f"::getu victim; {address}::bp; ::cont -t 1")
    assert "no event within 1 s" in prompt.err  # the victim has the same address and sleeps; the teller is there often
    prompt.ask(f"::delete all; ::getu teller; {address}::bp")
    assert f"pid {teller['pid']} (teller)" in prompt.ask("::cont -t 20")
    assert prompt.session.cpu.registers()["rip"] == int(address, 16)
    assert prompt.ask("::next").startswith("step at")


def test_watchpoints_show_what_was_written(prompt: Prompt, teller: dict[str, int]) -> None:
    prompt.ask("jiffies::wp")
    said = prompt.ask("::cont -t 20")
    found = re.search(r"jiffies: (0x[0-9a-f]+) -> (0x[0-9a-f]+)", said)
    assert found is not None
    assert 0 < int(found[2], 16) - int(found[1], 16) < 1000
    prompt.ask(f"::delete all; ::getu teller; {teller['path']:x}::wp -r -l 8")
    said = prompt.ask("::cont -t 20")
    assert said.startswith("watchpoint 2")
    assert f"pid {teller['pid']} (teller)" in said


def test_text_is_read_as_it_is_while_breakpoints_are_in(prompt: Prompt) -> None:
    plain = prompt.ask("do_sys_openat2/8B")
    prompt.ask("::bp -p teller -n 2 -e 'do_sys_openat2/8B' do_sys_openat2")
    assert prompt.ask("::cont -t 20").count(plain.strip()) == 2


NOPS = "66 90 0f 1f 00"  # two that are together as long as the one that functions begin with, 0f 1f 44 00 00


@pytest.mark.parametrize("software", [False, True])
def test_text_that_is_written_at_a_breakpoint(
    prompt: Prompt, monkeypatch: pytest.MonkeyPatch, software: bool,
) -> None:
    """The breakpoint goes on to work, what was written stays when it goes, and the guest executes it."""
    if software:
        monkeypatch.setitem(KINDS, "execute", (0,))
    sent = watch_packets(monkeypatch, prompt)
    address = prompt.target.symbol("do_sys_openat2").address
    before = prompt.target.kernel.read(address, 5)
    assert before == bytes.fromhex("0f 1f 44 00 00")
    prompt.ask(f"::bp -p teller -n 3 -e 'do_sys_openat2::kwrite {NOPS}' do_sys_openat2")
    said = prompt.ask("::cont -t 60")
    assert said.count("-> " + NOPS) == 3
    assert "breakpoint 1 at do_sys_openat2" in said
    assert prompt.session.events.get(1).hits == 3
    # a software breakpoint is out of the memory whenever that is read or written, and in it whenever it runs
    inside = False
    for packet in sent:
        if packet.startswith((b"Z0,%x" % address, b"z0,%x" % address)):
            inside = packet[:1] == b"Z"
        assert not (inside and packet[:1] in (b"m", b"M")), packet
    assert any(packet.startswith(b"Z%d,%x" % (0 if software else 1, address)) for packet in sent)
    prompt.ask("::delete all; ::cont")
    prompt.ask("::bp -p teller do_sys_openat2+5; ::cont -t 20")  # behind them: they are executed
    assert prompt.session.cpu.registers()["rip"] == address + 5
    assert prompt.target.kernel.read(address, 5) == bytes.fromhex(NOPS)
    prompt.ask("::delete all; ::undo all")
    assert prompt.err == ""
    assert prompt.target.kernel.read(address, 5) == before


def watch_packets(monkeypatch: pytest.MonkeyPatch, prompt: Prompt) -> list[bytes]:
    """Return a list to which the packets go that are sent from now on."""
    assert isinstance(prompt.target.control, GdbControl)
    connection = prompt.target.control.machine.connection
    sent: list[bytes] = []
    ask, tell = connection.ask_all, connection.tell

    def ask_all(questions: Sequence[bytes], seconds: float | None = None) -> list[bytes]:
        sent.extend(questions)
        return ask(questions, seconds)

    def told(packet: bytes | str) -> None:
        sent.append(packet.encode() if isinstance(packet, str) else packet)
        tell(packet)

    monkeypatch.setattr(connection, "ask_all", ask_all)
    monkeypatch.setattr(connection, "tell", told)
    return sent


def test_registers_can_be_changed(prompt: Prompt, live_guest: RunningGuest) -> None:
    prompt.ask("::bp -p teller do_sys_openat2; ::cont; ::delete all; <r15>kept; 0x123456789abcdef>r15")
    assert "R15=0123456789abcdef" in prompt.guest.monitor("info registers -a")
    assert prompt.ask("<r15=J").split() == ["123456789abcdef"]
    assert prompt.ask("::writes").splitlines()[1].split()[1:] == [
        "cpu", str(prompt.session.cpu.number), "r15", "8", f"{prompt.session.variables['kept']:x}", "123456789abcdef"]
    prompt.ask("7>r14; 8>r14")
    assert prompt.ask("::undo 2").splitlines()[0].endswith(": 8 -> 7")
    prompt.ask("::undo")
    assert prompt.ask("<r15=J").split() == [f"{prompt.session.variables['kept']:x}"]
    assert prompt.err == ""
    prompt.ask("::undo")
    assert "nothing to undo" in prompt.err
    prompt.ask("123>r14; ::step; 5>r14; <kept>r14")
    prompt.session.cpu.set_register("r14", 1)
    prompt.session.journal.pop()
    prompt.ask("::undo")
    assert "the register has changed since" in prompt.err
    prompt.session.dry_run = True
    prompt.ask("77>r14")
    assert "a dry run: r14" in prompt.err
    prompt.session.dry_run = False
    assert prompt.ask("<r14=J").split() == ["1"]
    prompt.session.journal.clear()
    prompt.ask("10000000000000000>r15")
    assert prompt.err
    prompt.session.close()
    reading = Prompt(live_guest, "r")
    reading.ask("::stop; 5>rax")
    assert "not open for writing" in reading.err
    reading.session.close()


def test_what_is_refused(prompt: Prompt) -> None:
    for line, error in [
        ("::bp nosuch_function", "unknown symbol name"), ("::bp -c '1+' do_sys_openat2", "syntax error"),
        ("::bp -n 0 do_sys_openat2", "the first hit is 1"), ("::delete 99", 'no event "99"'),
        ("::delete", "which: numbers"), ("::evset -d x", "no number of an event"),
        ("::step sideways", "over, out or into"), ("::cpu 7", "there is no CPU 7"), ("::bp dummy`nosuch", "no symbol"),
        ("::bp -p nobody do_sys_openat2", "nobody"),
    ]:
        prompt.ask(line)
        assert error in prompt.err, line
    assert len(prompt.session.events) == 0
    prompt.ask("::bp notloaded`some_function")
    assert "waits until the module" in prompt.err
    assert prompt.ask("::events").splitlines()[1].split()[:3] == ["1", "pending", "execute"]
    prompt.ask("::evset -d 1")
    assert prompt.ask("::events").splitlines()[1].split()[1] == "off"


@pytest.mark.parametrize("name", MACHINE)
def test_the_examples_of_the_help(prompt: Prompt, name: str) -> None:
    prompt.ask("::bp -p teller do_sys_openat2; jiffies::wp; ::evset -d 2; ::cont")
    for line in examples()[name]:
        if name == "delete":  # each example needs one that is there
            prompt.session.events.add("execute", "do_sys_openat2", prompt.session.evaluate("do_sys_openat2"))
        prompt.ask(line)
        assert not prompt.session.failed, (line, prompt.err)


def test_ctrl_c_stops_the_guest(prompt: Prompt) -> None:
    import threading

    prompt.ask("::bp -p victim do_sys_openat2")  # which never comes
    threading.Timer(3, signal.raise_signal, (signal.SIGINT,)).start()
    assert prompt.ask("::cont").startswith("interrupted at ")
    assert prompt.status in ("paused", "debug")
    prompt.ask("::ps")
    assert prompt.status in ("paused", "debug")
    prompt.ask("::delete all; ::cont")
    assert prompt.status == "running"


def test_a_module_that_is_not_loaded_yet(tmp_path: Path) -> None:
    """A guest of its own, caught as it boots: its init loads modules."""
    have(named_spec("6.1"))
    with _powered(named_spec("6.1"), tmp_path, [_empty(tmp_path / "drive", ORACLE_DRIVE)]) as guest:
        early = _as_it_boots(guest)
        # names are looked for before there are modules, and found when they are loaded while we are there
        assert early.ask("nosuch_symbol=J") == ""
        assert early.target.symbols.get("zram_remove") is None
        assert early.target.types.get("struct zram") is None
        early.ask("::bp dummy`dummy_init_module")
        assert early.ask("::events").splitlines()[1].split()[1] == "pending"
        said = early.ask("::cont -t 120")
        assert said.startswith("breakpoint 1 at dummy`dummy_init_module: CPU ")
        assert "(insmod)" in said
        assert "dummy is being loaded: breakpoint 1 is at ffffffff" in early.err
        assert "do_init_module+" in early.ask("$c")
        early.ask("::delete all; ::cont")
        guest.wait_console((READY,), 120)
        assert early.ask("zram`zram_remove=p").strip() == "zram`zram_remove"
        assert early.ask("::sizeof struct zram").startswith("sizeof (struct zram) = 0x")
        assert early.ask("dummy`dummy_init_module=J") == ""  # its init section is gone
        early.session.close()
        with open_target(f"qmp:{guest.qmp_socket}") as target, target.question():
            told = {symbol.name for symbol in target.symbols.find_all("zram_remove")}
        assert told == {"zram_remove"}


def _as_it_boots(guest: RunningGuest) -> Prompt:
    """Open a guest as soon as its kernel can be found, before it has any modules."""
    end = time.monotonic() + 120
    while True:
        time.sleep(0.5)
        assert time.monotonic() < end
        assert READY not in guest.console.read_bytes()
        if re.search(r"RIP=ffffffff[89a-f]", guest.monitor("info registers")):  # else each look would only hold it up
            start = time.monotonic()
            with contextlib.suppress(KshellError):
                return Prompt(guest)
            assert time.monotonic() - start < 20, "what cannot be found yet was looked for in all memory"


def test_killed_in_the_middle_of_breakpoint_hits(live_guest: RunningGuest) -> None:
    words = [sys.executable, "-m", "kshell", "-S", "-e", "::bp -p teller -e '::echo hit' do_sys_openat2; ::cont",
             f"gdb:{live_guest.gdb_socket}"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline().strip() == b"hit"
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    process.wait(20)
    deadline = time.monotonic() + 10
    while live_guest.command("query-status")["status"] != "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)  # the teller opens its file 20 times meanwhile: no breakpoint is left
    assert live_guest.command("query-status")["status"] == "running"


def test_many_stops_leak_nothing(live_guest: RunningGuest) -> None:
    """benchmarks/soak.py does it 10,000 and 1,000 times."""
    from benchmarks.soak import cycles, hits

    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd"))
    assert cycles(f"gdb:{live_guest.gdb_socket}", 200).times == 200
    assert cycles(f"qmp:{live_guest.qmp_socket}", 200).times == 200
    assert hits(f"gdb:{live_guest.gdb_socket}", 30, "teller").times == 30
    gc.collect()  # types refer to each other in circles, and to the mappings of their cache files
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert live_guest.command("query-status")["status"] == "running"
