"""i386: programs of 32 bits, as a kernel of x86-64 runs them. Their kernels are not read.

``struct user_regs_struct32`` and ``struct elf_prstatus`` of a 32-bit core in arch/x86/include/asm/elf.h and
include/linux/elfcore-compat.h; their order is that of ``struct user_regs_struct`` in arch/x86/include/asm/user_32.h.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import ClassVar

from kshell.arch.model import Arch, PagingFormat
from kshell.errors import FormatError, OpenError

USER_REGS = "ebx ecx edx esi edi ebp eax ds es fs gs orig_eax eip cs eflags esp ss".split()
REGISTERS = struct.Struct(f"<{len(USER_REGS)}I")
PRSTATUS_PID, PRSTATUS_REGS = 24, 72


class I386(Arch):
    """The 32-bit half of AMD64, for programs."""

    name: ClassVar[str] = "i386"
    elf_machine: ClassVar[int] = 3
    pointer_size: ClassVar[int] = 4
    registers: ClassVar[tuple[str, ...]] = tuple(
        "eax ebx ecx edx esi edi ebp esp eip eflags cs ss ds es fs gs".split())
    thread_registers: ClassVar[tuple[str, ...]] = tuple(USER_REGS)
    pc: ClassVar[str] = "eip"
    system_call: ClassVar[str] = "orig_eax"

    def paging(self, levels: int, encryption_mask: int = 0) -> PagingFormat:
        raise OpenError("", "kernels of i386 are not read, its programs are", kind="unsupported")

    def prstatus(self, data: bytes) -> dict[str, int]:
        if len(data) < PRSTATUS_REGS + REGISTERS.size:
            raise FormatError(f"NT_PRSTATUS note of {len(data)} bytes is too short for i386")
        registers = self.user_registers(data[PRSTATUS_REGS:])
        registers["pid"] = int(struct.unpack_from("<i", data, PRSTATUS_PID)[0])
        return registers

    def user_registers(self, data: bytes) -> dict[str, int]:
        if len(data) < REGISTERS.size:
            raise FormatError(f"registers of {len(data)} bytes are not those of i386")
        return dict(zip(USER_REGS, REGISTERS.unpack_from(data), strict=True))

    def pack_user_registers(self, registers: Mapping[str, int]) -> bytes:
        return REGISTERS.pack(*(registers[name] & 0xFFFF_FFFF for name in USER_REGS))

    def qemu_cpu(self, data: bytes) -> dict[str, int]:
        raise FormatError("a QEMU note is of a machine, not of a program")
