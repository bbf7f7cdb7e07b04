"""What following stacks of user code must know of a machine: x86-64, and i386 programs.

System V ABI for x86-64, figure 3.36 (DWARF numbers of registers), 3.4.1 (the outermost frame has no frame pointer);
System V ABI for i386, table 2.14. Signal frames: ``struct rt_sigframe`` in arch/x86/include/asm/sigframe.h,
``struct sigcontext`` in arch/x86/include/uapi/asm/sigcontext.h.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple


class SignalFrame(NamedTuple):
    """How a handler's return is told by its code, and where the registers are that the signal has interrupted.

    :ivar code: what is at the return address of the handler, ``context`` bytes from the stack pointer of which the
        registers begin
    """

    code: bytes
    context: int


class Abi(NamedTuple):
    """One machine.

    :ivar word: bytes of a register; :ivar registers: by their DWARF numbers; :ivar bp, sp, pc: numbers among them
    :ivar endbr: what a function may begin with; :ivar prologue: how one begins that sets the frame pointer
    :ivar signals: returns from handlers of programs without tables for them; ``saved``: the registers, in that order
    """

    arch: str
    word: int
    registers: Sequence[str]
    bp: int
    sp: int
    pc: int
    endbr: bytes
    prologue: bytes
    signals: Sequence[SignalFrame]
    saved: Sequence[str]

    @property
    def top(self) -> int:
        """The end of the address space."""
        return 1 << 8 * self.word

    @property
    def code(self) -> str:
        """What :mod:`struct` calls a register."""
        return "Q" if self.word == 8 else "I"


X86_64 = Abi(
    "x86_64", 8,
    "rax rdx rcx rbx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip".split(),
    6, 7, 16,
    b"\xf3\x0f\x1e\xfa", b"\x55\x48\x89\xe5",  # endbr64; push %rbp; mov %rsp, %rbp
    # mov $15, %rax; syscall: rt_sigreturn, in one of the ways that C libraries and Go write it; behind flags, link and
    # stack of struct ucontext
    (SignalFrame(b"\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05", 40), SignalFrame(b"\xb8\x0f\x00\x00\x00\x0f\x05", 40)),
    "r8 r9 r10 r11 r12 r13 r14 r15 rdi rsi rbp rbx rdx rax rcx rsp rip".split(),
)
I386 = Abi(
    "i386", 4, "eax ecx edx ebx esp ebp esi edi eip".split(), 5, 4, 8,
    b"\xf3\x0f\x1e\xfb", b"\x55\x89\xe5",  # endbr32; push %ebp; mov %esp, %ebp
    # pop %eax; mov $119, %eax; int $0x80: sigreturn, behind the signal's number. mov $173, %eax; int $0x80:
    # rt_sigreturn, behind number, two pointers, siginfo, and flags, link and stack of struct ucontext.
    # Of either begin four segments, of 4 bytes each.
    (SignalFrame(b"\x58\xb8\x77\x00\x00\x00\xcd\x80", 4 + 16),
     SignalFrame(b"\xb8\xad\x00\x00\x00\xcd\x80", 12 + 128 + 20 + 16)),
    "edi esi ebp esp ebx edx ecx eax trapno err eip".split(),
)


def saved_registers(abi: Abi, data: bytes) -> dict[int, int]:
    """Return the registers in *data* of a signal frame, by DWARF number."""
    values = struct.unpack_from(f"<{len(abi.saved)}{abi.code}", data)
    return {abi.registers.index(name): value for name, value in zip(abi.saved, values, strict=True)
            if name in abi.registers}
