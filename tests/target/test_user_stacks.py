"""``::stack`` of processes and cores: frames of every kind against the program's own source, and against gdb's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kshell.errors import FormatError
from kshell.linux.programs import Program, Region
from kshell.linux.stack import Stack
from kshell.linux.user_stack import own_program, thread_stack
from kshell.target.formats import Options
from kshell.target.open import open_target
from kshell.target.user import UserTarget
from kshell.unwind.cfi import Fde
from kshell.unwind.user import walk_user
from tests.programs import compiled
from tests.target.asking import ask

Child = subprocess.Popen[bytes]
#: what the threads of stacks.c do, innermost first, as far as its own functions go; inlined ones aside
EXPECTED = {
    "main": ["deep"] * 21 + ["main", "_start"], "sorter": ["compare", "sorter"],
    "other_stack": ["handler", "other_stack"],
    "faulting": ["handler", "faulting"], "spinning": ["spinning"], "moving": ["deep"] * 4 + ["moved", "moving"],
    "wild": ["handler", "wild"],
}
OWN = {name for names in EXPECTED.values() for name in names}


def start(*flags: str, words: tuple[str, ...] = ()) -> Child:
    program = compiled("-pthread", *flags, name="stacks", sources=("stacks.c",))
    child = subprocess.Popen([str(program), *words], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    return child


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with start("-g", "-O1", "-fno-optimize-sibling-calls") as made:
        settle(made.pid)
        yield made
        made.kill()


def settle(pid: int) -> None:
    """Wait until all threads but the one that spins sleep."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        states = [one.read_text().rpartition(") ")[2][0] for one in Path(f"/proc/{pid}/task").glob("*/stat")]
        if len(states) == 7 and states.count("S") == 6:
            return
        time.sleep(0.01)
    raise AssertionError("the threads do not settle")


def stacks(target: UserTarget) -> list[Stack]:
    return [thread_stack(target, one.tid) for one in target.facts.threads()]


def own_functions(target: UserTarget, stack: Stack) -> list[str]:
    """Return the functions of the program itself that a stack is in."""
    names = []
    for frame in stack.frames:
        found = stack.symbolize(target, frame)
        if found is not None and found[0].name in OWN:
            names.append(found[0].name)
    return names


def check(target: UserTarget) -> None:
    found = stacks(target)
    assert [stack.end for stack in found] == [""] * 7
    assert all(frame.reliable for stack in found for frame in stack.frames)
    told = {names[-2] if names[-1] == "_start" else names[-1]: names
            for names in (own_functions(target, stack) for stack in found)}
    assert told == EXPECTED


@pytest.mark.parametrize("flags", [
    ("-O1", "-g"), ("-O0", "-fno-omit-frame-pointer"), ("-O2",), ("-O2", "-no-pie"), ("-O1", "-static"),
    ("-O1", "-fno-asynchronous-unwind-tables", "-g"), ("-O1", "-static", "-Wl,--no-eh-frame-hdr"),
    ("-O1", "-fcf-protection=full", "-Wl,-z,now"),
], ids=" ".join)
def test_every_kind_of_frame(flags: tuple[str, ...]) -> None:
    with start("-fno-optimize-sibling-calls", *flags) as child:
        try:
            settle(child.pid)
            with open_target(f"pid:{child.pid}", options=Options(pause=True)) as target:
                assert isinstance(target, UserTarget)
                with target.question():
                    check(target)
        finally:
            child.kill()


GDB = """
import gdb
for thread in gdb.selected_inferior().threads():
    thread.switch()
    frame = gdb.newest_frame()
    while frame is not None:
        if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
            print("FRAME %d %x %x" % (thread.ptid[1], frame.pc(), int(frame.read_register("REGISTER"))))
        frame = frame.older()
"""


def gdb_frames(folder: Path, *words: str, register: str = "rsp") -> dict[int, list[tuple[int, int]]]:
    """Return (pc, sp) of each frame that gdb tells of, by thread."""
    gdb = shutil.which("gdb")
    if gdb is None:
        pytest.skip("no gdb on this machine: apt-get install gdb")
    script = folder / "frames.py"
    script.write_text(GDB.replace("REGISTER", register))
    done = subprocess.run([gdb, "-q", "-batch", "-nx", "-iex", "set debuginfod enabled off",
                           "-ex", "set backtrace past-main on", "-x", str(script), *words],
                          capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    found: dict[int, list[tuple[int, int]]] = {}
    for tid, pc, sp in re.findall(r"^FRAME (\d+) (\w+) (\w+)$", done.stdout, re.M):
        found.setdefault(int(tid), []).append((int(pc, 16), int(sp, 16)))
    assert found, done.stdout + done.stderr
    return found


def same_as_gdb(target: UserTarget, told: dict[int, list[tuple[int, int]]], moving: int = 0) -> None:
    found = {stack.tid: [(frame.pc, frame.sp) for frame in stack.frames] for stack in stacks(target)}
    assert found.keys() == told.keys()
    for tid, frames in told.items():
        first = 1 if tid == moving else 0  # it runs, and is not where it was
        assert found[tid][first:] == frames[first:]


def test_a_process_against_gdb(child: Child, tmp_path: Path) -> None:
    told = gdb_frames(tmp_path, "-p", str(child.pid))
    with open_target(f"pid:{child.pid}", options=Options(pause=True)) as target:
        assert isinstance(target, UserTarget)
        with target.question():
            moving = next(one.tid for one in target.facts.threads() if one.state == "R")
            same_as_gdb(target, told, moving)


def test_a_core_of_gcore_against_gdb(child: Child, tmp_path: Path) -> None:
    """gcore leaves out what files have, with no segment for it; NT_FILE tells of it."""
    core = tmp_path / "core"
    if shutil.which("gdb") is None:
        pytest.skip("no gdb on this machine: apt-get install gdb")
    subprocess.run(["gdb", "-q", "-batch", "-nx", "-iex", "set debuginfod enabled off", "-p", str(child.pid),
                    "-ex", f"gcore {core}"], capture_output=True, stdin=subprocess.DEVNULL, check=True)
    program = str(Path(f"/proc/{child.pid}/exe").readlink())
    with open_target(str(core)) as target:
        assert isinstance(target, UserTarget)
        assert target.objects[0].path == program and target.objects[0].elf is not None
        check(target)
        same_as_gdb(target, gdb_frames(tmp_path, program, str(core)))
        code = next(one for one in target.facts.mappings() if one.start <= target.symbol("main").address < one.end)
        assert code.permissions == "r-x" and code.name == program


def test_with_nothing_but_memory(child: Child) -> None:
    """As a task of a kernel's dump is looked at: no file is opened, names are those of dynamic sections."""
    with open_target(f"pid:{child.pid}", options=Options(pause=True)) as target:
        assert isinstance(target, UserTarget)
        with target.question():
            program = Program(target.kernel, [Region(*one) for one in target.facts.mappings()])
            names: dict[str, set[str]] = {}
            for stack in stacks(target):
                assert stack.tid is not None
                found = walk_user(program.memory, program.code(), target.facts.registers(stack.tid)[1])
                assert [(one.pc, one.sp) for one in found.frames] == [(one.pc, one.sp) for one in stack.frames]
                assert not found.end
                for frame in found.frames:
                    ours, theirs = program.symbolize(frame.lookup), stack.symbolize(target, frame)
                    assert ours is not None or frame.pc < 4096
                    if ours is not None and theirs is not None and ours[0].address == theirs[0].address:
                        names.setdefault(theirs[0].module or "", set()).add(ours[0].name)
            libc = next(name for name in names if name.startswith("libc."))
            assert {"poll", "sleep", "pause", "qsort_r"} & names[libc] >= {"poll", "sleep"}


def test_instants_at_random() -> None:
    """A program that runs, wherever it is: in prologues, procedure linkage tables, the vDSO."""
    program = compiled("-O2", "-pthread", name="busy", sources=("busy.c",))
    with subprocess.Popen([str(program)], stdout=subprocess.PIPE) as busy:
        assert busy.stdout is not None and busy.stdout.readline() == b"ready\n"
        try:
            with open_target(f"pid:{busy.pid}", options=Options(pause=True)) as target:
                assert isinstance(target, UserTarget)
                for _ in range(300):
                    with target.question():
                        stack = thread_stack(target, None)
                        names = own_functions(target, stack)
                        assert stack.complete and names[-2:] == ["main", "_start"], (stack, names)
        finally:
            busy.kill()


def test_python(tmp_path: Path) -> None:
    """An interpreter with threads and recursion, built by others."""
    code = ("import threading, time\ndef f(n): f(n - 1) if n else time.sleep(1000)\n"
            "for i in range(3): threading.Thread(target=f, args=(9 * i,), daemon=True).start()\n"
            "print('up', flush=True); f(30)")
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE) as python:
        try:
            assert python.stdout is not None and python.stdout.readline() == b"up\n"
            time.sleep(0.3)
            told = gdb_frames(tmp_path, "-p", str(python.pid))
            with open_target(f"pid:{python.pid}") as target:
                assert isinstance(target, UserTarget)
                same_as_gdb(target, told)
        finally:
            python.kill()


def test_a_table_that_cannot_be_read_is_no_outermost_frame(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame pointer of zero ends a stack where no table tells of the code; where one would, it is not known."""
    with open_target(f"pid:{child.pid}") as target:
        assert isinstance(target, UserTarget)
        stack = thread_stack(target, None)
        program = own_program(target)
        inner, outer = stack.frames[0], stack.frames[1]

        def find(address: int) -> Fde | None:
            if address == outer.lookup:
                raise FormatError("the unwind table is not there")
            return program.find(address)

        monkeypatch.setattr("kshell.unwind.user._by_prologue", lambda memory, code, step: None)
        registers = {**inner.registers, "rbp": 0}
        found = walk_user(program.memory, program.code()._replace(find=find), registers)
        assert found.end == "the unwind table is not there" and len(found.frames) > 2
        assert [frame.reliable for frame in found.frames[:3]] == [True, True, False]


def test_in_the_shell(child: Child) -> None:
    told = ask(f"pid:{child.pid}", "$c; ::stack -a; $C; ::stack -v; ::stack -l")
    assert not told.errors
    lines = told.out.splitlines()
    main = lines.index("_start+0x21()") if "_start+0x21()" in lines else next(
        number for number, line in enumerate(lines) if line.startswith("_start+"))
    assert [line.split("+")[0] for line in lines[:main] if "`" not in line].count("deep") == 21
    assert told.out.count("<signal>\n") == 3 and f"stack of thread {child.pid}:\n" in told.out
    assert "stacks.c:" in told.out, "source lines"
    rows = [json.loads(line) for line in ask(f"pid:{child.pid}", "::stack", json=True).out.splitlines()]
    assert rows[0]["tid"] == child.pid and rows[-1]["symbol"] == "_start" and rows[0]["stack"] == "user"


def test_a_chosen_thread(child: Child) -> None:
    with open_target(f"pid:{child.pid}") as target:
        assert isinstance(target, UserTarget)
        tid = next(one.tid for one in target.facts.threads() if "compare" in own_functions(
            target, thread_stack(target, one.tid)))
    chosen = ask(f"pid:{child.pid}", f"::threads 0t{tid}; $c; <thread=D")
    assert "compare+" in chosen.out and "deep" not in chosen.out and str(tid) in chosen.out
    for text in (f"0t{tid}::stack", f"::stack -t {tid}"):
        assert ask(f"pid:{child.pid}", text).out in chosen.out
    for text, why in (("1::stack", "has no thread 1"), ("::threads 1", "there is no thread 1"),
                      ("::stack -c 0", "no CPUs"),
                      ("::cpu", "threads and no CPUs"), (f"::stack -a -t {tid}", "do not go together")):
        assert why in ask(f"pid:{child.pid}", text).err
