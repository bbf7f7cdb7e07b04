"""``kshell -p PID``: a live process read, written and looked at without harm; one that ends or is forbidden."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kshell.errors import Fault, KshellError, OpenError, Reason
from kshell.target.open import open_target
from kshell.target.process import ProcessTarget
from tests.conformance.run import Machine
from tests.programs import compiled
from tests.target.asking import ask

Child = subprocess.Popen[bytes]


def started(*words: str, flags: tuple[str, ...] = ("-g", "-O1")) -> Child:
    child = subprocess.Popen([str(compiled(*flags)), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    child.stdout.readline()
    return child


@pytest.fixture
def child() -> Iterator[Child]:
    with started("wait") as made:
        yield made
        made.kill()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def settled(child: Child, letter: str) -> None:
    """Wait until the child is in this state, as it was before somebody looked: it takes a moment."""
    until = time.monotonic() + 5
    while state(child.pid) != letter and time.monotonic() < until:
        time.sleep(0.005)
    assert state(child.pid) == letter


def test_globals_with_their_types(child: Child) -> None:
    with open_target(f"pid:{child.pid}") as target:
        assert isinstance(target, ProcessTarget) and target.live and target.kind == "process"
        first = target.object("first")
        assert first["name"].string() == "first" and first["next"].deref()["name"].string() == "First"
        assert first["next"].deref()["in"].deref()["y"].integer() == 4
        assert target.symbolize(first.integer("in")) == (target.symbol("origin"), 0)
        assert target.source_lines(target.symbol("compute").address)[-1].function == "compute"


def test_libraries_where_they_are_loaded(child: Child) -> None:
    """Addresses of a library's functions against what the dynamic linker wrote into the program (its GOT)."""
    maps = Path(f"/proc/{child.pid}/maps").read_text()
    with open_target(f"pid:{child.pid}") as target:
        assert isinstance(target, ProcessTarget)
        libc = next(one for one in target.objects if (one.name or "").startswith("libc."))
        base = min(int(line.split("-")[0], 16) for line in maps.splitlines() if line.endswith(libc.path))
        assert libc.bias == libc.start == base and f"{base:x}-" in maps
        puts = target.symbol("puts", "libc")
        pointer = puts.address.to_bytes(8, "little")
        program = target.objects[0]
        data, _ = target.kernel.read_upto(program.start, program.end - program.start)
        assert program.name is None and pointer in data, "the program calls it through a pointer of this value"
        assert target.symbol(f"{libc.path}`puts") == puts
        assert puts.module == libc.name
        with pytest.raises(KshellError, match="nothing`puts"):
            target.symbol("puts", "nothing")
        vdso = next(one for one in target.objects if one.name == "[vdso]")
        assert target.symbolize(vdso.symbols.find("__vdso_gettimeofday")[0].address) is not None


def test_writes_are_seen_by_the_program(child: Child) -> None:
    with open_target(f"pid:{child.pid}", mode="r+") as target:
        target.kernel.write(target.symbol("first").address + 8, b"changed\0")
        target.kernel.write(target.symbol("numbers").address + 8, (99).to_bytes(4, "little"))
    out, _ = child.communicate(b"\n")
    assert out == b"changed 99\n"


def test_private_writes_are_not(child: Child) -> None:
    with open_target(f"pid:{child.pid}", mode="c") as target:
        target.kernel.write(target.symbol("first").address + 8, b"changed\0")
        assert target.object("first")["name"].string() == "changed"
    assert child.communicate(b"\n")[0] == b"first 3\n"


def test_only_with_w(child: Child) -> None:
    said = ask(f"pid:{child.pid}", "numbers/W 7")
    assert "-w" in said.err and child.communicate(b"\n")[0] == b"first 3\n"


def test_in_the_shell(child: Child) -> None:
    text = ("first::print name nothing; *first::print struct rec name; first+8/s; compute::dis -n 0; ::threads;"
            "::regs; ::auxv; ::objects; ::mappings; first::whatis; puts=p; libc`puts=p; first+8?s; ::status;"
            "::nm -m libc ! wc -l")
    said = ask(f"pid:{child.pid}", text)
    for words in ("debugging PID", "compute:", f"{child.pid}", "AT_ENTRY", "_start", "libc", "read", "%rip", "[vdso]",
                  "is first", "[stack]", "first+8:        first"):
        assert words in said.out, words
    assert "nothing" in said.err and len(said.errors) == 1
    assert said.out.count("`puts") == 2


def test_arguments_environment_and_files(tmp_path: Path) -> None:
    file = tmp_path / "open file"
    file.write_text("some text")
    with file.open() as held:
        os.lseek(held.fileno(), 5, os.SEEK_SET)
        still = compiled("-O1", "-g", "-pthread", name="still", sources=("still.c",))
        program = [str(still), "call", "pause", "an argument", ""]
        with subprocess.Popen(program, stdin=held, stdout=subprocess.PIPE, env={"A": "1", "EMPTY": ""}) as child:
            assert child.stdout is not None and child.stdout.readline() == b"ready\n"
            said = ask(f"pid:{child.pid}", "::args; ::env; ::pfiles", json=True)
            rows = [json.loads(line) for line in said.out.splitlines()]
            assert [row["argument"] for row in rows if "argument" in row] == program
            assert [row["variable"] for row in rows if "variable" in row] == ["A=1", "EMPTY="]
            files = {row["fd"]: row for row in rows if "fd" in row}
            assert files[0]["path"] == str(file) and files[0]["position"] == 5 and files[0]["type"] == "REG"
            assert files[1]["type"] == "FIFO" and files[1]["flags"].startswith("WRONLY")
            assert "no other to name" in ask(f"pid:{child.pid}", "::args 1").err
            child.kill()


def test_registers_are_those_of_the_thread(child: Child) -> None:
    with open_target(f"pid:{child.pid}") as target:
        assert isinstance(target, ProcessTarget)
        tid, registers = target.facts.registers(None)
        settled(child, "S")
        (thread,) = target.facts.threads()
        assert tid == child.pid == thread.tid and registers["rip"] == thread.pc
        where = next(one for one in target.facts.mappings() if one.start <= registers["rip"] < one.end)
        assert os.path.basename(where.name).startswith("libc"), "it waits in read(2)"
        stack = next(one for one in target.facts.mappings() if one.name == "[stack]")
        assert stack.start <= registers["rsp"] < stack.end
        with pytest.raises(KshellError, match=r"has no thread 1$"):
            target.facts.registers(1)
    assert child.communicate(b"\n")[0] == b"first 3\n", "and it runs on"


def test_a_stopped_process_stays_stopped(child: Child) -> None:
    child.send_signal(signal.SIGSTOP)
    while state(child.pid) != "T":
        time.sleep(0.01)
    with open_target(f"pid:{child.pid}") as target:
        assert isinstance(target, ProcessTarget)
        assert target.facts.registers(None)[1]["rip"]
    settled(child, "T")
    child.send_signal(signal.SIGCONT)
    assert child.communicate(b"\n")[0] == b"first 3\n"


def test_a_process_that_ends(child: Child) -> None:
    with open_target(f"pid:{child.pid}") as target:
        assert isinstance(target, ProcessTarget)
        address = target.symbol("first").address
        child.communicate(b"\n")
        with pytest.raises(Fault) as caught:
            target.kernel.read(address, 4)
        assert caught.value.reason is Reason.GONE
        for question in (target.facts.mappings, target.facts.threads, target.facts.auxv):
            with pytest.raises(Fault) as caught:
                question()
            assert caught.value.reason is Reason.GONE
        with pytest.raises(KshellError):
            target.facts.registers(None)
        target.forget()


def test_one_that_ends_before_its_types_are_asked_for(tmp_path: Path) -> None:
    """Its files are open; that the links of /proc that led to them are gone must not matter."""
    program, debug = tmp_path / "rec", tmp_path / "rec.debug"
    shutil.copy(compiled("-g", "-O1"), debug)
    subprocess.run(["objcopy", "--strip-all", f"--add-gnu-debuglink={debug}", str(debug), str(program)], check=True)
    with subprocess.Popen([str(program), "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        with open_target(f"pid:{child.pid}") as target:
            child.kill()
            settled(child, "Z")
            assert target.type("struct rec").size and target.symbol("main").size, "of the separate file"
            machine = Machine(target=False)
            machine.session.attach(target)
            said = machine.run("::status; ::threads; main=p; ::objects")
            assert not said.errors and "Z (zombie)" in said.out and "0000000000000000" not in said.out


def test_a_process_that_is_a_zombie(child: Child) -> None:
    with open_target(f"pid:{child.pid}") as target:
        assert isinstance(target, ProcessTarget)
        child.kill()
        settled(child, "Z")
        for question in (target.facts.mappings, lambda: list(target.facts.open_files()), target.facts.strings):
            with pytest.raises(Fault) as caught:
                question()
            assert caught.value.reason is Reason.GONE
        with pytest.raises(KshellError, match="is gone"):
            target.facts.registers(None)
        assert target.facts.threads()[0].state == "Z"


def test_processes_that_are_not_there() -> None:
    with pytest.raises(OpenError, match="no process 4194304"):
        open_target("pid:4194304")
    for place in ("pid:", "pid:x", "pid:-1", "pid:99999999999999999999"):
        with pytest.raises(OpenError):
            open_target(place)
    with subprocess.Popen(["true"]) as child:
        while state(child.pid) != "Z":
            time.sleep(0.01)
        with pytest.raises(OpenError, match="no user memory"):
            open_target(f"pid:{child.pid}")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_process_of_another_user(child: Child) -> None:
    code = ("import os\nfrom kshell.target.open import open_target\n"
            "open_target(f'pid:{os.getpid()}').close()\nos.setuid(65534)\n"
            f"try:\n    open_target('pid:{child.pid}')\n"
            "except Exception as error:\n    print(type(error).__name__, error)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "OpenError" in done.stdout and "may not be traced" in done.stdout, done.stderr


def test_a_library_that_is_loaded_later(tmp_path: Path) -> None:
    """dlopen(3) after kshell has looked: its symbols join at the next question."""
    code = ("import ctypes, sys; print('up', flush=True); sys.stdin.readline(); "
            "ctypes.CDLL('libresolv.so.2'); print('loaded', flush=True); sys.stdin.readline()")
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as python:
        assert python.stdin is not None and python.stdout is not None
        python.stdout.readline()
        with open_target(f"pid:{python.pid}") as target:
            with target.question():
                target.symbols.get("malloc")
                count = len(target.objects)  # type: ignore[attr-defined]
            python.stdin.write(b"\n")
            python.stdin.flush()
            python.stdout.readline()
            with target.question():
                names = [one.shown for one in target.objects[count:]]  # type: ignore[attr-defined]
            if "libresolv.so.2" not in names:
                python.kill()
                pytest.skip("this Python has it loaded from the start")
            assert target.symbol("ns_parserr").module == "libresolv.so.2"
        python.kill()


@pytest.mark.parametrize("where", ["deleted", "another mount namespace"])
def test_a_program_that_is_not_at_its_path(where: str, tmp_path: Path) -> None:
    """Its file is found by /proc/PID: exe, map_files, root."""
    program, still = tmp_path / "program", compiled("-O1", "-g", "-pthread", name="still", sources=("still.c",))
    words = [str(program), "call", "pause"]
    if where == "deleted":
        shutil.copy(still, program)
    else:
        script = f"mount -t tmpfs none {tmp_path} && cp {still} {program} && exec {' '.join(words)}"
        words = ["unshare", "-m", "sh", "-c", script]
        if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
            pytest.skip("mount namespaces need root")
    with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        if where == "deleted":
            program.unlink()
        assert not program.exists()
        said = ask(f"pid:{child.pid}", "counters::print ! head -1; $c; main::whatis")
        assert not said.errors and "main+" in said.out and "is main" in said.out
        child.kill()


def test_without_debugging_data() -> None:
    with started("wait", flags=("-O1", "-g0")) as child:
        with open_target(f"pid:{child.pid}") as target:
            assert target.kernel.read(target.symbol("first").address + 8, 5) == b"first"
        said = ask(f"pid:{child.pid}", "first::print")
        assert said.errors and child.poll() is None
        child.kill()


def test_the_command_line(child: Child) -> None:
    done = subprocess.run([sys.executable, "-m", "kshell", "-p", str(child.pid), "-e", "first::print name"],
                          capture_output=True, text=True, check=True)
    assert done.stdout == 'name = [ "first" ]\n'
    for words in (["-p", "0"], ["-p", "x"], ["-p", str(child.pid), "dump"], ["-n", "-p", "1"]):
        done = subprocess.run([sys.executable, "-m", "kshell", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "Usage" in done.stderr
