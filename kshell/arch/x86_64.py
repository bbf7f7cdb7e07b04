"""x86-64: four and five levels of page tables, registers in notes.

Intel SDM volume 3A chapter 4 (paging); arch/x86/include/asm/pgtable_64.h (swap entries), pgtable-invert.h (inverted
entries), pgtable_types.h (_PAGE_BIT_*); ``struct user_regs_struct`` in arch/x86/include/asm/user_64.h; QEMU
target/i386/arch_dump.c (``QEMUCPUState``).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from kshell.arch.model import ABSENT, LEAF, TABLE, Absent, Arch, PagingFormat
from kshell.errors import FormatError, OpenError, Reason

if TYPE_CHECKING:
    from kshell.arch.model import U64, Kinds

TOP = 1 << 64

PRESENT, WRITE, USER, ACCESSED, DIRTY, LARGE, GLOBAL = 1 << 0, 1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 7, 1 << 8
PROTNONE = GLOBAL  # _PAGE_BIT_PROTNONE is _PAGE_BIT_GLOBAL, in an entry that is not present
NO_EXECUTE = 1 << 63
PFN_MASK = 0x000F_FFFF_FFFF_F000
SWAP_TYPE_SHIFT, SWAP_OFFSET_SHIFT = 59, 9
MAX_SWAP_DEVICES = 23  # types above are migration, hwpoison, device memory and markers (include/linux/swap.h)

USER_REGS = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi "
    "orig_rax rip cs rflags rsp ss fs_base gs_base ds es fs gs"
).split()
PRSTATUS_PID, PRSTATUS_REGS = 32, 112

QEMU_GENERAL = "rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags".split()
QEMU_SEGMENTS = "cs ds es fs gs ss ldt tr gdt idt".split()
QEMU_CONTROL = "cr0 cr1 cr2 cr3 cr4".split()
QEMU_SIZE = 8 + 18 * 8 + 10 * 24 + 5 * 8


class X86Paging(PagingFormat):
    """Entries of 64 bits; 2 MiB leaves at level 2, 1 GiB leaves at level 3."""

    def __init__(self, levels: int, encryption_mask: int = 0) -> None:
        self.levels = levels
        self.address_mask = PFN_MASK & ~encryption_mask
        self._top = 1 << max(self.address_mask.bit_length() - 1, 0)  # a mask of everything is a damaged image's

    def decode(self, entry: int, level: int) -> tuple[int, int]:
        if entry & PRESENT:
            address = entry & self.address_mask
            if level == 1:
                return LEAF, address
            if not entry & LARGE:
                return TABLE, address
            if level <= 3:
                return LEAF, address & -(1 << self.shift(level))
            return ABSENT, 0  # a reserved bit is set: absent() says so
        # Not present, and yet a page: PROT_NONE, or a huge page that is being split (pmd_mkinvalid keeps LARGE, which
        # no swap entry has).
        if entry & (PROTNONE if level == 1 else LARGE) and level <= 3:
            # Since Linux 4.19 (6b28baca9b1f "x86/speculation/l1tf: Protect PROT_NONE PTEs against speculation")
            # the frame number of an entry that is not present is stored inverted. No RAM reaches the highest bit.
            found = ~entry if entry & self._top else entry
            return LEAF, found & self.address_mask & -(1 << self.shift(level))
        return ABSENT, 0

    def decode_all(self, entries: U64, level: int) -> tuple[Kinds, U64]:
        import numpy as np

        present = entries & np.uint64(PRESENT) != 0
        large = entries & np.uint64(LARGE) != 0
        size = np.uint64(TOP - (1 << self.shift(level)))
        kinds = np.where(present, np.int8(TABLE), np.int8(ABSENT))
        founds = entries & np.uint64(self.address_mask)
        leaf = present if level == 1 else present & large
        kinds[leaf] = LEAF if level <= 3 else ABSENT
        founds[leaf] &= size
        if level <= 3:
            hidden = ~present & (large if level > 1 else entries & np.uint64(PROTNONE) != 0)
            if hidden.any():
                plain = entries[hidden]
                plain ^= np.where(plain & np.uint64(self._top), np.uint64(TOP - 1), np.uint64(0))
                kinds[hidden] = LEAF
                founds[hidden] = plain & np.uint64(self.address_mask) & size
        founds[kinds == ABSENT] = 0
        return kinds, founds

    def absent(self, entry: int, level: int) -> Absent:
        if entry & PRESENT:
            return Absent(Reason.CORRUPT, f"level {level} entry 0x{entry:x} has a reserved bit set")
        if entry == 0 or level > 2:
            return Absent(Reason.NOT_MAPPED)
        # Since Linux 4.19 (bcd11afa7ade, 2f22b4cd45b6 "x86/speculation/l1tf: Protect swap entries against L1TF") the
        # device is above the offset and the offset is inverted, so that its highest bit is set; before, the device was
        # in bits 9 to 13 and the offset above it.
        if entry >> (SWAP_TYPE_SHIFT - 1) & 1:
            kind, offset = entry >> SWAP_TYPE_SHIFT, (~entry & ((1 << SWAP_TYPE_SHIFT) - 1)) >> SWAP_OFFSET_SHIFT
        else:
            kind, offset = entry >> SWAP_OFFSET_SHIFT & 31, entry >> (SWAP_OFFSET_SHIFT + 5)
        if kind < MAX_SWAP_DEVICES:
            return Absent(Reason.SWAPPED, f"swap device {kind}, page 0x{offset:x}")
        return Absent(Reason.NOT_MAPPED, f"special entry 0x{entry:x}: migrating, poisoned or a marker")

    def flags(self, entry: int, level: int) -> str:
        if not entry & PRESENT:
            return "--- none"
        text = "r" + ("w" if entry & WRITE else "-") + ("-" if entry & NO_EXECUTE else "x")
        return text + (" user" if entry & USER else " kernel") + (" global" if entry & GLOBAL else "")


class Region(NamedTuple):
    """What the kernel keeps at ``start <= address < end``."""

    name: str
    start: int
    end: int


#: Documentation/arch/x86/x86_64/mm.rst. KASLR moves the first three, within the span of all of them.
REGIONS: dict[int, tuple[Region, ...]] = {
    4: (
        Region("direct map", 0xFFFF_8880_0000_0000, 0xFFFF_C880_0000_0000),
        Region("vmalloc", 0xFFFF_C900_0000_0000, 0xFFFF_E900_0000_0000),
        Region("vmemmap", 0xFFFF_EA00_0000_0000, 0xFFFF_EB00_0000_0000),
    ),
    5: (
        Region("direct map", 0xFF11_0000_0000_0000, 0xFF91_0000_0000_0000),
        Region("vmalloc", 0xFFA0_0000_0000_0000, 0xFFD2_0000_0000_0000),
        Region("vmemmap", 0xFFD4_0000_0000_0000, 0xFFD6_0000_0000_0000),
    ),
}
FIXED_REGIONS = (
    Region("cpu entry area", 0xFFFF_FE00_0000_0000, 0xFFFF_FE80_0000_0000),
    Region("espfix", 0xFFFF_FF00_0000_0000, 0xFFFF_FF80_0000_0000),
    Region("EFI", 0xFFFF_FFEF_0000_0000, 0xFFFF_FFFF_0000_0000),
    Region("kernel image", 0xFFFF_FFFF_8000_0000, 0xFFFF_FFFF_C000_0000),  # 512 MiB of it without KASLR
    Region("modules", 0xFFFF_FFFF_C000_0000, 0xFFFF_FFFF_FF00_0000),  # from ffffffffa0000000 without KASLR
    Region("fixmap", 0xFFFF_FFFF_FF00_0000, 0xFFFF_FFFF_FF60_0000),
    Region("vsyscall", 0xFFFF_FFFF_FF60_0000, 0xFFFF_FFFF_FF60_1000),
)


def regions(levels: int, bases: tuple[int, int, int] | None = None) -> tuple[Region, ...]:
    """Return the regions of the kernel half, ascending.

    :param bases: values of ``page_offset_base``, ``vmalloc_base`` and ``vmemmap_base``; None: without KASLR
    """
    moved = REGIONS[levels]
    if bases is not None:
        ends = (bases[1], bases[2], FIXED_REGIONS[0].start)
        moved = tuple(
            Region(region.name, base, min(end, base + region.end - region.start))
            for region, base, end in zip(moved, bases, ends, strict=True)
        )
    return moved + FIXED_REGIONS


class X86_64(Arch):
    """AMD64 as Linux runs it."""

    name: ClassVar[str] = "x86_64"
    elf_machine: ClassVar[int] = 62
    registers: ClassVar[tuple[str, ...]] = tuple(
        "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 "
        "rip rflags cs ss ds es fs gs fs_base gs_base".split()
    )
    thread_registers: ClassVar[tuple[str, ...]] = tuple(USER_REGS)
    pc: ClassVar[str] = "rip"
    system_call: ClassVar[str] = "orig_rax"

    def paging(self, levels: int, encryption_mask: int = 0) -> X86Paging:
        if levels not in (4, 5):
            raise OpenError("", f"x86_64 page tables have 4 or 5 levels, not {levels}")
        return X86Paging(levels, encryption_mask)

    def prstatus(self, data: bytes) -> dict[str, int]:
        if len(data) < PRSTATUS_REGS + 8 * len(USER_REGS):
            raise FormatError(f"NT_PRSTATUS note of {len(data)} bytes is too short for x86_64")
        values = struct.unpack_from(f"<{len(USER_REGS)}Q", data, PRSTATUS_REGS)
        registers = dict(zip(USER_REGS, values, strict=True))
        registers["pid"] = int(struct.unpack_from("<i", data, PRSTATUS_PID)[0])
        return registers

    def user_registers(self, data: bytes) -> dict[str, int]:
        if len(data) < 8 * len(USER_REGS):
            raise FormatError(f"registers of {len(data)} bytes: 32-bit code in a 64-bit program, which is not read")
        return dict(zip(USER_REGS, struct.unpack_from(f"<{len(USER_REGS)}Q", data), strict=True))

    def pack_user_registers(self, registers: Mapping[str, int]) -> bytes:
        return struct.pack(f"<{len(USER_REGS)}Q", *(registers[name] for name in USER_REGS))

    def qemu_cpu(self, data: bytes) -> dict[str, int]:
        if len(data) < QEMU_SIZE:
            raise FormatError(f"QEMU note of {len(data)} bytes is too short for x86_64")
        registers = dict(zip(QEMU_GENERAL, struct.unpack_from("<18Q", data, 8), strict=True))
        at = 8 + 18 * 8
        for name in QEMU_SEGMENTS:
            selector, _limit, _flags, _pad, base = struct.unpack_from("<4IQ", data, at)
            if name not in ("gdt", "idt"):
                registers[name] = selector
            if name not in ("cs", "ds", "es", "ss"):
                registers[f"{name}_base"] = base
            at += 24
        registers |= dict(zip(QEMU_CONTROL, struct.unpack_from("<5Q", data, at), strict=True))
        del registers["cr1"]  # does not exist; a filler in the note
        return registers
