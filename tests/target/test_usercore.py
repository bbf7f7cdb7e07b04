"""``kshell CORE [EXE]``: cores that the kernel wrote of a process that crashed, and damaged ones."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kshell.errors import Fault, KshellError, OpenError
from kshell.target.open import open_target
from kshell.target.target import Target
from kshell.target.usercore import CoreTarget
from tests.memory.cores import Load, core, note
from tests.programs import compiled
from tests.target.asking import ask

PLAIN = ("-g", "-O1")


def crashed(program: Path, folder: Path) -> Path:
    """Crash *program* in *folder* and return its core; skip where this machine's kernel sends cores elsewhere."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern.startswith(("|", "/")) or "/" in pattern:
        pytest.skip(f"cores go elsewhere here (kernel.core_pattern is {pattern})")

    def unlimited() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    try:
        done = subprocess.run([str(program), "wait", "crash"], input=b"\n", capture_output=True, cwd=folder,
                              preexec_fn=unlimited, check=False)
    except subprocess.SubprocessError:
        pytest.skip("the limit of cores cannot be raised here")
    assert done.returncode == -11
    found = list(folder.glob("core*"))
    if not found:
        pytest.skip("this machine's kernel writes no core")
    return found[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(core, program)"""
    program = compiled(*PLAIN)
    return crashed(program, tmp_path_factory.mktemp("core")), program


@pytest.fixture
def target(made: tuple[Path, Path]) -> Iterator[CoreTarget]:
    with open_target(str(made[0])) as found:
        assert isinstance(found, CoreTarget)
        yield found


def test_globals(target: CoreTarget) -> None:
    first = target.object("first")
    assert first["name"].string() == "first" and first["next"].deref()["name"].string() == "First", "on the heap"
    assert [int(n) for n in target.object("numbers")] == [1, 2, 3, 4, 5]
    assert target.kind == "core" and not target.live and target.facts.comm == "rec"


def test_arguments_and_environment(made: tuple[Path, Path], target: CoreTarget) -> None:
    arguments, environment = target.facts.strings()
    assert arguments.split(b"\0") == [os.fsencode(made[1]), b"wait", b"crash", b""]
    told = environment.removesuffix(b"\0").split(b"\0")
    path = b"PATH=" + os.environb[b"PATH"]
    assert path in told and len(told) > 3 and all(b"=" in one for one in told)
    said = ask(made[0], "::args; ::pfiles")
    assert "crash" in said.out and "nothing tells of open files" in said.err


def test_where_it_crashed(target: CoreTarget) -> None:
    (thread,) = target.facts.threads()
    tid, registers = target.facts.registers(None)
    assert tid == thread.tid and registers["rip"] == thread.pc
    found = target.symbolize(registers["rip"])
    assert found is not None and found[0].name == "main"
    lines = target.source_lines(registers["rip"])
    assert lines[-1].function == "main"
    source = Path(lines[-1].file).read_text().splitlines()
    assert "*(volatile int *)0 = 1" in source[lines[-1].line - 1]
    assert dict(target.facts.status())["ended by"] == "SIGSEGV (11) at 0x0"


def test_text_is_read_from_the_files(target: CoreTarget, made: tuple[Path, Path]) -> None:
    """The core leaves it out. The program is as it is in its file; libc's text as well."""
    main = target.symbol("main")
    with open_target(str(made[1])) as file:
        assert target.kernel.read(main.address, main.size) == file.kernel.read(file.symbol("main").address, main.size)
    libc = next(one for one in target.objects if (one.name or "").startswith("libc."))
    puts = target.symbol("puts", "libc")
    assert libc.elf is not None and target.kernel.read(puts.address, 16) == libc.elf.pread(16, puts.address - libc.bias)
    assert dict(target.facts.auxv())[9] == target.symbol("_start").address


def test_as_gdb_reads_it(target: CoreTarget, made: tuple[Path, Path]) -> None:
    if shutil.which("gdb") is None:
        pytest.skip("no gdb")
    asked = ["-ex", "print/x $rip", "-ex", "print/x $rsp", "-ex", "print/x &first", "-ex", "print first.next->name",
             "-ex", "print/x &hidden", "-ex", "info symbol puts"]
    done = subprocess.run(["gdb", "-nx", "-batch", *asked, str(made[1]), str(made[0])], capture_output=True, text=True,
                          check=False)
    told = [line.partition("= ")[2] for line in done.stdout.splitlines() if line.startswith("$")]
    registers = target.facts.registers(None)[1]
    assert [int(word, 16) for word in told[:3]] == [
        registers["rip"], registers["rsp"], target.symbol("first").address]


def test_the_program_named(made: tuple[Path, Path], tmp_path: Path) -> None:
    """A core whose program has moved: it says so, memory works, and EXE brings names back."""
    copy = tmp_path / "elsewhere"
    shutil.copy(made[1], copy)
    with open_target(str(made[0]), str(copy)) as target:
        assert target.object("first")["name"].string() == "first"
    other = compiled("-g", "-O2")
    with pytest.raises(OpenError, match=r"not the program of this core: build id \w{40}, the core's \w{40}"):
        open_target(str(made[0]), str(other))
    with pytest.raises(OpenError, match="No such file"):
        open_target(str(made[0]), str(tmp_path / "nothing"))


def test_without_its_program(tmp_path: Path) -> None:
    program = tmp_path / "gone"
    shutil.copy(compiled(*PLAIN), program)
    made = crashed(program, tmp_path)
    program.unlink()
    with open_target(str(made)) as target:
        assert isinstance(target, CoreTarget)
        assert "No such file" in target.findings["files"] and "kshell CORE EXE" in target.findings["program"]
        assert target.symbols.get("first") is None and target.symbol("puts").module
        registers = target.facts.registers(None)[1]
        assert target.kernel.read(registers["rsp"], 8)
        with pytest.raises(Fault, match="excluded"):
            target.kernel.read(registers["rip"] & -4096 | 0xF00, 16)
        assert target.symbolize(registers["rip"]) is None
    shutil.copy(compiled("-g", "-O2"), program)  # another one in its place
    with open_target(str(made)) as target:
        assert "is another file now: build id" in target.findings["files"]
        assert target.symbols.get("first") is None


def test_writing(made: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "core"
    shutil.copy(made[0], copy)
    with open_target(str(copy), mode="r+") as target:
        target.kernel.write(target.symbol("first").address + 8, b"other\0")
        assert target.object("first")["name"].string() == "other"
        with pytest.raises(Fault):
            target.kernel.write(target.symbol("main").address, b"\x90")
    with open_target(str(copy), mode="c") as target:
        target.kernel.write(target.symbol("first").address + 8, b"third\0")
        assert target.object("first")["name"].string() == "third"
    with open_target(str(copy)) as target:
        assert target.object("first")["name"].string() == "other"


def test_in_the_shell(made: tuple[Path, Path]) -> None:
    said = ask(made[0], "::status; ::threads; ::regs; ::auxv; ::mappings; ::objects; first::print name; main::dis -n 0;"
                        "first+8?s; first+8/s; ::nm -m a.out ! wc -l")
    assert not said.err
    for words in ("debugging core file", "SIGSEGV", "main+", "%rip", "AT_PHDR", "libc.so.6", "[vdso]", "first"):
        assert words in said.out, words
    said = ask(made[0], "<rip=p; <rip::dis -n 0")
    assert not said.err and said.out.split()[0].startswith("main+")
    said = ask(made[0], "::ps; 1000::kread; ::regs -t 1; ::msgbuf")
    assert len(said.errors) == 4 and "no thread 1" in said.err


def test_threads(tmp_path: Path) -> None:
    """Python with three threads, aborted."""
    code = ("import os, threading, time\n"
            "for n in range(3): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
            "time.sleep(0.2); os.abort()")
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern.startswith("|") or "/" in pattern:
        pytest.skip("cores go elsewhere here")
    done = subprocess.run(["sh", "-c", 'ulimit -c unlimited && exec "$0" -S -c "$1"', sys.executable, code],
                          cwd=tmp_path, capture_output=True, check=False)
    found = list(tmp_path.glob("core*"))
    if done.returncode != -6 or not found:
        pytest.skip("this machine's kernel writes no core")
    with open_target(str(found[0])) as target:
        assert isinstance(target, CoreTarget)
        threads = target.facts.threads()
        assert len(threads) == 4 and len({one.tid for one in threads}) == 4
        assert threads[0].tid == target.facts.pid, "the one that aborted comes first"
        for one in threads:
            assert target.facts.registers(one.tid)[1]["rip"] == one.pc


def _questions(target: Target) -> list[Callable[[], object]]:
    """Return what is asked of a core, or of what it looks like when it is damaged."""
    asked: list[Callable[[], object]] = [
        lambda: target.symbols.get("first"), lambda: target.object("first").bytes(), lambda: target.kernel.read(0, 1)]
    if isinstance(target, CoreTarget):
        asked += [target.facts.mappings, target.facts.auxv, target.facts.threads, target.facts.status]
    return asked


def test_damaged_cores(made: tuple[Path, Path], tmp_path: Path) -> None:
    whole = made[0].read_bytes()
    path = tmp_path / "damaged"
    places = [*range(4, 64, 5), *range(64, 64 + 56 * 20, 61), *range(64 + 56 * 30, min(len(whole), 9000), 331)]
    for at in places:
        damaged = bytearray(whole)
        damaged[at] ^= 0x11
        path.write_bytes(damaged)
        try:
            with open_target(str(path)) as target:
                for question in _questions(target):
                    try:
                        question()
                    except KshellError:
                        continue
        except KshellError:
            continue
    for size in (3, 63, 200, 3000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        try:
            with open_target(str(path)) as target:
                assert "missing" in target.findings
        except OpenError:
            assert size < 9000


def test_a_core_that_tells_little(tmp_path: Path) -> None:
    """No NT_FILE, no registers: memory is there, and what is missing is named."""
    path = tmp_path / "core"
    path.write_bytes(core([Load(0, b"hello, world" + bytes(4084), vaddr=0x40_0000)], note("CORE", 6, bytes(16))))
    with open_target(str(path)) as target:
        assert isinstance(target, CoreTarget)
        assert target.kernel.read(0x40_0000, 5) == b"hello" and not target.facts.threads()
        with pytest.raises(KshellError, match="no threads"):
            target.facts.registers(None)
        assert "kshell CORE EXE" in target.findings["program"]
    assert os.path.getsize(path)
