"""Damaged, cut and foreign files through the front door: a named error or right answers, soon; never anything else."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kshell.errors import Fault, KshellError, OpenError, Reason, SymbolNotFoundError, TypeNotFoundError
from kshell.memory.elfcore import EHDR, PHDR
from kshell.target.open import open_target
from kshell.target.target import Target
from kshell.target.user import UserTarget
from tests.memory.cores import Load, core, note
from tests.target import tiny
from tests.target.conftest import Guest

PAGE = 4096
HEADERS = EHDR.size + 3 * PHDR.size
SOON = 5.0  # seconds that nothing may take, on a loaded machine


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSHELL_CACHE", "off")


def _mappings(target: Target) -> Iterable[tuple[object, ...]]:
    """Return what is mapped; a flipped bit makes a program of a dump, which has no page tables."""
    if isinstance(target, UserTarget):
        return target.facts.mappings()
    return target.kernel.mappings()  # type: ignore[attr-defined,no-any-return]


QUESTIONS: tuple[Callable[[Target], object], ...] = (
    lambda t: t.kernel.read(tiny.START + tiny.GREETING, 12),
    lambda t: t.physical.read(tiny.GREETING, 12),
    lambda t: t.symbol("init_task"),
    lambda t: t.symbolize(tiny.START + tiny.GREETING + 3),
    lambda t: [tuple(s) for s in islice(t.symbols, 100)],
    lambda t: t.object("init_task")["comm"].string(),
    lambda t: t.type("struct task_struct").size,
    lambda t: list(islice(t.types.names(), 100)),
    lambda t: [tuple(m) for m in islice(_mappings(t), 1000)],
    lambda t: t.kernel.chase(tiny.TASKS) if t.kind == "kernel" else None,  # type: ignore[attr-defined]
    lambda t: [row.tobytes() for row, ok in zip(*t.kernel.gather([tiny.START + tiny.GREETING], 12), strict=True) if ok],
    lambda t: [tuple(c) for c in t.cpus],
    lambda t: t.description,
    lambda t: list(islice(t.physical.ranges(), 100)),
)


def ask(path: Path) -> list[object]:
    """Return the answers to QUESTIONS, errors by their class; raises what opening raises."""
    answers: list[object] = []
    with open_target(str(path)) as target:
        for question in QUESTIONS:
            try:
                answers.append(question(target))
            except KshellError as error:
                assert str(error) and "\n" not in str(error)
                answers.append(type(error))
    return answers


def soon(path: Path) -> list[object] | None:
    """Return the answers, None when it cannot be opened, for which it must say why; and no later than SOON."""
    begun = time.monotonic()
    try:
        return ask(path)
    except OpenError as error:
        assert str(path) in str(error) and error.kind
        return None
    finally:
        assert time.monotonic() - begun < SOON


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "dump"
    path.write_bytes(tiny.image())
    return path


def test_the_tiny_kernel_answers(whole: Path) -> None:
    answers = ask(whole)
    assert answers[:2] == [b"hello, world"] * 2
    assert tuple(answers[2])[:2] == ("init_task", tiny.START + tiny.INIT_TASK)  # type: ignore[arg-type]
    assert answers[5] == "swapper/0" and answers[6] == 48 and answers[9] == []
    assert not any(isinstance(answer, type) for answer in answers)
    with open_target(str(whole)) as target:
        assert target.release == "6.4.0-tiny"
        assert target.object("init_task")["pid"].integer() == 0


# -- cut ---------------------------------------------------------------------------------------------------------------


def test_cut_at_every_byte_of_the_headers_and_every_512_behind(whole: Path) -> None:
    data = whole.read_bytes()
    full = ask(whole)
    answered = 0
    for size in [*range(0, HEADERS + 40), *range(HEADERS + 40, len(data), 512)]:
        whole.write_bytes(data[:size])
        answers = soon(whole)
        if answers is None:
            continue
        answered += 1
        for got, right in zip(answers[:11], full[:11], strict=True):
            if isinstance(right, list) and isinstance(got, list):
                assert got == right[: len(got)]
            else:
                assert got == right or (isinstance(got, type) and issubclass(got, KshellError)) or got is None
        assert "ends early" in _missing(whole)
    assert answered > 20, "with its page tables held, a cut dump opens"


def _missing(path: Path) -> str:
    with open_target(str(path)) as target:
        return target.findings.get("missing", "")


@pytest.mark.parametrize("size, kind, words", [
    (0, "header", "empty"), (1, "format", "not a kernel core"), (16, "header", "ELF header"),
    (63, "header", "ELF header"), (64, "header", "program headers"), (64 + 56, "symbols", "2 of 3 program headers"),
    (HEADERS, "symbols", "notes"), (HEADERS + 100, "symbols", "notes"),
])
def test_where_a_cut_file_ends_is_told(whole: Path, size: int, kind: str, words: str) -> None:
    whole.write_bytes(whole.read_bytes()[:size])
    with pytest.raises(OpenError) as caught:
        open_target(str(whole))
    assert (caught.value.kind, words in str(caught.value)) == (kind, True), str(caught.value)


def test_page_tables_in_the_missing_part_are_told(whole: Path) -> None:
    whole.write_bytes(whole.read_bytes()[: HEADERS + 2000])
    with pytest.raises(OpenError, match="page tables are in the part of the file that is missing") as caught:
        open_target(str(whole))
    assert caught.value.hint


# -- flipped -----------------------------------------------------------------------------------------------------------


def test_every_bit_of_the_headers_flipped(whole: Path) -> None:
    data = whole.read_bytes()
    for at in range(HEADERS):
        for bit in (at % 8, 7 - at % 8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            whole.write_bytes(damaged)
            soon(whole)


def test_every_byte_of_the_notes_and_of_page_table_entries_flipped(whole: Path) -> None:
    data = whole.read_bytes()
    start = HEADERS
    end = data.index(b"\n", data.index(b"KERNELOFFSET"))
    base = len(data) - len(tiny.memory()[0].data) - len(tiny.memory()[1].data)
    places = [*range(start, start + 40), *range(start + 350, end, 3)]
    places += [base + at + byte for at in (tiny.ROOT + 8 * 511, tiny.UPPER + 8 * 510, tiny.MIDDLE) for byte in range(8)]
    for at in places:
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        whole.write_bytes(damaged)
        soon(whole)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2**20), st.integers(1, 255)), min_size=1, max_size=6))
def test_bytes_flipped_anywhere(whole: Path, flips: list[tuple[int, int]]) -> None:
    data = bytearray(tiny.image())
    for at, mask in flips:
        data[at % len(data)] ^= mask
    whole.write_bytes(data)
    soon(whole)


@pytest.mark.parametrize("key, value", [
    ("NUMBER(phys_base)", str(1 << 70)), ("NUMBER(phys_base)", str(-(1 << 40))), ("NUMBER(phys_base)", "x"),
    ("NUMBER(phys_base)", "9" * 5000), ("SYMBOL(swapper_pg_dir)", "0"), ("SYMBOL(swapper_pg_dir)", "f" * 40),
    ("SYMBOL(swapper_pg_dir)", "-1"), ("NUMBER(sme_mask)", str((1 << 64) - 1)), ("NUMBER(sme_mask)", "-1"),
    ("NUMBER(sme_mask)", str(0xF_FFFF_FFFF_F000)), ("NUMBER(pgtable_l5_enabled)", "1"), ("PAGESIZE", "65536"),
    ("SYMBOL(kallsyms_names)", "0"), ("SYMBOL(kallsyms_names)", "f" * 16), ("SYMBOL(kallsyms_token_table)", "1" * 30),
    ("SYMBOL(kallsyms_offsets)", "-5"), ("SYMBOL(_stext)", "0"), ("KERNELOFFSET", "zz"), ("OSRELEASE", "\x1b[31m"),
])
def test_impossible_values_in_vmcoreinfo(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "dump"
    path.write_bytes(tiny.image(**{key: value}))
    begun = time.monotonic()
    try:
        answers = ask(path)
    except KshellError as error:
        assert str(error)
    else:
        assert tiny.START and b"hello, world" in answers[:2]
    assert time.monotonic() - begun < SOON


@pytest.mark.parametrize("key, words", [
    ("OSRELEASE", "without VMCOREINFO"), ("SYMBOL(swapper_pg_dir)", "SYMBOL(swapper_pg_dir)"),
    ("NUMBER(phys_base)", "NUMBER(phys_base)"),
])
def test_missing_keys_are_named(tmp_path: Path, key: str, words: str) -> None:
    path = tmp_path / "dump"
    path.write_bytes(tiny.image(**{key: ""}))
    with pytest.raises(OpenError, match="VMCOREINFO") as caught:
        open_target(str(path))
    assert words in str(caught.value)


def test_another_kernels_vmcoreinfo(tmp_path: Path) -> None:
    """A second note, of the kernel that saved the dump: each leads somewhere else, one to itself."""
    path = tmp_path / "dump"
    wrong = tiny.vmcoreinfo(**{"NUMBER(phys_base)": str(3 * PAGE)})
    path.write_bytes(core(tiny.memory(), note("VMCOREINFO", 0, wrong)))
    with pytest.raises(OpenError, match="page tables"):
        open_target(str(path))
    path.write_bytes(core(tiny.memory(), note("VMCOREINFO", 0, b"") + note("VMCOREINFO", 0, tiny.vmcoreinfo())))
    assert ask(path)[0] == b"hello, world"


def test_page_tables_of_another_kernel(tmp_path: Path) -> None:
    """They are page tables and map the image, but not themselves: another kernel's, or an old copy."""
    loads = tiny.memory()
    low = bytearray(loads[0].data) + bytes(4 * PAGE)
    low[tiny.ROOT + 8 * PAGE : tiny.ROOT + 9 * PAGE] = low[tiny.ROOT : tiny.ROOT + PAGE]
    loads[0] = loads[0]._replace(data=bytes(low))
    path = tmp_path / "dump"
    path.write_bytes(core(loads, note("VMCOREINFO", 0, tiny.vmcoreinfo(**{"NUMBER(phys_base)": str(8 * PAGE)}))))
    with pytest.raises(OpenError, match="do not lead back to themselves") as caught:
        open_target(str(path))
    assert "two different kernels" in (caught.value.hint or "")


# -- what costs only its own answers -----------------------------------------------------------------------------------


def test_damaged_symbols_leave_memory_and_types_leave_symbols(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    path.write_bytes(tiny.image(**{"SYMBOL(kallsyms_names)": ""}))
    with open_target(str(path)) as target:
        assert target.kernel.read(tiny.START + tiny.GREETING, 5) == b"hello"
        with pytest.raises(SymbolNotFoundError):
            target.symbol("init_task")
        assert "kallsyms_names" in target.findings["symbols"]
    loads = tiny.memory()
    low = bytearray(loads[0].data)
    low[tiny.BTF] ^= 1
    loads[0] = loads[0]._replace(data=bytes(low))
    path.write_bytes(core(loads, note("VMCOREINFO", 0, tiny.vmcoreinfo())))
    with open_target(str(path)) as target:
        assert target.symbol("init_task").address == tiny.START + tiny.INIT_TASK
        with pytest.raises(TypeNotFoundError) as caught:
            target.type("struct task_struct")
        assert "not BTF" in (caught.value.hint or "") and "not BTF" in target.findings["types"]


def test_damaged_cpu_notes_leave_the_cpu_empty(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    notes = note("CORE", 1, b"short") + note("CORE", 1, tiny.prstatus(7)) + note("VMCOREINFO", 0, tiny.vmcoreinfo())
    path.write_bytes(core(tiny.memory(), notes))
    with open_target(str(path)) as target:
        first, second = target.cpus
        assert (first.number, first.registers, first.pid) == (0, {}, None)
        assert (second.number, second.pid, second.registers["rip"]) == (1, 7, tiny.START + 0x40)


def test_excluded_pages_stay_apart_from_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    loads = [*tiny.memory(), Load(0x10_0000, b"", memsz=PAGE)]
    path.write_bytes(core(loads, note("VMCOREINFO", 0, tiny.vmcoreinfo())))
    with open_target(str(path)) as target:
        for address, reason in ((0x10_0000, Reason.EXCLUDED), (0x10_1000, Reason.OUTSIDE)):
            for space, base in ((target.physical, 0), (target.kernel, tiny.START)):
                with pytest.raises(Fault) as caught:
                    space.read(base + address, 1)
                assert caught.value.reason is reason


# -- what is no kernel dump --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data, kind, words", [
    (b"hello, world\n" * 100, "format", "not a kernel core file"),
    (b"KDUMP   " + bytes(100), "header", "ends inside its header"),
    (b"makedumpfile\0" + bytes(100), "header", "flattened"),
    (b"EMiL" + bytes(100), "header", "LiME"),
    (b"PAGEDU64" + bytes(100), "unsupported", "Windows"),
    (b"\x28\xb5\x2f\xfd" + bytes(100), "unsupported", "zstd"),
    (core([], ident=b"\x01\x01\x01"), "wordsize", "32-bit"),
    (core([], ident=b"\x02\x02\x01"), "wordsize", "big-endian"),
    (core([], machine=183), "unsupported", "aarch64"),
    (core([], machine=0x1234), "unsupported", "4660"),
    (core([], kind=0), "format", "not a core"),
    (core([], kind=0xFE00), "format", "not a core"),
    (core([Load(0, b"x")]), "symbols", "without VMCOREINFO"),
])
def test_foreign_files_are_named(tmp_path: Path, data: bytes, kind: str, words: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(OpenError) as caught:
        open_target(str(path))
    assert caught.value.kind == kind and words in str(caught.value), str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("data, kind", [
    (core([], kind=1), "file"), (core([Load(0, b"x")], kind=2), "file"), (core([Load(0, b"x")], kind=3), "file"),
    (core([Load(0, b"x")], note("CORE", 1, bytes(336)) + note("CORE", 6, bytes(32))), "core"),
])
def test_other_elf_files_are_not_taken_for_kernels(tmp_path: Path, data: bytes, kind: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with open_target(str(path)) as target:
        assert target.kind == kind
    answers = soon(path)
    assert answers is not None and not any(isinstance(answer, int) for answer in answers)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, kind in (("nothing", "missing"), ("", "format"), ("fifo", "format"), ("nothing/below", "missing")):
        with pytest.raises(OpenError) as caught:
            open_target(str(tmp_path / name))
        assert caught.value.kind == kind
    with pytest.raises(OpenError):
        open_target("/dev/null")


def test_a_dump_that_may_not_be_read(tmp_path: Path, whole: Path) -> None:
    script = f"""
import os, sys
from kshell.errors import OpenError
from kshell.target.open import open_target
os.chmod({str(whole)!r}, 0)
if os.geteuid() == 0:
    os.setgid(12345); os.setuid(12345)
for mode in ("r", "r+"):
    try:
        open_target({str(whole)!r}, mode=mode)
    except OpenError as error:
        assert (error.kind, "sudo" in (error.hint or "")) == ("permission", True), (error, error.hint)
        print("refused")
"""
    for folder in tmp_path.parents:
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o111)
    tmp_path.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.stdout == "refused\nrefused\n", done.stderr


# -- modes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_where_writes_go(whole: Path, mode: str) -> None:
    before = whole.read_bytes()
    with open_target(str(whole), mode=mode) as target:
        if mode == "r":
            with pytest.raises(Fault) as caught:
                target.kernel.write(tiny.START + tiny.GREETING, b"HELLO")
            assert (caught.value.reason, caught.value.verb) == (Reason.READ_ONLY, "write")
            assert not target.writable
        else:
            target.kernel.write(tiny.START + tiny.GREETING, b"HELLO")
            assert target.kernel.read(tiny.START + tiny.GREETING, 12) == b"HELLO, world"
            assert target.physical.read(tiny.GREETING, 12) == b"HELLO, world"
            assert target.symbol("greeting").address == tiny.START + tiny.GREETING
    after = whole.read_bytes()
    assert after == (before.replace(b"hello, world", b"HELLO, world") if mode == "r+" else before)


def test_a_dump_that_vanishes_or_shrinks_while_it_is_open(whole: Path) -> None:
    """In a process of its own: touching a mapping of a file that was cut would end it with SIGBUS."""
    script = f"""
import os
from kshell.errors import KshellError
from kshell.target.open import open_target
from tests.target.test_damage import QUESTIONS
path = {str(whole)!r}
with open_target(path) as target:
    assert all(question(target) is not None for question in QUESTIONS)
    os.truncate(path, 5000)
    for question in QUESTIONS:
        try:
            question(target)
        except KshellError:
            pass
    try:
        target.physical.read(0x4100, 12)
    except KshellError as error:
        assert "shorter" in str(error), error
        print("told")
    try:
        target.physical.check()
    except KshellError as error:
        assert "shorter" in str(error), error
        print("checked")
    os.unlink(path)
    target.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "KSHELL_CACHE": "off"})
    assert (done.returncode, done.stdout) == (0, "told\nchecked\n"), done.stderr


# -- real dumps, cut ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guest", ["6.1"], indirect=True)
def test_a_real_dump_cut_short(guest: Guest, tmp_path: Path) -> None:
    """A copy that stopped: what is there is read right, what is not is named."""
    path = tmp_path / "cut"
    size = guest.path.stat().st_size
    opened = []
    shutil.copyfile(guest.path, path)
    for part in (0.95, 0.5, 0.1, 0.0001):
        os.truncate(path, int(size * part) & -PAGE)
        begun = time.monotonic()
        try:
            with open_target(str(path)) as target:
                opened.append(part)
                assert "ends early" in target.findings["missing"]
                for line in guest.oracle.kallsyms()[:: 20_000]:
                    data, fault = target.kernel.read_upto(line.address, 64)
                    right, _ = guest.target.kernel.read_upto(line.address, 64)
                    assert data == right[: len(data)]
                    assert fault is None or fault.reason in (Reason.TRUNCATED, Reason.NOT_MAPPED)
        except OpenError as error:
            assert "missing" in str(error)
        assert time.monotonic() - begun < 2 * SOON
    assert 0.95 in opened


@pytest.mark.parametrize("guest", ["6.1", "kdump"], indirect=True)
def test_headers_of_a_real_dump_flipped(guest: Guest, tmp_path: Path) -> None:
    """The first 4 KiB of a real file, and the rest a hole in a sparse file: the headers are what is looked at.

    Not all of a large file's size: each time all of it is searched for a kernel.
    """
    path = tmp_path / "flipped"
    head = guest.path.open("rb").read(PAGE)
    size = min(guest.path.stat().st_size, 32 << 20)
    count = struct.unpack_from("<H", head, 56)[0]
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
    with path.open("r+b", buffering=0) as file:
        for at in range(0, EHDR.size + count * PHDR.size):
            os.pwrite(file.fileno(), bytes((head[at] ^ 1 << at % 8,)), at)
            soon(path)
            os.pwrite(file.fileno(), head[at : at + 1], at)
