"""Programs of 32 bits (i386) on x86-64: the process, its core, its file; stacks by every means there is."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kshell.arch.i386 import I386, PRSTATUS_REGS, USER_REGS
from kshell.errors import FormatError, KshellError, OpenError
from kshell.linux.user_stack import thread_stack
from kshell.memory.elfheaders import EHDR32, PHDR32
from kshell.target.auxv import word_size
from kshell.target.formats import Options
from kshell.target.open import open_target
from kshell.target.user import UserTarget
from tests.memory.cores import note
from tests.programs import compiled
from tests.target.asking import ask
from tests.target.test_user_stacks import gdb_frames, same_as_gdb

Child = subprocess.Popen[bytes]
HERE = Path(__file__).parent.parent / "programs"
DOWN = ["handler", *["deep"] * 6, "start", "_start"]
WAYS = {
    "unwind tables": ("-O1", "-g"),
    "tables of the debugging data": ("-O1", "-g", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"),
    "frame pointers": ("-O1", "-fno-omit-frame-pointer", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"),
}

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="programs of i386 run on x86-64")


def program(*flags: str) -> Path:
    # no library is needed, so that a compiler for x86-64 alone can make it
    return compiled("-m32", "-nostdlib", "-static", "-fno-stack-protector", "-fno-optimize-sibling-calls", *flags,
                    name="narrow", sources=("narrow.c",))


def start(*words: str, flags: tuple[str, ...] = WAYS["unwind tables"]) -> Child:
    try:
        child = subprocess.Popen([str(program(*flags)), *words], stdout=subprocess.PIPE)
    except OSError as error:
        pytest.skip(f"this kernel runs no programs of 32 bits: {error}")
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    return child


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with start() as made:
        yield made
        made.kill()


def names(target: UserTarget) -> list[str]:
    stack = thread_stack(target, None)
    assert stack.complete, stack.end
    found = [stack.symbolize(target, frame) for frame in stack.frames]
    told = [one[0].name for one in found if one is not None]
    return [name for name in told if name in DOWN]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("words", [(), ("plain",)], ids=["rt_sigreturn", "sigreturn"])
def test_stacks(way: str, words: tuple[str, ...]) -> None:
    with start(*words, flags=WAYS[way]) as child:
        try:
            with open_target(f"pid:{child.pid}") as target:
                assert isinstance(target, UserTarget)
                assert names(target) == DOWN
        finally:
            child.kill()


def test_a_process_against_gdb(child: Child, tmp_path: Path) -> None:
    told = gdb_frames(tmp_path, "-p", str(child.pid), register="esp")
    with open_target(f"pid:{child.pid}") as target:
        assert isinstance(target, UserTarget)
        same_as_gdb(target, told)


def test_words_of_four_bytes(child: Child) -> None:
    place = f"pid:{child.pid}"
    with open_target(place) as target:
        first, pointer = target.symbol("first").address, target.symbol("pointer").address
        assert target.kernel.u32(pointer) == first and target.object("pointer").integer() == first
        assert target.object("first")["next"].deref()["wide"].integer() == 0x1234567890
        assert target.type("struct rec").size == 20 and target.type("char *").size == 4
        assert target.arch.pointer_size == 4
    said = ask(place, "::status; pointer/2K; *pointer=X; pointer/p; first::print; numbers::print; ::sizeof struct rec")
    assert "(32-bit)" in said.out and not said.errors
    assert re.search(rf"pointer:\s+{first:x}\s+[0-9a-f]+", said.out)
    assert re.search(r"pointer:\s+first\s", said.out) and "[ 1, 2, 3, 4 ]" in said.out
    assert ask(place, "second::print wide").out == "wide = 0x1234567890\n"
    told = ask(place, "*pointer::print struct rec next->wide; *pointer::print struct rec next->name").out
    assert re.fullmatch('next->wide = 0x1234567890\nnext->name = .* "second"\n', told)
    # as the compiler lays it out: offsetof(struct rec, wide) == 8, sizeof == 20
    said = ask(place, "::typedef 'struct rec2 { int n; long long wide; long double big; void *p; long l; }';"
                      "::sizeof struct rec2; ::offsetof struct rec2 big; ::sizeof long double; ::print -at struct rec")
    assert [line.split("=")[-1].strip() for line in said.out.splitlines()[:3]] == ["0x20", "0xc", "0xc"], said.out


def test_registers(child: Child) -> None:
    place = f"pid:{child.pid}"
    said = ask(place, "::regs; <eip=a; ::threads; ::dis -n 0 <eip")
    assert "%eip = 0x0" in said.out and "%eflags" in said.out and "rip" not in said.out and not said.errors
    assert "call+" in said.out and "no symbol rip" not in said.out
    (row,) = (json.loads(line) for line in ask(place, "::regs", json=True).out.splitlines())
    assert set(row) == {"tid", *USER_REGS} and int(row["cs"], 16) == 0x23


def test_instructions(child: Child) -> None:
    out = ask(f"pid:{child.pid}", "__restore_rt::dis").out.splitlines()
    assert [line.split(None, 1)[1].split() for line in out] == [["movl", "$0xad,", "%eax"], ["int", "$0x80"]]


def test_auxiliary_vector_and_arguments() -> None:
    with start("one", "two") as child:
        try:
            data = Path(f"/proc/{child.pid}/auxv").read_bytes()
            assert word_size(data) == 4 and word_size(Path("/proc/self/auxv").read_bytes()) == 8
            said = ask(f"pid:{child.pid}", "::args; ::auxv")
            assert "two" in said.out and re.search(r"AT_ENTRY\s+\w+ _start", said.out)
        finally:
            child.kill()


def test_a_register_is_changed() -> None:
    """It is taken out of its system call, and goes on with other code: the end of the program."""
    with start() as child:
        try:
            with open_target(f"pid:{child.pid}", mode="r+", options=Options(pause=True)) as target:
                assert target.control is not None
                with target.question():
                    # exit(3): the instructions int $0x80 of call() with these registers
                    code = target.kernel.read(target.symbol("call").address, target.symbol("call").size)
                    place = target.symbol("call").address + code.index(b"\xcd\x80")
                    for name, value in (("eax", 1), ("ebx", 3), ("eip", place)):
                        target.control.set_register(child.pid, name, value)
                    with pytest.raises(KshellError, match="no register rip"):
                        target.control.set_register(child.pid, "rip", 0)
            assert child.wait(20) == 3
        finally:
            child.kill()


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern.startswith("|") or "/" in pattern:
        pytest.skip(f"cores go elsewhere here (kernel.core_pattern is {pattern})")
    folder = tmp_path_factory.mktemp("narrow")

    def unlimited() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    try:
        done = subprocess.run([str(program(*WAYS["unwind tables"])), "crash"], capture_output=True, cwd=folder,
                              preexec_fn=unlimited, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no core of a program of 32 bits can be made here: {error}")
    assert done.returncode == -signal.SIGSEGV
    found = next(folder.glob("core*"), None)
    if found is None:
        pytest.skip("this machine's kernel writes no core")
    return found


def test_a_core(core: Path, tmp_path: Path) -> None:
    with open_target(str(core)) as target:
        assert isinstance(target, UserTarget)
        assert names(target) == DOWN
        assert target.object("first")["name"].string() == "first" and target.facts.comm == "narrow"
        assert target.facts.strings()[0].split(b"\0")[1:] == [b"crash", b""]
        status = dict(target.facts.status())
        assert status["ended by"] == "SIGSEGV (11) at 0x10" and status["uid"] == str(os.getuid() & 0xFFFF)
        assert any(one.name.endswith("/narrow") for one in target.facts.mappings())
    said = ask(core, "::status; ::regs; $c")
    assert "(32-bit)" in said.out and "<signal>" in said.out and not said.errors
    with open_target(str(core)) as target:
        assert isinstance(target, UserTarget)
        same_as_gdb(target, gdb_frames(tmp_path, str(program(*WAYS["unwind tables"])), str(core), register="esp"))


def test_a_core_cut_anywhere(core: Path, tmp_path: Path) -> None:
    whole = core.read_bytes()
    cut = tmp_path / "cut"
    for size in (60, 80, 200, 500, 1000, 2000, 4096, 5000, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:size])
        try:
            said = ask(cut, "::status; ::regs; $c; first::print; ::mappings; ::args; ::auxv; ::objects")
        except OpenError as error:
            assert str(error)
        else:
            assert "Traceback" not in said.err
    for at in range(0, 52):  # the header
        cut.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            ask(cut, "::status; ::regs; $c; first::print")
        except OpenError:
            continue


def test_a_file() -> None:
    said = ask(program(*WAYS["unwind tables"]), "::status; first::print; pointer/p; deep::dis -n 0; ::nm -m a.out")
    assert "(i386)" in said.out and 'name = ' in said.out and re.search(r"pointer:\s+first\s", said.out)
    assert not said.errors
    made = compiled("-m32", "-c", "-g", "-gz=zlib", name="narrow.o", sources=("narrow.c",))
    with open_target(str(made)) as target:
        assert target.object("first").type.size == 20 and target.source_lines(target.symbol("deep").address)


def test_registers_of_a_note() -> None:
    data = bytes(PRSTATUS_REGS) + b"".join((number + 1).to_bytes(4, "little") for number in range(17)) + bytes(4)
    told = I386().prstatus(data)
    assert told.pop("pid") == 0 and list(told.values()) == list(range(1, 18)) and told["eip"] == 13
    with pytest.raises(FormatError, match="too short"):
        I386().prstatus(data[:100])


def test_a_kernel_of_32_bits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "core"
    notes = note("CORE", 1, bytes(144)) + note("VMCOREINFO", 0, b"OSRELEASE=6.1.0\n")
    head = EHDR32.pack(b"\x7fELF\1\1\1" + bytes(9), 4, 3, 1, 0, EHDR32.size, 0, 0, EHDR32.size, PHDR32.size, 1, 0, 0, 0)
    path.write_bytes(head + PHDR32.pack(4, EHDR32.size + PHDR32.size, 0, 0, len(notes), 0, 0, 0) + notes)
    with pytest.raises(OpenError, match="only 64-bit kernels are read") as raised:
        open_target(str(path))
    assert raised.value.kind == "wordsize"
