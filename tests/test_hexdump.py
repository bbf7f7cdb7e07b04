"""The layout of ``::dump`` (mdb-language.md 11.4)."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kshell.errors import Fault, KshellError, Reason
from kshell.hexdump import DumpOptions, dump
from kshell.partial import read_prefix

MEMORY = bytes(range(256)) * 8


class Holder:
    """Holds *data* from *start* on."""

    def __init__(self, data: bytes = MEMORY, start: int = 0) -> None:
        self.data, self.start = data, start
        self.reads: list[tuple[int, int]] = []

    def __call__(self, address: int, size: int) -> bytes:
        self.reads.append((address, size))
        if not self.start <= address <= address + size <= self.start + len(self.data):
            raise KshellError("no mapping for address")
        return self.data[address - self.start : address - self.start + size]


def shown(address: int, size: int, holder: Holder | None = None, **options: Any) -> list[str]:
    items = dump(holder or Holder(), address, size, DumpOptions(**options))
    return "".join(item if isinstance(item, str) else f"[{item}]\n" for item in items).splitlines()


HEADER = "      0 1 2 3  4\\/ 6 7  8 9 a b  c d e f  01234v6789abcdef"


def test_11_4_rounded_to_lines() -> None:
    assert shown(0x25, 0x30) == [
        HEADER,
        "20:  20212223 24252627 28292a2b 2c2d2e2f   !\"#$%&'()*+,-./",
        "30:  30313233 34353637 38393a3b 3c3d3e3f  0123456789:;<=>?",
        "40:  40414243 44454647 48494a4b 4c4d4e4f  @ABCDEFGHIJKLMNO",
        "50:  50515253 54555657 58595a5b 5c5d5e5f  PQRSTUVWXYZ[\\]^_"]


def test_11_4_trimmed() -> None:
    holder = Holder()
    assert shown(0x25, 0x30, holder, trim=True) == [
        HEADER,
        "20:             252627 28292a2b 2c2d2e2f       %&'()*+,-./",
        "30:  30313233 34353637 38393a3b 3c3d3e3f  0123456789:;<=>?",
        "40:  40414243 44454647 48494a4b 4c4d4e4f  @ABCDEFGHIJKLMNO",
        "50:  50515253 54                          PQRST           "]
    assert min(address for address, _ in holder.reads) == 0x25
    assert max(address + size for address, size in holder.reads) == 0x55


def test_11_4_relative() -> None:
    assert shown(0x25, 0x20, relative=True) == [
        "      0 1 2 3  4 5 6 7  8 9 a b  c d e f  0123456789abcdef",
        "00:  25262728 292a2b2c 2d2e2f30 31323334  %&'()*+,-./01234",
        "10:  35363738 393a3b3c 3d3e3f40 41424344  56789:;<=>?@ABCD"]


def test_11_4_little_endian_numbers() -> None:
    assert shown(0x20, 0x20, endian=True) == [
        "20:  23222120 27262524 2b2a2928 2f2e2d2c", "30:  33323130 37363534 3b3a3938 3f3e3d3c"]
    assert shown(0x22, 7, endian=True) == ["22:  25242322   282726"]
    assert shown(0x20, 16, endian=True, group=8) == ["20:  2726252423222120 2f2e2d2c2b2a2928"]


def test_11_4_unaligned_digits_are_rotated() -> None:
    assert shown(0x25, 0x11, unaligned=True, group=8) == [
        "      5 6 7 8 9 a b c  d e f 0 1 2 3 4  56789abcdef01234",
        "25:  25262728292a2b2c 2d2e2f3031323334  %&'()*+,-./01234",
        "35:  35                                 5               "]


def test_11_4_group_of_one_and_quiet() -> None:
    assert shown(0x25, 1, group=1, no_text=True) == [
        "      0  1  2  3  4 \\/  6  7   8  9  a  b  c  d  e  f",
        "20:  20 21 22 23 24 25 26 27  28 29 2a 2b 2c 2d 2e 2f"]


@pytest.mark.parametrize(("group", "used"), [(3, 4), (0, 4), (32, 4), (16, 16), (2, 2), (-4, 4)])
def test_11_4_bad_groups_are_four(group: int, used: int) -> None:
    assert DumpOptions(group=group).group_bytes == used


def test_11_4_wide_lines() -> None:
    header, line = shown(0, 1, paragraphs=2, group=16)
    # The address 0 has no bits, hence no column in the header.
    digits = " 1 2 3 4 5 6 7 8 9 a b c d e f"
    assert header == f"   \\/{digits}  0{digits}  v123456789abcdef0123456789abcdef"
    assert line.startswith("0:  000102030405060708090a0b0c0d0e0f 10111213")
    assert DumpOptions(paragraphs=99).line_bytes == 256


def test_11_4_squeezed() -> None:
    holder = Holder(b"A" * 64 + b"B" * 16 + b"C" * 48)
    assert [line[:12] for line in shown(0, 128, holder, squeeze=True)[1:]] == [
        "00:  4141414", "*", "40:  4242424", "50:  4343434", "*", "70:  4343434"]


def test_11_4_address_column() -> None:
    assert shown(0, 1)[1].startswith("0:  0001")
    assert shown(0xF8, 0x10)[1].startswith("0f0:  f0f1")
    assert shown(0, 1, address_digits=16)[1].startswith("0" * 16 + ":  0001")


def test_11_4_unreadable_bytes() -> None:
    assert shown(0x104, 4, Holder(b"x" * 64, 0x104))[1] == (
        "100:           78787878 78787878 78787878      xxxxxxxxxxxx")
    assert shown(0x7F8, 0x20)[1:] == [
        "7f0:  f0f1f2f3 f4f5f6f7 f8f9fafb fcfdfeff  ................",
        "[failed to read data at 0x800: no mapping for address]"]
    assert shown(0x20, 8, Holder(b"y" * 0x2A))[1:] == ["20:  79797979 79797979 7979               yyyyyyyyyy      "]
    assert shown(0x20, 16, Holder(b"y" * 0x2A))[1:] == [
        "20:  79797979 79797979 7979               yyyyyyyyyy      ",
        "[failed to read data at 0x2a: no mapping for address]"]
    assert shown(0x900, 16)[1:] == ["[failed to read data at 0x900: no mapping for address]"]


def plain(data: bytes, address: int, group: int) -> list[str]:
    """The layout byte by byte, for aligned whole lines."""
    digits = len(f"{address + len(data) - 1:x}")
    lines = []
    for at in range(0, len(data), 16):
        line = f"{address + at:0{digits}x}: "
        for index, byte in enumerate(data[at : at + 16]):
            line += " " * (index % group == 0) + " " * (group == 1 and index == 8) + f"{byte:02x}"
        lines.append(line + "  " + "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data[at : at + 16]))
    return lines


def dump_bytes(data: bytes, address: int, options: DumpOptions) -> str:
    """Return the dump of *data* as if it stood at *address*; nothing else is there."""

    def read(at: int, size: int) -> bytes:
        assert address <= at <= at + size <= address + len(data)
        return data[at - address : at - address + size]

    return "".join(item for item in dump(read, address, len(data), options) if isinstance(item, str))


WHOLE_LINES = st.binary(min_size=1, max_size=200).map(lambda data: data + bytes(-len(data) % 16))


@given(WHOLE_LINES, st.sampled_from([1, 2, 4, 8, 16]), st.integers(0, 2**56).map(lambda number: number * 16))
def test_11_4_against_a_loop_over_bytes(data: bytes, group: int, address: int) -> None:
    assert dump_bytes(data, address, DumpOptions(group=group)).splitlines()[1:] == plain(data, address, group)


@given(st.integers(0, 70), st.integers(1, 200), st.integers(0, 250), st.builds(
    DumpOptions, st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.booleans(),
    st.integers(0, 20), st.integers(0, 4)))
def test_11_4_every_option_and_every_end(address: int, size: int, held: int, options: DumpOptions) -> None:
    items = list(dump(Holder(MEMORY[:held]), address, size, options))
    assert any(isinstance(item, KshellError) for item in items) == (held < address + size)
    assert all(item.endswith("\n") for item in items if isinstance(item, str))


def test_a_mebibyte_is_quick_and_the_first_lines_come_at_once() -> None:
    holder = Holder(bytes(range(256)) * 4096)
    begin = time.perf_counter()
    blocks = dump(holder, 0, 1 << 20)
    next(blocks), next(blocks)
    assert sum(size for _, size in holder.reads) <= 4096
    for _ in blocks:
        pass
    assert time.perf_counter() - begin < 1.0  # measured: 0.07 s


@pytest.mark.parametrize("held", [0, 1, 7, 8, 99, 100])
def test_read_prefix_finds_the_end(held: int) -> None:
    data, error = read_prefix(Holder(MEMORY[:held]), 0, 100)
    assert data == MEMORY[:held]
    assert (error is None) == (held == 100)
    assert len(read_prefix(Holder(MEMORY[:held]), 0, 100, 4)[0]) == held - held % 4


def test_read_prefix_believes_a_fault_that_says_how_far_it_got() -> None:
    calls = []

    def read(address: int, size: int) -> bytes:
        calls.append(address)
        raise Fault(address + 3, size, Reason.EXCLUDED, partial=b"abc")

    data, error = read_prefix(read, 0x10, 8)
    assert (data, calls) == (b"abc", [0x10])
    assert isinstance(error, Fault)
