"""``kshell FILE``: programs, libraries, object files and kernel modules to look into and to edit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kshell.errors import Fault, KshellError, OpenError
from kshell.target.open import open_target
from kshell.target.user import UserTarget
from tests.guest.image import GuestImage
from tests.guest.packages import kernel, module_bytes
from tests.programs import compiled
from tests.target.asking import ask

PLAIN = ("-g", "-O1")


@pytest.fixture(scope="module")
def program() -> Path:
    return compiled(*PLAIN)


def nm(path: Path) -> dict[str, tuple[int, int]]:
    """Return name -> (address, size) as nm(1) says."""
    lines = subprocess.run(["nm", "-S", str(path)], capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [line.split() for line in lines]
    return {row[3]: (int(row[0], 16), int(row[1], 16)) for row in rows if len(row) == 4}


@pytest.mark.parametrize("flags", [PLAIN, ("-g", "-O1", "-no-pie"), ("-g", "-O1", "-static"), ("-g", "-O1", "-c")])
def test_memory_symbols_and_types(flags: tuple[str, ...]) -> None:
    path = compiled(*flags)
    with open_target(str(path)) as target:
        assert target.kind == "file" and not target.live
        first = target.object("first")
        assert first["name"].string() == "first" and first["wide"].integer() == 0x1234567890
        assert (first["a"].integer(), first["b"].integer(), first["c"].integer()) == (5, 9, -3)
        assert first["color"].enumerator() == "GREEN" and float(first["d"]) == 2.5
        assert [int(n) for n in target.object("numbers")] == [1, 2, 3, 4, 5]
        if "-c" not in flags:
            for name, (address, size) in nm(path).items():
                if name in ("main", "compute", "first", "numbers", "origin"):
                    symbol = target.symbol(name)
                    assert (symbol.address, symbol.size) == (address, size)
                    assert target.symbolize(address + size - 1) == (symbol, size - 1)
        assert target.symbolize(1 << 60) is None
        with pytest.raises(Fault, match="no mapping for address"):
            target.kernel.read(1 << 60, 1)


def test_the_bytes_are_those_of_objdump(program: Path) -> None:
    if shutil.which("objdump") is None:
        pytest.skip("no objdump")
    address, size = nm(program)["compute"]
    done = subprocess.run(["objdump", "-d", f"--start-address={address}", f"--stop-address={address + size}",
                           str(program)], capture_output=True, text=True, check=True)
    words = [line.split("\t")[1] for line in done.stdout.splitlines() if line.count("\t") >= 1]
    with open_target(str(program)) as target:
        assert target.kernel.read(address, size) == bytes.fromhex("".join(words))
        assert target.physical.read(0, 4) == b"\x7fELF", "\\ and @ mean offsets in the file"


def test_what_the_file_leaves_out_is_zero(program: Path) -> None:
    with open_target(str(program)) as target:
        start, end = (target.symbol(name).address for name in ("__bss_start", "_end"))
        assert target.kernel.read(start, end - start) == bytes(end - start)
        assert target.kernel.read(start - 4, end - start + 4)[4:] == bytes(end - start)


def test_source_lines(program: Path) -> None:
    with open_target(str(program)) as target:
        (found, *_) = target.source_lines(target.symbol("main").address)
        assert found.function == "main" and found.file.endswith("rec.c")


def test_writing(program: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copy(program, copy)
    with open_target(str(copy), mode="r+") as target:
        address = target.symbol("numbers").address
        target.kernel.write(address, (77).to_bytes(4, "little"))
        assert target.kernel.read(address, 4) == b"M\0\0\0"
        with pytest.raises(Fault):
            target.kernel.write(target.symbol("_end").address - 1, b"x")
    with open_target(str(copy)) as target:
        assert [int(n) for n in target.object("numbers")] == [77, 2, 3, 4, 5]
    assert len(copy.read_bytes()) == len(program.read_bytes())
    done = subprocess.run([str(copy)], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1:] == ["first", "3"], "and it still runs"


def test_a_written_file_goes_on_being_looked_at(tmp_path: Path) -> None:
    """Also by its offsets, which are another view; but not one that somebody else has written to."""
    copy = tmp_path / "copy"
    shutil.copy(compiled(*PLAIN), copy)
    said = ask(copy, "numbers/W 7; 0\\X; 8\\W 1; numbers/D; 8\\X", mode="r+")
    assert not said.err and "464c457f" in said.out, said.err
    with open_target(str(copy)) as target:
        with copy.open("r+b") as file:
            file.seek(8)
            file.write(b"x")
        for memory in (target.kernel, target.physical):
            with pytest.raises(KshellError, match="written to since it was opened"):
                memory.check()


def test_a_private_copy(program: Path) -> None:
    before = program.read_bytes()
    with open_target(str(program), mode="c") as target:
        address = target.symbol("first").address + 8
        target.kernel.write(address, b"FIRST")
        assert target.object("first")["name"].string() == "FIRST"
    assert program.read_bytes() == before


def test_one_that_runs_is_not_written(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copy(compiled(*PLAIN), copy)
    with subprocess.Popen([str(copy), "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(OpenError, match="it runs"):
            open_target(str(copy), mode="r+")
        child.communicate(b"\n")


def test_in_the_shell(program: Path) -> None:
    said = ask(program, "first::print name color; numbers/D; numbers?D; main::dis -n 0; first=p; $m; ::status")
    assert not said.err
    for words in ('name = [ "first" ]', "color = 5 (GREEN)", "main:", ".data", "(object file)"):
        assert words in said.out
    assert said.out.count("numbers:        1\n") == 2


def test_questions_for_kernels_are_refused(program: Path) -> None:
    for line, words in (("::ps", "no kernel here"), ("::getu 1", "no kernel here"), ("::msgbuf", "no kernel here"),
                        ("1000::kread", "no kernel memory"), ("::regs", "does not run"), ("::auxv", "does not run"),
                        ("main::vtop", "no page tables"), ("::modinfo", "no kernel here"),
                        ("::stacks", "does not run")):
        said = ask(program, line)
        assert words in said.err and not said.out, (line, said.err)


def test_a_kernel_module(guest_61: GuestImage, tmp_path: Path) -> None:
    """Symbols of the module as nm(1) has them; its BTF is split, and its base is not here."""
    path = kernel("6.1").module("zram")
    assert path is not None
    (tmp_path / "zram.ko").write_bytes(module_bytes(path))
    with open_target(str(tmp_path / "zram.ko")) as target:
        assert isinstance(target, UserTarget) and "kernel module" in target.description
        text = target.symbol("zram_submit_bio")
        assert text.size > 100 and target.symbolize(text.address + 5) == (text, 5)
        assert any(one.name == ".text" for one in target.facts.mappings())


def test_files_that_are_damaged(program: Path, tmp_path: Path) -> None:
    whole, path = program.read_bytes(), tmp_path / "damaged"
    for at in (*range(4, 64), *range(len(whole) - 700, len(whole), 11), *range(64, 700, 13)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x41
        path.write_bytes(damaged)
        try:
            with open_target(str(path)) as target:
                target.symbols.at(0x1234)
                target.kernel.read_upto(0x1000, 64)
                assert isinstance(target, UserTarget)
                target.facts.mappings()
                for name in ("first", "main"):
                    try:
                        target.object(name)
                    except KshellError:
                        continue
        except KshellError:
            continue


def test_as_a_vmlinux_beside_itself(program: Path) -> None:
    with pytest.raises(OpenError, match="not a core"):
        open_target(str(program), str(program))
