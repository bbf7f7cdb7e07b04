"""Where a guest's RAM is, from what QEMU tells; and a memory file read and written in pieces."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kshell.errors import Fault, FormatError, Reason
from kshell.memory.guestram import GuestRam, RamPiece, likely_splits, parse_mtree, split_ram
from kshell.memory.qmpmem import parse_words

GIB = 1 << 30
MTREE = """\
FlatView #0
 AS "cpu-smm-0", root: memory
 Root memory region: memory
  0000000000000000-00000000000bffff (prio 0, ram): smram
FlatView #1
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-00000000000c2fff (prio 0, ram): pc.ram KVM
  00000000000c3000-00000000000e7fff (prio 0, rom): pc.ram @00000000000c3000 KVM
  00000000000e8000-00000000bfffffff (prio 0, ram): pc.ram @00000000000e8000
  00000000fec00000-00000000fec00fff (prio 0, i/o): ioapic
  00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios
  0000000100000000-000000013fffffff (prio 0, ram): a name with (brackets) @00000000c0000000

"""


def test_mtree() -> None:
    pieces = parse_mtree(MTREE.replace("\n", "\r\n"))  # as the monitor ends lines
    assert pieces == [
        RamPiece(0, 0xC3000, "pc.ram", 0, True), RamPiece(0xC3000, 0xE8000, "pc.ram", 0xC3000, False),
        RamPiece(0xE8000, 3 * GIB, "pc.ram", 0xE8000, True),
        RamPiece(0xFFFC0000, 4 * GIB, "pc.bios", 0, False),
        RamPiece(4 * GIB, 5 * GIB, "a name with (brackets)", 3 * GIB, True)]


@pytest.mark.parametrize("text", ["", "unknown command", MTREE.replace('"memory"', '"other"')])
def test_mtree_of_something_else(text: str) -> None:
    with pytest.raises(FormatError, match="not understood"):
        parse_mtree(text)


@pytest.mark.parametrize("size, splits", [
    (256 << 20, [256 << 20]), (3 * GIB, [3 * GIB, 2 * GIB]), (0xE000_0000, [3 * GIB, 2 * GIB]),
    (8 * GIB, [3 * GIB, 2 * GIB]), (0xB000_0000, [0xB000_0000, 2 * GIB]),
])
def test_where_ram_is_cut(size: int, splits: list[int]) -> None:
    assert likely_splits(size) == splits


def test_ram_above_the_hole() -> None:
    assert split_ram(5 * GIB, 3 * GIB) == [
        RamPiece(0, 3 * GIB, "ram", 0, True), RamPiece(4 * GIB, 6 * GIB, "ram", 3 * GIB, True)]
    assert split_ram(GIB, 3 * GIB) == [RamPiece(0, GIB, "ram", 0, True)]


def test_words() -> None:
    text = "0000000000001000: 0x0807060504030201 0x1817161514131211\r\n0000000000001010: 0x0000000000000000\r\n"
    assert parse_words(text, 0x1000, 24)[:9] == bytes([1, 2, 3, 4, 5, 6, 7, 8, 0x11])
    for size, at in ((32, 0x1000), (24, 0x2000)):
        with pytest.raises(FormatError):
            parse_words(text, at, size)
    with pytest.raises(FormatError, match="Cannot access"):
        parse_words("0000000000001000: Cannot access memory", 0x1000, 8)


@pytest.fixture
def ram(tmp_path: Path) -> GuestRam:
    """RAM at 0-3000 and 8000-a000, ROM at 3000-4000."""
    path = tmp_path / "ram"
    path.write_bytes(b"".join(bytes([page]) * 4096 for page in range(6)))
    pieces = [RamPiece(0, 0x3000, "ram", 0, True), RamPiece(0x3000, 0x4000, "bios", 0x3000, False),
              RamPiece(0x8000, 0xA000, "ram", 0x4000, True)]
    return GuestRam(str(path), os.open(path, os.O_RDWR), pieces, [piece.offset for piece in pieces], writable=True)


def test_pieces_are_where_they_belong(ram: GuestRam) -> None:
    assert ram.read(0x3FFE, 2) == b"\3\3"
    assert ram.read(0x8FFE, 4) == b"\4\4\5\5"
    data, fault = ram.read_upto(0x3FFC, 8)
    assert data == b"\3\3\3\3"
    assert fault is not None
    assert (fault.reason, fault.address) == (Reason.OUTSIDE, 0x4000)


def test_nothing_is_kept_while_the_guest_runs(ram: GuestRam) -> None:
    assert ram.window(0x1000) is None
    ram._still = lambda: True
    window = ram.window(0x1234)
    assert window is not None
    assert (window.start, window.end, bytes(window.view[:2])) == (0x1000, 0x2000, b"\1\1")


def test_rom_is_not_written_and_the_rest_is(ram: GuestRam) -> None:
    with pytest.raises(Fault) as caught:
        ram.write(0x2FFE, b"abcd")
    assert (caught.value.reason, caught.value.done, caught.value.address) == (Reason.READ_ONLY, 2, 0x3000)
    assert "ROM bios" in str(caught.value)
    assert ram.read(0x2FFE, 4) == b"ab\3\3"
    with pytest.raises(Fault) as caught:
        ram.write(0x9FFE, b"abcd")
    assert (caught.value.reason, caught.value.done) == (Reason.OUTSIDE, 2)


def test_a_file_that_became_shorter(ram: GuestRam) -> None:
    os.truncate(ram.path, 0x4800)
    assert ram.read(0x8000, 0x800) == b"\4" * 0x800
    with pytest.raises(Fault) as caught:
        ram.read(0x8000, 0x801)
    assert (caught.value.reason, caught.value.done) == (Reason.GONE, 0x800)
    with pytest.raises(Fault):
        ram.write(0x9000, b"x")
    assert os.stat(ram.path).st_size == 0x4800
