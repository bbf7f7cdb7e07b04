"""x86-64: entries of page tables of every kind, one and many at once; registers in notes."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kshell.arch.model import ABSENT, LEAF, MACHINES, TABLE, arch_of_elf, arch_of_machine
from kshell.arch.x86_64 import QEMU_SIZE, USER_REGS, X86_64
from kshell.errors import FormatError, OpenError, Reason

ARCH = X86_64()
P, RW, LARGE, PROTNONE, NX = 1, 2, 0x80, 0x100, 1 << 63
PFNS = 0x000F_FFFF_FFFF_F000
SME = 1 << 47


@pytest.mark.parametrize("level, entry, expected", [
    (4, 0x1234_5000 | P | RW, (TABLE, 0x1234_5000)),
    (3, 0x1234_5000 | P | RW, (TABLE, 0x1234_5000)),
    (2, 0x1234_5000 | P | RW, (TABLE, 0x1234_5000)),
    (1, 0x1234_5000 | P | RW | NX, (LEAF, 0x1234_5000)),
    (1, 0x1234_5000 | P | LARGE, (LEAF, 0x1234_5000)),            # bit 7 of the last level is PAT, not large
    (2, 0x1220_0000 | P | LARGE, (LEAF, 0x1220_0000)),
    (2, 0x1220_1000 | P | LARGE, (LEAF, 0x1220_0000)),            # bit 12 of a large entry is PAT
    (3, 0x4000_0000 | P | LARGE, (LEAF, 0x4000_0000)),
    (4, 0x4000_0000 | P | LARGE, (ABSENT, 0)),                    # reserved
    (5, 0x4000_0000 | P | LARGE, (ABSENT, 0)),
    (1, (~0x1234_5000 & PFNS) | PROTNONE, (LEAF, 0x1234_5000)),   # PROT_NONE, the frame number inverted
    (2, (~0x1220_0000 & PFNS) | PROTNONE | LARGE, (LEAF, 0x1220_0000)),
    (2, (~0x1220_0000 & PFNS) | PROTNONE, (ABSENT, 0)),
    (2, (~0x1220_0000 & PFNS) | LARGE, (LEAF, 0x1220_0000)),      # a huge page while it is split
    (3, (~0x4000_0000 & PFNS) | PROTNONE | LARGE, (LEAF, 0x4000_0000)),
    (4, (~0x4000_0000 & PFNS) | PROTNONE | LARGE, (ABSENT, 0)),
    (1, 0x1234_5000 | PROTNONE, (LEAF, 0x1234_5000)),             # before 4.19 nothing was inverted
    (1, 0, (ABSENT, 0)),
    (1, 0x7FF0_0000_0000_0000 | 0x5000 | P, (LEAF, 0x5000)),      # bits 52 to 62 are software's and protection keys
])
def test_entries(level: int, entry: int, expected: tuple[int, int]) -> None:
    assert ARCH.paging(5).decode(entry, level) == expected


def test_the_encryption_bit_is_no_address_bit() -> None:
    plain, secret = ARCH.paging(4), ARCH.paging(4, SME)
    assert plain.decode(0x5000 | SME | P, 1) == (LEAF, 0x5000 | SME)
    assert secret.decode(0x5000 | SME | P, 1) == (LEAF, 0x5000)
    assert secret.decode(0x5000 | SME | P, 4) == (TABLE, 0x5000)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_the_mask_takes_nothing_but_address_bits(entry: int, mask: int) -> None:
    for level in (1, 2, 3, 4, 5):
        kind, found = ARCH.paging(5, mask).decode(entry, level)
        assert found & (mask | ~PFNS) == 0 and kind in (ABSENT, TABLE, LEAF)


ENTRIES = st.one_of(
    st.integers(0, 2**64 - 1),
    st.builds(lambda frame, bits, high: frame << 12 & PFNS | bits | high << 52,
              st.integers(0, 2**40 - 1), st.integers(0, 0x1FF), st.integers(0, 0xFFF)),
)


@given(st.lists(ENTRIES, min_size=1, max_size=40), st.sampled_from([0, SME, 0xFF << 44]))
def test_decoding_many_is_decoding_each(entries: list[int], mask: int) -> None:
    paging = ARCH.paging(5, mask)
    for level in (1, 2, 3, 4, 5):
        kinds, founds = paging.decode_all(np.array(entries, np.uint64), level)
        rows = [paging.decode(entry, level) for entry in entries]
        assert list(zip(kinds.tolist(), founds.tolist(), strict=True)) == rows


@pytest.mark.parametrize("entry, level, reason, words", [
    (0, 1, Reason.NOT_MAPPED, ""),
    (0x5000 | P | LARGE, 4, Reason.CORRUPT, "level 4"),
    # type 3, offset 0x1234, stored inverted from bit 14 on: what arch/x86/include/asm/pgtable_64.h draws
    (3 << 59 | (~(0x1234 << 9) & (1 << 59) - 1) & ~0x1FF, 1, Reason.SWAPPED, "swap device 3, page 0x1234"),
    (0 << 59 | (~(0 << 9) & (1 << 59) - 1) & ~0x1FF, 1, Reason.SWAPPED, "swap device 0, page 0x0"),
    (30 << 59 | (~(7 << 9) & (1 << 59) - 1) & ~0x1FF, 1, Reason.NOT_MAPPED, "migrating"),
    (0x1234 << 14 | 3 << 9, 1, Reason.SWAPPED, "swap device 3, page 0x1234"),  # before 4.19
    (1 << 40, 3, Reason.NOT_MAPPED, ""),
])
def test_why_an_entry_maps_nothing(entry: int, level: int, reason: Reason, words: str) -> None:
    absent = ARCH.paging(4).absent(entry, level)
    assert absent.reason is reason and words in absent.detail


@given(ENTRIES)
def test_every_absent_entry_has_a_reason(entry: int) -> None:
    for level in (1, 2, 3, 4, 5):
        if ARCH.paging(5).decode(entry, level)[0] == ABSENT:
            assert isinstance(ARCH.paging(5).absent(entry, level).reason, Reason)
        assert ARCH.paging(5).flags(entry, level)


@pytest.mark.parametrize("levels, address, good", [
    (4, 0x0000_7FFF_FFFF_FFFF, True), (4, 0x0000_8000_0000_0000, False), (4, 0xFFFF_7FFF_FFFF_FFFF, False),
    (4, 0xFFFF_8000_0000_0000, True), (4, 0xFFFF_FFFF_FFFF_FFFF, True), (4, 1 << 64, False), (4, -1, False),
    (5, 0x0000_8000_0000_0000, True), (5, 0x00FF_FFFF_FFFF_FFFF, True), (5, 0x0100_0000_0000_0000, False),
    (5, 0xFF00_0000_0000_0000, True), (5, 0xFEFF_FFFF_FFFF_FFFF, False),
])
def test_canonical(levels: int, address: int, good: bool) -> None:
    assert ARCH.paging(levels).canonical(address) is good


def test_levels_that_do_not_exist() -> None:
    for levels in (0, 3, 6):
        with pytest.raises(OpenError, match=f"not {levels}"):
            ARCH.paging(levels)


# -- notes -------------------------------------------------------------------------------------------------------------


def test_prstatus() -> None:
    data = bytearray(336)
    struct.pack_into("<i", data, 32, 1234)
    struct.pack_into("<27Q", data, 112, *range(100, 127))
    registers = ARCH.prstatus(bytes(data))
    assert registers.pop("pid") == 1234
    assert registers == dict(zip(USER_REGS, range(100, 127), strict=True))
    assert registers["r15"] == 100 and registers["rip"] == 116 and registers["rsp"] == 119 and registers["gs"] == 126


def test_qemu_cpu() -> None:
    data = struct.pack("<II", 1, QEMU_SIZE) + struct.pack("<18Q", *range(18))
    for number in range(10):
        data += struct.pack("<4IQ", 0x10 + number, 0, 0, 0, 0x1000 + number)
    data += struct.pack("<5Q", 0xC0, 0xC1, 0xC2, 0xC3, 0xC4)
    registers = ARCH.qemu_cpu(data)
    assert registers["rax"] == 0 and registers["rsp"] == 6 and registers["r15"] == 15 and registers["rip"] == 16
    assert registers["cs"] == 0x10 and registers["gs_base"] == 0x1004 and registers["idt_base"] == 0x1009
    assert registers["cr3"] == 0xC3 and registers["cr4"] == 0xC4 and "cr1" not in registers


def test_notes_that_are_too_short() -> None:
    whole = bytes(336)
    for size in (0, 31, 112, 327):
        with pytest.raises(FormatError, match=f"{size} bytes"):
            ARCH.prstatus(whole[:size])
    for size in (0, 7, QEMU_SIZE - 1):
        with pytest.raises(FormatError, match=f"{size} bytes"):
            ARCH.qemu_cpu(bytes(size))


# -- which architecture ------------------------------------------------------------------------------------------------


def test_architectures_are_named() -> None:
    assert arch_of_elf(62).name == arch_of_machine("x86_64").name == "x86_64"
    for number, name in MACHINES.items():
        if number != 62:
            with pytest.raises(OpenError, match=f"{name}: this architecture is not supported yet"):
                arch_of_elf(number)
    with pytest.raises(OpenError, match="ELF machine 9999"):
        arch_of_elf(9999)
    with pytest.raises(OpenError, match="vax: this architecture"):
        arch_of_machine("vax")
