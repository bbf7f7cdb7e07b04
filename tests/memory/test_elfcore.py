"""ELF cores: what is held, what is not and why, damaged headers, and files that change while they are open."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kshell.errors import Fault, FormatError, OpenError, Reason
from kshell.memory.elfcore import ElfCore, open_elfcore
from kshell.memory.model import Range
from tests.memory.cores import PAGE, Load, core, note

KERNEL = 0xFFFF_8880_0000_0000
VMCOREINFO = note("VMCOREINFO", 0, b"OSRELEASE=6.1\n")
Make = Callable[..., ElfCore]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that writes bytes to a file and opens it."""
    def made(data: bytes, mode: str = "r") -> ElfCore:
        path = tmp_path / "core"
        path.write_bytes(data)
        return open_elfcore(str(path), mode)
    return made


def reason(memory: ElfCore, address: int, size: int = 1) -> tuple[Reason, int]:
    """Return why a read fails, and how many bytes came before."""
    with pytest.raises(Fault) as caught:
        memory.read(address, size)
    assert caught.value.done == len(caught.value.partial)
    assert caught.value.address == address + caught.value.done
    return caught.value.reason, caught.value.done


def test_reads_what_is_held(make: Make) -> None:
    memory = make(core([Load(0x1000, b"abcd"), Load(0x9000, b"wxyz")], VMCOREINFO))
    assert memory.read(0x1001, 2) == b"bc"
    assert memory.read(0x9000, 4) == b"wxyz"
    assert memory.read(0x5000, 0) == b""
    assert (memory.space, memory.machine, memory.complete, memory.is_user_core) == ("physical", 62, None, False)
    assert [(n.name, n.type, n.desc) for n in memory.notes] == [("VMCOREINFO", 0, b"OSRELEASE=6.1\n")]


def test_reads_across_segments_that_adjoin(make: Make) -> None:
    memory = make(core([Load(0x2000, b"B" * PAGE), Load(0x1000, b"A" * PAGE)]))
    assert memory.read(0x1FFE, 4) == b"AABB"
    assert reason(memory, 0x2FFF, 2) == (Reason.OUTSIDE, 1)


def test_left_out_is_not_zero(make: Make) -> None:
    memory = make(core([Load(0x1000, b"abcd", memsz=PAGE), Load(0x3000, b"", memsz=PAGE)]))
    assert reason(memory, 0x1002, 8) == (Reason.EXCLUDED, 2)
    assert reason(memory, 0x3000) == (Reason.EXCLUDED, 0)
    assert reason(memory, 0x2000) == (Reason.OUTSIDE, 0)
    assert list(memory.ranges()) == [
        Range(0x1000, 0x1004), Range(0x1004, 0x2000, False, Reason.EXCLUDED),
        Range(0x3000, 0x4000, False, Reason.EXCLUDED),
    ]


def test_the_file_ends_early(make: Make) -> None:
    memory = make(core([Load(0x1000, b"abcd", filesz=PAGE), Load(0x8000, b"", filesz=PAGE)]))
    assert reason(memory, 0x1000, 8) == (Reason.TRUNCATED, 4)
    assert reason(memory, 0x8000) == (Reason.TRUNCATED, 0)
    assert memory.complete is not None
    assert "8188 bytes of memory" in memory.complete


def test_overlap_held_wins_then_the_first(make: Make) -> None:
    memory = make(core([
        Load(0x1000, b"", memsz=3 * PAGE), Load(0x2000, b"1" * PAGE),
        Load(0x1800, b"2" * PAGE), Load(0x2000, b"3" * 99),
    ]))
    assert memory.read(0x1800, PAGE) == b"2" * 0x800 + b"1" * 0x800
    assert reason(memory, 0x1000) == (Reason.EXCLUDED, 0)
    assert reason(memory, 0x3000) == (Reason.EXCLUDED, 0)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12), st.integers(0, 12)), max_size=8),
       st.integers(0, 70), st.integers(0, 30))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reads_are_those_of_a_model(
    tmp_path: Path, loads: list[tuple[int, int, int]], address: int, size: int
) -> None:
    held: dict[int, int] = {}
    absent: set[int] = set()
    segments = []
    for number, (start, count, more) in enumerate(loads):
        segments.append(Load(start + 1, bytes([number + 1]) * count, memsz=count + more))
        absent |= set(range(start + 1 + count, start + 1 + count + more))
        for at in range(start + 1, start + 1 + count):
            held.setdefault(at, number + 1)
    path = tmp_path / "core"
    path.write_bytes(core(segments))
    with open_elfcore(str(path)) as memory:
        expected = bytearray()
        while len(expected) < size and address + len(expected) in held:
            expected.append(held[address + len(expected)])
        data, fault = memory.read_upto(address, size)
        assert data == bytes(expected)
        buffer = bytearray(size)
        assert (memory.read_into(address, memoryview(buffer)) is None) == (fault is None)
        assert buffer[: len(data)] == data
        if fault is not None:
            stop = address + len(expected)
            assert (fault.address, fault.partial) == (stop, data)
            assert fault.reason is (Reason.EXCLUDED if stop in absent else Reason.OUTSIDE)
        rows = list(range(75))
        for width in (1, 2, 8):
            found = memory.gather(rows, width)
            for row in rows:
                piece, why = memory.read_upto(row, width)
                assert bool(found.ok[row]) == (why is None)
                assert why is not None or found.data[row].tobytes() == piece


def test_gather_in_any_order_far_apart(make: Make) -> None:
    data = os.urandom(64 * PAGE)
    memory = make(core([Load(0x10000, data)]))
    places = [(number * 7919) % (len(data) - 24) for number in range(500)] + [0, 0, len(data) - 24]
    for size in (3, 4, 8, 24):
        found = memory.gather([0x10000 + place for place in places], size)
        assert found.ok.all()
        assert [row.tobytes() for row in found.data] == [data[place : place + size] for place in places]
    assert memory.gather([1 << 63, (1 << 64) - 1, 0x10000], 8).ok.tolist() == [False, False, True]
    assert memory.gather([], 8).data.shape == (0, 8)


def test_many_segments_by_extended_numbering(make: Make) -> None:
    count = 0x10000
    memory = make(core([Load(2 * PAGE * i, b"%08d" % i) for i in range(count)], extended=True))
    for number in (0, 1, 40000, count - 1):
        assert memory.read(2 * PAGE * number, 8) == b"%08d" % number


def test_truncated_at_every_header_byte(tmp_path: Path) -> None:
    """It opens or says what is missing; what it then shows is right."""
    whole = core([Load(0x1000, b"abcd"), Load(0x2000, b"efgh")], VMCOREINFO)
    path = tmp_path / "core"
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        try:
            memory = open_elfcore(str(path))
        except OpenError as error:
            assert size < 64 + 56, f"{size} bytes: {error}"
            assert error.kind == ("header" if size >= 4 else "format")
            continue
        with memory:
            assert (memory.complete is None) == (size == len(whole))
            for address, data in ((0x1000, b"abcd"), (0x2000, b"efgh")):
                found, fault = memory.read_upto(address, 4)
                assert data.startswith(found)
                assert fault is None or fault.reason in (Reason.TRUNCATED, Reason.OUTSIDE)


@pytest.mark.parametrize("data, kind, words", [
    (b"", "format", "not an ELF file"),
    (b"\x7fELF", "header", "ends inside the ELF header"),
    (core([], ident=b"\x01\x01\x01"), "wordsize", "32-bit"),
    (core([], ident=b"\x02\x02\x01"), "wordsize", "big-endian"),
    (core([], machine=183), "unsupported", "aarch64"),
    (core([], machine=243), "unsupported", "riscv"),
    (core([], kind=2), "format", "not a core"),
])
def test_what_is_not_read_is_named(make: Make, data: bytes, kind: str, words: str) -> None:
    with pytest.raises(OpenError) as caught:
        make(data)
    assert (caught.value.kind, words in str(caught.value)) == (kind, True)


def test_opening_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OpenError) as caught:
        open_elfcore(str(tmp_path / "none"))
    assert caught.value.kind == "missing"
    with pytest.raises(OpenError, match="directory"):
        open_elfcore(str(tmp_path))


def test_user_core(make: Make) -> None:
    memory = make(core([Load(0, b"code", vaddr=0x400000), Load(0, b"heap", vaddr=0x7F00_0000_0000)],
                       note("CORE", 3, bytes(136)) + note("CORE", 6, bytes(16))))
    assert memory.is_user_core
    assert memory.virtual.space == "user"
    assert memory.virtual.read(0x7F00_0000_0000, 4) == b"heap"
    assert list(memory.ranges()) == []
    with pytest.raises(Fault) as caught:
        memory.virtual.read(0x1234, 1)
    assert caught.value.reason is Reason.NOT_MAPPED


def test_kernel_virtual_segments(make: Make) -> None:
    memory = make(core([Load(0x1000, b"abcd", vaddr=KERNEL + 0x1000), Load(0x1000, b"abcd")], VMCOREINFO))
    assert not memory.is_user_core
    assert memory.virtual.read(KERNEL + 0x1002, 2) == b"cd"
    assert [r.start for r in memory.virtual.ranges()] == [KERNEL + 0x1000]


@pytest.mark.parametrize("paddr, starts", [(0, []), ((1 << 64) - 1, [0x1000])])
def test_segments_without_physical_address(make: Make, paddr: int, starts: list[int]) -> None:
    """/proc/kcore: all 0 before Linux 4.11; -1 for virtual memory since."""
    other = 0x1000 if paddr else 0
    memory = make(core([Load(other, b"abcd", vaddr=KERNEL), Load(paddr, b"abcd", vaddr=KERNEL + 0x5000)], VMCOREINFO))
    assert [r.start for r in memory.ranges()] == starts
    assert memory.virtual.read(KERNEL + 0x5000, 4) == b"abcd"


def test_windows_stay_within_what_is_held(make: Make) -> None:
    memory = make(core([Load(0x1800, b"x" * PAGE, memsz=2 * PAGE)]))
    window = memory.window(0x1900)
    assert window is not None
    assert (window.start, window.end, bytes(window.view)) == (0x1800, 0x2000, b"x" * 0x800)
    window = memory.window(0x2001)
    assert window is not None
    assert (window.start, window.end) == (0x2000, 0x2800)
    assert memory.window(0x2800) is None
    assert memory.window(0) is None


def test_writes_go_into_the_file(make: Make) -> None:
    memory = make(core([Load(0x1000, b"abcd", memsz=8)]), "r+")
    memory.write(0x1001, b"XY")
    assert memory.read(0x1000, 4) == b"aXYd"
    with pytest.raises(Fault) as caught:
        memory.write(0x1003, b"123")
    assert (caught.value.reason, caught.value.done, caught.value.address) == (Reason.EXCLUDED, 1, 0x1004)
    memory.check()
    memory.close()
    assert open_elfcore(memory.path).read(0x1000, 4) == b"aXY1"


def test_read_only(make: Make) -> None:
    with pytest.raises(Fault) as caught:
        make(core([Load(0x1000, b"abcd")])).write(0x1000, b"x")
    assert caught.value.reason is Reason.READ_ONLY


CUT = """
import os, sys
from kshell.errors import Fault
from kshell.memory.elfcore import open_elfcore
memory = open_elfcore(sys.argv[1], "r+")
window = memory.window(0x104000)
memory.gather([0x104000], 8)
os.truncate(sys.argv[1], 8192)
print(len(window.view), bytes(window.view[:2]))
for move in (lambda: memory.read(0x104000, 8), lambda: memory.write(0x104000, b"12"), lambda: memory.view(0x104000, 9)):
    try:
        move()
    except Fault as fault:
        print(fault.reason.name, fault.done)
print(memory.gather([0x100000, 0x104000], 8).ok.tolist(), memory.window(0x104000))
"""


def test_a_file_cut_while_open_is_an_error_and_no_signal(tmp_path: Path) -> None:
    path = tmp_path / "core"
    path.write_bytes(core([Load(0x100000, b"z" * 16 * PAGE)]))
    run = subprocess.run([sys.executable, "-c", CUT, str(path)], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == [
        "4096 b'zz'", "TRUNCATED 0", "TRUNCATED 0", "TRUNCATED 0", "[True, False] None",
    ]


def test_check_tells_a_changed_file(make: Make) -> None:
    memory = make(core([Load(0x1000, b"abcd" * 4)]))
    memory.check()
    with Path(memory.path).open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"1234")
    os.utime(memory.path, ns=(1, 1))
    with pytest.raises(FormatError, match="was written to"):
        memory.check()
    os.truncate(memory.path, 100)
    with pytest.raises(FormatError, match="became shorter"):
        memory.check()


def test_a_removed_file_is_still_read(make: Make) -> None:
    memory = make(core([Load(0x1000, b"abcd")]))
    Path(memory.path).unlink()
    memory.check()
    assert memory.read(0x1000, 4) == b"abcd"


def test_closed_is_an_error(make: Make) -> None:
    memory = make(core([Load(0x1000, b"abcd", vaddr=KERNEL)]))
    memory.close()
    memory.close()
    for space, address in ((memory, 0x1000), (memory.virtual, KERNEL)):
        with pytest.raises(Fault):
            space.read(address, 4)


def test_notes_are_bounded(make: Make) -> None:
    cut = note("CORE", 1, b"12345678")[:-4] + b"\xff" * 3
    assert [n.desc for n in make(core([], note("A", 1, b"x") + cut)).notes] == [b"x"]
    assert make(core([], b"\xff" * 64)).notes == []
    assert make(core([], bytes(1 << 16))).notes == []


def test_nothing_of_a_live_core_is_kept(tmp_path: Path) -> None:
    """As /proc/kcore: no windows, no size to be cut at, no complaint that it changes."""
    path = tmp_path / "kcore"
    path.write_bytes(core([Load(0x1000, b"abcd", filesz=1 << 40)], VMCOREINFO))
    with open_elfcore(str(path), live=True) as memory:
        assert (memory.window(0x1000), memory.complete) == (None, None)
        assert list(memory.ranges()) == [Range(0x1000, 0x1000 + (1 << 40))]
        os.truncate(path, path.stat().st_size - 2)
        memory.check()
        assert memory.read(0x1000, 2) == b"ab"
        assert reason(memory, 0x1000, 4) == (Reason.TRUNCATED, 2)
